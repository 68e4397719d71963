package dev.headway;

import com.google.protobuf.Struct;

import dev.headway.v1.RecordError;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Spliterator;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.LongAdder;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * One part of a job, as its worker moves it: progress, counters, record errors and variables.
 *
 * <p>Every method only touches memory and returns at once; none throws because of the server.
 * Methods may be called from any thread. Use one meter from one process; for several processes,
 * give each a {@linkplain Job#part part} of its own.
 */
public class Meter {
    private static final int COUNTERS = 64;
    private static final VarHandle DONE;
    private static final VarHandle OWN;

    static {
        try {
            DONE = MethodHandles.lookup().findVarHandle(Meter.class, "done", long.class);
            OWN = MethodHandles.lookup().findVarHandle(Meter.class, "own", long.class);
        } catch (ReflectiveOperationException impossible) {
            throw new ExceptionInInitializerError(impossible);
        }
    }

    private final String part;
    private final Object lock = new Object();
    private final LongAdder shared = new LongAdder();
    private final Map<String, LongAdder> counters = new ConcurrentHashMap<>();
    private final Backlog errors = new Backlog();

    /** What {@link #progress(long)} said, less what was advanced until then. */
    private long done;

    /** What the thread that advanced first has advanced; that one needs no atomic instruction. */
    private long own;

    private volatile Thread owner;

    /**
     * Whether nothing but {@code done} counts: progress was set, if anything, and never advanced.
     */
    private volatile boolean plain = true;

    /** To be called before the first change. */
    private volatile Runnable first;

    private long errorsTaken;
    private Struct.Builder variables;
    private Cut cut;
    private volatile String message;
    private volatile Long size;

    /** What a meter has to say: totals as they stand, and what was not taken before. */
    record Sample(
            long progress,
            Map<String, Long> counters,
            List<RecordError> errors,
            Struct variables,
            String message,
            Long size,
            boolean more,
            boolean pressing) {
        // more: something is left for a further sample. pressing: what is left are record errors,
        // and may grow.
    }

    /** A meter at the moment of a checkpoint. */
    private record Cut(long progress, Map<String, Long> counters, long errors) {}

    Meter(String part, long progress) {
        this.part = part;
        this.done = progress;
    }

    /**
     * Says how many units this part has done so far. It may be less than before, or more than the
     * job's size; less than 0 counts as 0.
     */
    public final void progress(long done) {
        if (plain) {
            DONE.setRelease(this, done);
        } else {
            touch();
            DONE.setRelease(this, done - advanced());
        }
    }

    /** Counts one more unit as done. */
    public final void advance() {
        advance(1);
    }

    /** Counts {@code n} more units as done. */
    public final void advance(long n) {
        if (Thread.currentThread() == owner) {
            OWN.setRelease(this, own + n);
        } else if (owner != null) {
            shared.add(n);
        } else {
            advanceFirst(n);
        }
    }

    private void advanceFirst(long n) {
        touch();
        synchronized (lock) {
            if (owner == null) {
                owner = Thread.currentThread();
                plain = false;
            }
        }
        advance(n);
    }

    private long advanced() {
        return (long) OWN.getAcquire(this) + shared.sum();
    }

    /** Units done by this part, in this process's eyes. */
    public final long progress() {
        return (long) DONE.getAcquire(this) + advanced();
    }

    /**
     * The items, each counted as done when the next is asked for. An item during which the loop is
     * left, by break or by an exception, is not counted. A collection's size becomes the job's, if
     * that is not known yet.
     */
    public final <T> Iterable<T> track(Iterable<T> items) {
        if (items instanceof Collection<?> collection) {
            expect(collection.size());
        }
        return () -> new Tracked.Items<>(this, items.iterator());
    }

    /**
     * The same stream, each item counted as done when the pipeline has dealt with it; in parallel
     * streams too. An item for which the pipeline throws is not counted. A size that the stream
     * knows becomes the job's, as a collection's does.
     */
    public final <T> Stream<T> track(Stream<T> items) {
        var source = items.spliterator();
        if (source.hasCharacteristics(Spliterator.SIZED)) {
            expect(source.estimateSize());
        }
        return StreamSupport.stream(new Tracked.Parts<>(this, source), items.isParallel())
                .onClose(items::close);
    }

    /** Adds one to a named tally; see {@link #count(String, long)}. */
    public final void count(String counter) {
        count(counter, 1);
    }

    /**
     * Adds to a named tally ({@code added}, {@code updated}, {@code skipped}). At most 64 a job,
     * names of 1 to 128 characters: what is longer is cut, further ones are passed over.
     */
    public final void count(String counter, long n) {
        touch();
        LongAdder tally = counters.get(counter);
        if (tally == null) {
            synchronized (lock) {
                tally = counters.get(counter);
                if (tally == null) {
                    if (counters.size() == COUNTERS) {
                        return;
                    }
                    tally = new LongAdder();
                    counters.put(counter, tally);
                }
            }
        }
        tally.add(n);
    }

    /**
     * Notes a record that could not be worked on; see {@link #recordError(Object, Object, String)}.
     */
    public final void recordError(Object record, Object message) {
        recordError(record, message, "");
    }

    /**
     * Notes a record that could not be worked on.
     *
     * <p>Each is counted. Of more than 1,000 that wait for the server the first and the last 500
     * keep their texts; it keeps but the first and the last 100 of a job itself.
     *
     * @param record which: a control number, a line, a key; its first 256 characters
     * @param message why, for people; its first 1,024 characters
     * @param code what kind of fault, to group by: {@code BAD_LEADER}; its first 64 characters
     */
    public final void recordError(Object record, Object message, String code) {
        touch();
        String name = Values.clean(record, 256);
        RecordError error =
                RecordError.newBuilder()
                        .setRecord(name.isEmpty() ? "?" : name)
                        .setMessage(Values.clean(message, 1024))
                        .setCode(code == null ? "" : Values.clean(code, 64))
                        .build();
        synchronized (lock) {
            errors.add(error);
        }
    }

    /**
     * Merges into the job's variables: at most 256, of 256 KiB in all as JSON, names of 1 to 128
     * characters. Sent with the next report. What JSON has no word for (dates, integers beyond 2⁵³)
     * becomes its text. If the server refuses them, that is a warning.
     */
    public void set(Map<String, ?> variables) {
        merge(variables, false);
    }

    /**
     * Merges variables that are stored together with the progress, counters and record errors of
     * this moment, or not at all: what a worker needs that resumes the job after a crash.
     */
    public void checkpoint(Map<String, ?> variables) {
        merge(variables, true);
    }

    /** Says what the job is doing now, for people: the first 1,024 characters. */
    public final void message(String text) {
        touch();
        message = Values.clean(text, 1024);
    }

    /** What was last said with {@link #message(String)}; empty at first. */
    public final String message() {
        String text = message;
        return text == null ? "" : text;
    }

    private void merge(Map<String, ?> added, boolean now) {
        touch();
        Struct struct = Values.toStruct(added);
        synchronized (lock) {
            if (variables == null) {
                variables = Struct.newBuilder();
            }
            variables.putAllFields(struct.getFieldsMap());
            if (now) {
                cut = new Cut(progress(), tallies(), errorsTaken + errors.size());
            }
        }
    }

    /** Has {@code action} called once, before the first change. */
    final void beforeFirst(Runnable action) {
        first = action;
        plain = false;
    }

    final void touch() {
        if (first != null) {
            Runnable action;
            synchronized (lock) {
                action = first;
                first = null;
            }
            if (action != null) {
                action.run();
            }
        }
    }

    /** Told how many items are tracked: a part's own are not the job's. */
    void expect(long size) {}

    final void size(Long units) {
        touch();
        size = units;
    }

    final Long sizeSaid() {
        return size;
    }

    final String part() {
        return part;
    }

    private Map<String, Long> tallies() {
        Map<String, Long> totals = new HashMap<>();
        counters.forEach((name, tally) -> totals.merge(name(name), tally.sum(), Long::sum));
        return totals;
    }

    private static String name(String counter) {
        String name = Values.clean(counter, 128);
        return name.isEmpty() ? "?" : name;
    }

    /**
     * For the engine: all there is to say, with at most so many record errors, of at most {@code
     * room} bytes, one apart.
     */
    final Sample sample(int atMost, int room) {
        synchronized (lock) {
            long waiting = cut == null ? errors.size() : cut.errors - errorsTaken;
            List<RecordError> taken = new ArrayList<>();
            while (waiting > 0 && room > 0 && taken.size() < atMost) {
                RecordError error = errors.remove();
                taken.add(error);
                room -= error.getSerializedSize();
                waiting--;
            }
            errorsTaken += taken.size();
            long progress = cut == null ? progress() : cut.progress;
            Map<String, Long> totals = cut == null ? tallies() : cut.counters;
            boolean more = cut != null || waiting > 0;
            Struct struct = null;
            if (waiting == 0) {
                struct = variables == null ? null : variables.build();
                variables = null;
                cut = null;
            }
            return new Sample(
                    Math.max(progress, 0), totals, taken, struct, message, size, more, waiting > 0);
        }
    }
}
