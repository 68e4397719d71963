package dev.headway;

import com.google.protobuf.ListValue;
import com.google.protobuf.NullValue;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;

import java.lang.reflect.Array;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Converts texts and JSON values for the server and back. Nothing here throws: an odd title or
 * result must never make a worker fail.
 */
final class Values {
    static final int ANY_LENGTH = Integer.MAX_VALUE;

    private static final long MAX_EXACT_INTEGER = 1L << 53;
    private static final BigInteger MAX_EXACT_BIG_INTEGER = BigInteger.valueOf(MAX_EXACT_INTEGER);
    private static final int MAX_DEPTH = 32;

    private Values() {}

    /**
     * Makes a text that the server accepts: without U+0000 and lone surrogates, at most {@code
     * limit} characters.
     */
    static String clean(Object text, int limit) {
        String plain = text(text);
        if (plain.length() <= limit && isPlain(plain)) {
            return plain;
        }
        StringBuilder cleaned = new StringBuilder(Math.min(plain.length(), limit) + 1);
        plain.codePoints().limit(limit).forEach(point -> cleaned.appendCodePoint(fit(point)));
        return cleaned.toString();
    }

    /** Its {@code toString}; if that fails, its class. */
    private static String text(Object value) {
        try {
            // {@code toString} may return null as well.
            return String.valueOf((Object) String.valueOf(value));
        } catch (RuntimeException | StackOverflowError fault) {
            return value.getClass().getName();
        }
    }

    private static boolean isPlain(String text) {
        for (int i = 0; i < text.length(); i++) {
            char character = text.charAt(i);
            if (character == 0 || Character.isSurrogate(character)) {
                return false;
            }
        }
        return true;
    }

    private static int fit(int point) {
        if (point == 0) {
            return 0xFFFD;
        }
        return point >= Character.MIN_SURROGATE && point <= Character.MAX_SURROGATE ? '?' : point;
    }

    /**
     * Converts any object to JSON. What JSON cannot express (dates, paths, integers beyond 2⁵³,
     * NaN, cycles) becomes its text.
     */
    static Value toValue(Object data) {
        return toValue(data, new ArrayDeque<>());
    }

    /** Converts a map to a JSON object. A map that cannot be read becomes empty. */
    static Struct toStruct(Map<?, ?> data) {
        return toValue(data).getStructValue();
    }

    /** {@code around}: the objects that contain it. */
    private static Value toValue(Object data, Deque<Object> around) {
        if (data == null) {
            return Value.newBuilder().setNullValue(NullValue.NULL_VALUE).build();
        }
        if (data instanceof Boolean flag) {
            return Value.newBuilder().setBoolValue(flag).build();
        }
        if (data instanceof Number number && isExact(number)) {
            return Value.newBuilder().setNumberValue(number.doubleValue()).build();
        }
        if (around.size() < MAX_DEPTH && around.stream().noneMatch(object -> object == data)) {
            around.push(data);
            try {
                Value value = parts(data, around);
                if (value != null) {
                    return value;
                }
            } catch (RuntimeException unreadable) {
                // Another thread may change it, for example.
            } finally {
                around.pop();
            }
        }
        return Value.newBuilder().setStringValue(clean(data, ANY_LENGTH)).build();
    }

    /** Null if it has no elements. */
    private static Value parts(Object data, Deque<Object> around) {
        if (data instanceof Map<?, ?> map) {
            Struct.Builder struct = Struct.newBuilder();
            map.forEach((key, value) -> struct.putFields(clean(key), toValue(value, around)));
            return Value.newBuilder().setStructValue(struct).build();
        }
        if (data instanceof Iterable<?> items && !(data instanceof java.nio.file.Path)) {
            ListValue.Builder list = ListValue.newBuilder();
            items.forEach(item -> list.addValues(toValue(item, around)));
            return Value.newBuilder().setListValue(list).build();
        }
        if (data.getClass().isArray()) {
            ListValue.Builder list = ListValue.newBuilder();
            for (int i = 0; i < Array.getLength(data); i++) {
                list.addValues(toValue(Array.get(data, i), around));
            }
            return Value.newBuilder().setListValue(list).build();
        }
        return null;
    }

    private static String clean(Object text) {
        return clean(text, ANY_LENGTH);
    }

    private static boolean isExact(Number number) {
        if (number instanceof Long || number instanceof AtomicLong) {
            return Math.abs(number.longValue()) <= MAX_EXACT_INTEGER
                    && number.longValue() != Long.MIN_VALUE;
        }
        if (number instanceof BigInteger big) {
            return big.abs().compareTo(MAX_EXACT_BIG_INTEGER) <= 0;
        }
        if (number instanceof BigDecimal) {
            return false;
        }
        return number instanceof AtomicInteger || Double.isFinite(number.doubleValue());
    }

    /**
     * The JSON value in Java: Boolean, Long for whole numbers, Double, String, List, Map or null.
     */
    static Object fromValue(Value value) {
        return switch (value.getKindCase()) {
            case BOOL_VALUE -> value.getBoolValue();
            case NUMBER_VALUE -> fromNumber(value.getNumberValue());
            case STRING_VALUE -> value.getStringValue();
            case LIST_VALUE -> {
                List<Object> list = new ArrayList<>();
                value.getListValue().getValuesList().forEach(item -> list.add(fromValue(item)));
                yield list;
            }
            case STRUCT_VALUE -> fromStruct(value.getStructValue());
            default -> null;
        };
    }

    private static Object fromNumber(double number) {
        if (Math.rint(number) == number && Math.abs(number) <= MAX_EXACT_INTEGER) {
            return (long) number;
        }
        return number;
    }

    static Map<String, Object> fromStruct(Struct struct) {
        Map<String, Object> map = new LinkedHashMap<>();
        struct.getFieldsMap().forEach((key, value) -> map.put(key, fromValue(value)));
        return map;
    }
}
