package dev.headway;

import java.lang.System.Logger.Level;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/**
 * The engine's thread, and its queue. The thread runs while there is something to do or a client is
 * open. It is a daemon, so it does not keep the program running.
 */
final class Inbox {
    private final Owner owner;
    private final Object lock = new Object();
    private final LinkedBlockingQueue<Runnable> actions = new LinkedBlockingQueue<>();
    private Thread thread;
    private int holders;

    /** Whom the thread works for; called in that thread. */
    interface Owner {
        /** Nanoseconds until there is something to do without a further action. */
        long idleFor();

        void pump();

        void fault(Throwable fault);

        /** Whether there is nothing left to do. */
        boolean isIdle();

        void disconnect();

        /** The thread begins; called in another thread. */
        void woken();

        /** The thread ends. */
        void gone();
    }

    Inbox(Owner owner) {
        this.owner = owner;
    }

    void put(Runnable action) {
        synchronized (lock) {
            actions.add(action);
            if (thread == null) {
                thread = new Thread(this::run, "headway");
                thread.setDaemon(true);
                thread.start();
                owner.woken();
            }
        }
    }

    /**
     * Runs the supplier in the engine's thread and returns its value; null after so many seconds.
     */
    <T> T ask(Supplier<T> question, long seconds) {
        CompletableFuture<T> answer = new CompletableFuture<>();
        put(() -> answer.complete(question.get()));
        return Waiting.atMost(answer, seconds * Time.SECOND) ? answer.join() : null;
    }

    /** Changes the number of users that keep the thread running. */
    void hold(int change) {
        synchronized (lock) {
            holders += change;
            if (thread != null) {
                actions.add(() -> {});
            }
        }
    }

    private void run() {
        do {
            try {
                Runnable action = actions.poll(owner.idleFor(), TimeUnit.NANOSECONDS);
                while (action != null) {
                    action.run();
                    action = actions.poll();
                }
            } catch (InterruptedException nobodyDoes) {
                Thread.interrupted();
            } catch (RuntimeException | Error fault) {
                survive(fault);
            }
            try {
                owner.pump();
            } catch (RuntimeException | Error fault) {
                survive(fault);
            }
        } while (!done());
    }

    /** Without this thread nothing would be sent any more, and every wait would be in vain. */
    private void survive(Throwable fault) {
        try {
            owner.fault(fault);
        } catch (RuntimeException | Error again) {
            Log.fault(Level.DEBUG, "headway: a fault of its own", again);
        }
    }

    private boolean done() {
        synchronized (lock) {
            if (holders > 0 || !owner.isIdle() || !actions.isEmpty()) {
                return false;
            }
            owner.disconnect();
            thread = null;
            owner.gone();
            return true;
        }
    }
}
