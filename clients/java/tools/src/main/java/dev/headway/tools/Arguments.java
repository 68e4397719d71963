package dev.headway.tools;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;

import java.math.BigDecimal;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** The arguments of an operation, with defaults. */
record Arguments(JsonObject all) {
    boolean has(String name) {
        return all.has(name);
    }

    void ifPresent(String name, Runnable use) {
        if (has(name)) {
            use.run();
        }
    }

    String text(String name) {
        return has(name) ? all.get(name).getAsString() : "";
    }

    long number(String name, long otherwise) {
        return has(name) ? all.get(name).getAsLong() : otherwise;
    }

    boolean flag(String name) {
        return has(name) && all.get(name).getAsBoolean();
    }

    Duration span(String name) {
        return Duration.ofNanos(all.get(name).getAsBigDecimal().movePointRight(9).longValue());
    }

    static double seconds(Duration span) {
        return span.toNanos() / 1e9;
    }

    List<String> list(String name) {
        List<String> texts = new ArrayList<>();
        if (has(name)) {
            all.getAsJsonArray(name).forEach(item -> texts.add(item.getAsString()));
        }
        return texts;
    }

    Map<String, Object> map(String name) {
        Map<String, Object> map = new LinkedHashMap<>();
        if (has(name)) {
            all.getAsJsonObject(name)
                    .entrySet()
                    .forEach(entry -> map.put(entry.getKey(), plain(entry.getValue())));
        }
        return map;
    }

    Object value(String name) {
        return plain(all.get(name));
    }

    /** The JSON value as a worker would use it. */
    private static Object plain(JsonElement json) {
        if (json.isJsonObject()) {
            Map<String, Object> map = new LinkedHashMap<>();
            json.getAsJsonObject()
                    .entrySet()
                    .forEach(entry -> map.put(entry.getKey(), plain(entry.getValue())));
            return map;
        }
        if (json.isJsonArray()) {
            List<Object> list = new ArrayList<>();
            json.getAsJsonArray().forEach(item -> list.add(plain(item)));
            return list;
        }
        if (json.isJsonNull()) {
            return null;
        }
        var primitive = json.getAsJsonPrimitive();
        if (primitive.isBoolean()) {
            return primitive.getAsBoolean();
        }
        return primitive.isNumber() ? number(primitive.getAsBigDecimal()) : primitive.getAsString();
    }

    private static Number number(BigDecimal number) {
        return number.scale() <= 0 ? number.toBigInteger() : (Number) number.doubleValue();
    }
}
