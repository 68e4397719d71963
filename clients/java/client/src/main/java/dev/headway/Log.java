package dev.headway;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.ServiceConfigurationError;

/**
 * What the client has to say that nobody can catch: warnings and notices of the logger {@code
 * headway}.
 */
final class Log {
    private static final int LINE = 300;

    private Log() {}

    /** Whether the process ends: its logging may have ended before. */
    static volatile boolean ending;

    private static final class Holder {
        // Looked up when there is something to say, and not when a worker starts.
        static final Logger LOGGER = System.getLogger("headway");
    }

    static void say(Level level, String text) {
        if (!ending) {
            log(level, text, null);
        } else if (level.getSeverity() >= Level.WARNING.getSeverity()) {
            System.err.println(text);
        }
    }

    static void fault(Level level, String text, Throwable fault) {
        log(level, text, fault);
    }

    private static void log(Level level, String text, Throwable fault) {
        try {
            Holder.LOGGER.log(level, text, fault);
        } catch (RuntimeException | LinkageError | ServiceConfigurationError broken) {
            // A fault of the program's logging must not end the engine's thread, nor the work.
        }
    }

    /** Why, as one line, whatever the other side has written into it. */
    static String words(HeadwayException error) {
        String line = error.getMessage().replaceAll("[\\p{C}\\s]+", " ").strip();
        line = line.length() > LINE ? line.substring(0, LINE) : line;
        return line.isEmpty() ? error.code().name() : line;
    }
}
