package dev.headway;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.util.ServiceConfigurationError;

/** Warnings and messages of the logger {@code headway}, for what no caller can catch. */
final class Log {
    private static final int MAX_LINE_LENGTH = 300;

    private Log() {}

    /** Whether the process is ending: its logging may have ended before. */
    static volatile boolean ending;

    private static final class Holder {
        // Looked up at the first message, and not when a worker starts.
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
            // A fault of the program's logging must stop neither the engine's thread nor the work.
        }
    }

    /** The error as one line, whatever the server or a proxy has written into it. */
    static String line(HeadwayException error) {
        String line = error.getMessage().replaceAll("[\\p{C}\\s]+", " ").strip();
        line = line.length() > MAX_LINE_LENGTH ? line.substring(0, MAX_LINE_LENGTH) : line;
        return line.isEmpty() ? error.code().name() : line;
    }
}
