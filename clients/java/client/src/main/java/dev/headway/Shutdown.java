package dev.headway;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/** The end of the process: what its engines have left to say is delivered, or else written down. */
final class Shutdown {
    private static final Set<Engine> ENGINES = ConcurrentHashMap.newKeySet();
    private static boolean hooked;

    private Shutdown() {}

    static synchronized void watch(Engine engine) {
        ENGINES.add(engine);
        if (!hooked) {
            hooked = true;
            try {
                Runtime.getRuntime()
                        .addShutdownHook(new Thread(Shutdown::deliver, "headway-shutdown"));
            } catch (IllegalStateException tooLate) {
                // A job that is touched by another's shutdown hook is on its own.
            }
        }
    }

    static void forget(Engine engine) {
        ENGINES.remove(engine);
    }

    private static void deliver() {
        Log.ending = true;
        long start = Time.now();
        for (Engine engine : ENGINES) {
            long left = Time.nanos(engine.exitTimeout) - (Time.now() - start);
            Delivery.atExit(engine, Math.max(left, 0));
        }
    }
}
