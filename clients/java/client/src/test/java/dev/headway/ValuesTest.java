package dev.headway;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.api.Test;

import java.math.BigDecimal;
import java.nio.file.Path;
import java.time.LocalDate;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

class ValuesTest {
    private static Object through(Object data) {
        return Values.fromValue(Values.toValue(data));
    }

    @Test
    void whatJsonHasComesBack() {
        Map<String, Object> data = new HashMap<>();
        data.put("none", null);
        data.put("list", Arrays.asList(1L, 2.5, "three", true, null));
        data.put("deep", Map.of("a", List.of(Map.of("b", -1L))));
        assertEquals(data, through(data));
        assertEquals(List.of(1L, 2L), through(new int[] {1, 2}));
    }

    @Test
    void whatJsonHasNotBecomesText() {
        assertEquals("9007199254740993", through(9007199254740993L));
        assertEquals("-9223372036854775808", through(Long.MIN_VALUE));
        assertEquals("NaN", through(Double.NaN));
        assertEquals("1.10", through(new BigDecimal("1.10")));
        assertEquals("2027-01-15", through(LocalDate.of(2027, 1, 15)));
        assertEquals("a/b", through(Path.of("a", "b")));
    }

    @Test
    void nothingThrows() {
        Object mute =
                new Object() {
                    @Override
                    public String toString() {
                        throw new IllegalStateException("no text");
                    }
                };
        List<Object> one = new ArrayList<>();
        List<Object> other = new ArrayList<>(List.of(one));
        one.addAll(List.of(other, other));
        Map<Object, Object> odd = new HashMap<>();
        odd.put(null, mute);
        assertEquals(Map.of("null", mute.getClass().getName()), through(odd));
        assertEquals(mute.getClass().getName(), Values.clean(mute, 1024));
        assertEquals(
                List.of(ArrayList.class.getName(), ArrayList.class.getName()),
                ((List<?>) through(one)).stream().map(part -> ((List<?>) part).get(0)).toList());
    }

    @Test
    void textsAreCutByCharactersAndCleaned() {
        assertEquals("aé", Values.clean("aé\u4e16", 2));
        assertEquals(
                "\ud83d\ude00\ud83d\ude00",
                Values.clean("\ud83d\ude00\ud83d\ude00\ud83d\ude00", 2));
        assertEquals("a\ufffdb?c", Values.clean("a\0b\ud800c", 10));
    }
}
