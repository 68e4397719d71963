package dev.headway.tools;

import org.marc4j.MarcStreamReader;
import org.marc4j.marc.ControlField;
import org.marc4j.marc.DataField;
import org.marc4j.marc.Record;

import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * A record as far as an import has to know it.
 *
 * @param number its control number, empty if it has none
 * @param fault why it cannot be imported, or null
 */
record Marc(String number, Fault fault) {
    private static final byte END = 0x1D;
    private static final int LONGEST = 99_999;
    private static final String KINDS = "acdefgijkmoprt";

    private static final Feed FEED = new Feed();
    private static final MarcStreamReader READER = new MarcStreamReader(FEED);

    /** Why a record cannot be imported. */
    record Fault(String code, String message) {}

    /** A record's bytes, and where in the file they begin. */
    record Raw(byte[] data, int offset) {}

    /**
     * The records of a file. They end at the terminator, whatever length they claim, so that a
     * broken record does not damage others.
     */
    static List<Raw> split(byte[] file) {
        List<Raw> records = new ArrayList<>();
        int offset = 0;
        for (int i = 0; i < file.length; i++) {
            if (file[i] == END) {
                records.add(raw(file, offset, i + 1));
                offset = i + 1;
            }
        }
        if (!new String(file, offset, file.length - offset, StandardCharsets.ISO_8859_1)
                .isBlank()) {
            records.add(raw(file, offset, file.length));
        }
        return records;
    }

    private static Raw raw(byte[] file, int offset, int end) {
        int start = offset;
        while (start < end && (file[start] == '\r' || file[start] == '\n' || file[start] == ' ')) {
            start++;
        }
        return new Raw(Arrays.copyOfRange(file, start, end), offset);
    }

    /** Reads a record, and says what is wrong with it. Use it from one thread. */
    static Marc read(byte[] data) {
        if (data.length == 0 || data[data.length - 1] != END) {
            return new Marc("", new Fault("TRUNCATED", "the file ends within the record"));
        }
        Record record;
        try {
            FEED.put(withItsLength(data));
            record = READER.next();
        } catch (RuntimeException unreadable) {
            // Any fault that marc4j finds. It also fails with exceptions of its own arrays.
            return new Marc(
                    "", new Fault("BAD_STRUCTURE", String.valueOf(unreadable.getMessage())));
        }
        String number = controlNumber(record);
        char kind = record.getLeader().getTypeOfRecord();
        if (KINDS.indexOf(kind) < 0) {
            return new Marc(
                    number,
                    new Fault("BAD_LEADER", "type of record '" + kind + "' is not MARC 21"));
        }
        if (number.isEmpty()) {
            return new Marc(
                    number, new Fault("NO_CONTROL_NUMBER", "field 001 is missing or empty"));
        }
        return new Marc(
                number,
                hasTitle(record) ? null : new Fault("NO_TITLE", "field 245 is missing or empty"));
    }

    private static String controlNumber(Record record) {
        ControlField field = record.getControlNumberField();
        return field == null || field.getData() == null ? "" : field.getData().strip();
    }

    private static boolean hasTitle(Record record) {
        return record.getVariableField("245") instanceof DataField title
                && title.getSubfields("ab").stream().anyMatch(part -> !part.getData().isEmpty());
    }

    /** marc4j relies on the length that a record claims. */
    private static byte[] withItsLength(byte[] data) {
        byte[] length =
                String.format("%05d", Math.min(data.length, LONGEST))
                        .getBytes(StandardCharsets.US_ASCII);
        if (data.length < length.length
                || Arrays.equals(data, 0, length.length, length, 0, length.length)) {
            return data;
        }
        byte[] corrected = data.clone();
        System.arraycopy(length, 0, corrected, 0, length.length);
        return corrected;
    }

    /**
     * Gives one reader one record after the other: making a reader takes longer than reading a
     * record.
     */
    private static final class Feed extends InputStream {
        private ByteArrayInputStream record = new ByteArrayInputStream(new byte[0]);

        void put(byte[] data) {
            record = new ByteArrayInputStream(data);
        }

        @Override
        public int read() {
            return record.read();
        }

        @Override
        public int read(byte[] into, int from, int length) {
            return record.read(into, from, length);
        }

        @Override
        public boolean markSupported() {
            return true;
        }
    }
}
