/** What a process does at its end with undelivered reports. */

/** A client that may have something to deliver. */
export interface Deliverer {
  /** Waits a while until everything is delivered. */
  close(): Promise<void>;
  /** Saves what is left, at once. */
  spool(): void;
}

const deliverers = new Set<Deliverer>();
let watched = false;

/** Registers a client that may have something to deliver when the process ends. */
export function remember(deliverer: Deliverer): void {
  deliverers.add(deliverer);
  if (watched) return;
  watched = true;
  process.on("beforeExit", () => {
    for (const one of deliverers) void one.close();
  });
  // process.exit() and an uncaught error leave no time to wait.
  process.on("exit", () => {
    for (const one of deliverers) one.spool();
  });
}

/** Removes a client that has nothing left. */
export function forget(deliverer: Deliverer): void {
  deliverers.delete(deliverer);
}
