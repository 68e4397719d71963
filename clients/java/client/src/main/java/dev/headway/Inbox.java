package dev.headway;

import java.lang.System.Logger.Level;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/**
 * The engine's thread, and the way into it. The thread is there while there is something to do or a
 * client is open, and is a daemon: it keeps no program from its end.
 */
final class Inbox {
    private final Owner owner;
    private final Object lock = new Object();
    private final LinkedBlockingQueue<Runnable> actions = new LinkedBlockingQueue<>();
    private Thread thread;
    private int holders;

    /** Whose thread it is; called in it. */
    interface Owner {
        /** Nanoseconds until there is something to do by itself. */
        long idleFor();

        void pump();

        void fault(Throwable fault);

        /** Whether there is nothing left to do. */
        boolean isIdle();

        void hangUp();

        /** The thread begins; said in another. */
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

    /** What the supplier says in the engine's thread; given up with null after so many seconds. */
    <T> T ask(Supplier<T> question, long seconds) {
        CompletableFuture<T> answer = new CompletableFuture<>();
        put(() -> answer.complete(question.get()));
        return Waiting.atMost(answer, seconds * Time.SECOND) ? answer.join() : null;
    }

    /** One user more, or one less, that keeps the thread at hand. */
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

    /** Without this thread nothing would be sent any more, and all who wait would wait in vain. */
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
            owner.hangUp();
            thread = null;
            owner.gone();
            return true;
        }
    }
}
