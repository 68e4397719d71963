package dev.headway;

import java.util.Comparator;
import java.util.Iterator;
import java.util.Spliterator;
import java.util.function.Consumer;

/** The iterator and spliterator of {@link Meter#track}. */
final class Tracked {
    private Tracked() {}

    /** One loop over the items. */
    static final class Items<T> implements Iterator<T> {
        private final Meter meter;
        private final Iterator<T> source;
        private boolean inHand;

        Items(Meter meter, Iterator<T> source) {
            this.meter = meter;
            this.source = source;
        }

        @Override
        public boolean hasNext() {
            settle();
            return source.hasNext();
        }

        @Override
        public T next() {
            settle();
            T item = source.next();
            inHand = true;
            return item;
        }

        @Override
        public void remove() {
            source.remove();
        }

        private void settle() {
            if (inHand) {
                inHand = false;
                meter.advance(1);
            }
        }
    }

    /** A stream's source, or one thread's share of it in a parallel stream. */
    static final class Parts<T> implements Spliterator<T> {
        private final Meter meter;
        private final Spliterator<T> source;

        Parts(Meter meter, Spliterator<T> source) {
            this.meter = meter;
            this.source = source;
        }

        @Override
        public boolean tryAdvance(Consumer<? super T> action) {
            if (!source.tryAdvance(action)) {
                return false;
            }
            meter.advance(1);
            return true;
        }

        @Override
        public void forEachRemaining(Consumer<? super T> action) {
            source.forEachRemaining(
                    item -> {
                        action.accept(item);
                        meter.advance(1);
                    });
        }

        @Override
        public Spliterator<T> trySplit() {
            Spliterator<T> half = source.trySplit();
            return half == null ? null : new Parts<>(meter, half);
        }

        @Override
        public long estimateSize() {
            return source.estimateSize();
        }

        @Override
        public int characteristics() {
            return source.characteristics();
        }

        @Override
        public Comparator<? super T> getComparator() {
            return source.getComparator();
        }
    }
}
