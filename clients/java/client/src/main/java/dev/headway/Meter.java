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
 * <p>Every method only touches memory and returns at once. None throws because of the server.
 * Methods may be called from any thread. Use one meter from one process; give each of several
 * processes a {@linkplain Job#part part} of its own.
 */
public class Meter {
    private static final int MAX_COUNTERS = 64;
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

    /** The last value of {@link #progress(long)}, less what was advanced until then. */
    private long done;

    /** What the first advancing thread has advanced; that thread needs no atomic instruction. */
    private long own;

    private volatile Thread owner;

    /** Whether only {@code done} counts: progress may have been set, but never advanced. */
    private volatile boolean plain = true;

    /** Call before the first change. */
    private volatile Runnable first;

    private long errorsTaken;
    private Struct.Builder variables;
    private Cut cut;
    private volatile String message;
    private volatile Long size;

    /**
     * What a meter has to report: current totals, and record errors and variables that were not
     * taken before.
     */
    record Sample(
            long progress,
            Map<String, Long> counters,
            List<RecordError> errors,
            Struct variables,
            String message,
            Long size,
            boolean more,
            boolean pressing) {
        // more: something is left for a further sample. pressing: record errors are left, and may
        // pile up.
    }

    /** The state of a meter at the moment of a checkpoint. */
    private record Cut(long progress, Map<String, Long> counters, long errors) {}

    Meter(String part, long progress) {
        this.part = part;
        this.done = progress;
    }

    /**
     * Sets how many units this part has done so far. It may be less than before, or more than the
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

    /** Units done by this part, as far as this process knows. */
    public final long progress() {
        return (long) DONE.getAcquire(this) + advanced();
    }

    /**
     * The items, each counted as done when the next is asked for. An item does not count if the
     * loop is left during it, by break or by an exception. A collection's size becomes the job's,
     * if that is not known yet.
     */
    public final <T> Iterable<T> track(Iterable<T> items) {
        if (items instanceof Collection<?> collection) {
            expect(collection.size());
        }
        return () -> new Tracked.Items<>(this, items.iterator());
    }

    /**
     * The same stream, each item counted as done when the pipeline has processed it; in parallel
     * streams too. An item for which the pipeline throws does not count. A size that the stream
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

    /** Adds one to a named counter; see {@link #count(String, long)}. */
    public final void count(String counter) {
        count(counter, 1);
    }

    /**
     * Adds to a named counter ({@code added}, {@code updated}, {@code skipped}). A job has at most
     * 64, with names of 1 to 128 characters. Longer names are cut, further counters are dropped.
     */
    public final void count(String counter, long n) {
        touch();
        LongAdder total = counters.get(counter);
        if (total == null) {
            synchronized (lock) {
                total = counters.get(counter);
                if (total == null) {
                    if (counters.size() == MAX_COUNTERS) {
                        return;
                    }
                    total = new LongAdder();
                    counters.put(counter, total);
                }
            }
        }
        total.add(n);
    }

    /**
     * Reports a record that could not be processed; see {@link #recordError(Object, Object,
     * String)}.
     */
    public final void recordError(Object record, Object message) {
        recordError(record, message, "");
    }

    /**
     * Reports a record that could not be processed.
     *
     * <p>Every error is counted. If more than 1,000 wait for the server, only the first and the
     * last 500 keep their texts. The server keeps only the first and the last 100 of a job.
     *
     * @param record which: a control number, a line, a key; its first 256 characters
     * @param message why, for people; its first 1,024 characters
     * @param code the kind of fault, to group by: {@code BAD_LEADER}; its first 64 characters
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
     * characters. Sent with the next report. What JSON cannot express (dates, integers beyond 2⁵³)
     * becomes its text. If the server refuses them, the client logs a warning.
     */
    public void set(Map<String, ?> variables) {
        merge(variables, false);
    }

    /**
     * Merges variables and stores them together with the current progress, counters and record
     * errors, or not at all. A worker that resumes the job after a crash reads them.
     */
    public void checkpoint(Map<String, ?> variables) {
        merge(variables, true);
    }

    /** Says what the job is doing now, for people: the first 1,024 characters. */
    public final void message(String text) {
        touch();
        message = Values.clean(text, 1024);
    }

    /** The last text given to {@link #message(String)}; empty at first. */
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
                cut = new Cut(progress(), totals(), errorsTaken + errors.size());
            }
        }
    }

    /** Runs {@code action} once, before the first change. */
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

    /** Receives the number of tracked items. A part's number is not the job's size. */
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

    private Map<String, Long> totals() {
        Map<String, Long> totals = new HashMap<>();
        counters.forEach((name, total) -> totals.merge(name(name), total.sum(), Long::sum));
        return totals;
    }

    private static String name(String counter) {
        String name = Values.clean(counter, 128);
        return name.isEmpty() ? "?" : name;
    }

    /**
     * For the engine: takes everything there is to report. The record errors are at most so many,
     * and have at most {@code room} bytes, plus one.
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
            Map<String, Long> totals = cut == null ? totals() : cut.counters;
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
