package dev.headway;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/** The end of the process: delivers what the engines have left, or saves it in the spool. */
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
                // A job that another shutdown hook changes now is not delivered.
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
