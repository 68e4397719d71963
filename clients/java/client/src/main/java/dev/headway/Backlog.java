package dev.headway;

import dev.headway.v1.RecordError;

import java.util.ArrayDeque;
import java.util.Deque;

/**
 * Holds record errors until they are sent. It counts all of them, and keeps the texts of the first
 * and the last.
 */
final class Backlog {
    private static final int MAX_AT_EACH_END = 500;
    private static final RecordError NAMELESS = RecordError.newBuilder().setRecord("?").build();

    private final Deque<RecordError> first = new ArrayDeque<>();
    private final Deque<RecordError> last = new ArrayDeque<>();
    private long nameless;

    long size() {
        return first.size() + nameless + last.size();
    }

    void add(RecordError error) {
        if (last.isEmpty() && nameless == 0 && first.size() < MAX_AT_EACH_END) {
            first.add(error);
            return;
        }
        last.add(error);
        if (last.size() > MAX_AT_EACH_END) {
            last.remove();
            nameless++;
        }
    }

    RecordError remove() {
        if (!first.isEmpty()) {
            return first.remove();
        }
        if (nameless > 0) {
            nameless--;
            return NAMELESS;
        }
        return last.remove();
    }
}
