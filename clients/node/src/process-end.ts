/** What a process does at its end with what its clients have not delivered. */

/** Who may have something to deliver. */
export interface Deliverer {
  /** Waits a while until all is delivered. */
  close(): Promise<void>;
  /** Writes down what is left, at once. */
  leave(): void;
}

const deliverers = new Set<Deliverer>();
let watched = false;

/** This one may have something to deliver when the process ends. */
export function remember(deliverer: Deliverer): void {
  deliverers.add(deliverer);
  if (watched) return;
  watched = true;
  process.on("beforeExit", () => {
    for (const one of deliverers) void one.close();
  });
  // process.exit() and an error that nobody caught leave no time to wait.
  process.on("exit", () => {
    for (const one of deliverers) one.leave();
  });
}

/** This one has not. */
export function forget(deliverer: Deliverer): void {
  deliverers.delete(deliverer);
}
