package dev.headway;

import java.nio.file.Path;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** A server's address, and the options to connect to it. */
record Target(String address, boolean tls, String token, Path ca) {
    static final String DEFAULT = "127.0.0.1:50051";

    private static final Pattern ADDRESS =
            Pattern.compile(
                    "(?:(?<scheme>https?)://)?(?<host>\\[[0-9A-Fa-f:.%]+]|[^\\s:/\\[\\]@]+):(?<port>\\d{1,5})/?");

    /**
     * Takes the given value, or if it is null that of the environment. IllegalArgumentException if
     * it is malformed.
     */
    static Target of(String target, String token, Path ca, Map<String, String> environment) {
        String text =
                target != null && !target.isEmpty()
                        ? target
                        : found("HEADWAY_TARGET", environment, DEFAULT);
        String authorities = found("HEADWAY_CA", environment, null);
        Path trusted = ca != null || authorities == null ? ca : Path.of(authorities);
        Matcher parts = ADDRESS.matcher(text);
        int port = parts.matches() ? Integer.parseInt(parts.group("port")) : 0;
        if (port < 1 || port > 65_535) {
            throw new IllegalArgumentException(
                    "The target must be host:port or https://host:port, such as "
                            + DEFAULT
                            + "; not \""
                            + text
                            + "\".");
        }
        String scheme = parts.group("scheme");
        if ("http".equals(scheme) && trusted != null) {
            throw new IllegalArgumentException(
                    "The target says http:// (plain text), but there is a CA file: write https://,"
                            + " or drop it.");
        }
        String bearer =
                token != null && !token.isEmpty()
                        ? token
                        : found("HEADWAY_TOKEN", environment, null);
        if (bearer != null && !bearer.matches("[ -~]+")) {
            // gRPC would log a header that it cannot send, and so the token.
            throw new IllegalArgumentException(
                    "The token must be of printable ASCII characters; perhaps there is a line"
                            + " break at its end.");
        }
        return new Target(
                parts.group("host") + ":" + port,
                trusted != null || "https".equals(scheme),
                bearer,
                trusted);
    }

    private static String found(String name, Map<String, String> environment, String otherwise) {
        String value = environment.get(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }

    /** Without the token, which is a secret. */
    @Override
    public String toString() {
        return address;
    }
}
