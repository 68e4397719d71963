// The server's clock. Ages ("no contact for 40 s") follow it, because this machine's clock may be wrong or be set.

/** The `Date` of a reply has whole seconds, and is old when it is read. A smaller difference is ignored (ms). */
const TOLERANCE = 2000;

/** The time at the server, by a clock that nobody can set. It stops while the server does not answer. */
export class Clock {
  #ahead = Date.now() - performance.now();
  /** @type {number | null} */
  #stopped = null;

  /** Milliseconds since 1970. */
  now() {
    return this.#stopped ?? this.#ahead + performance.now();
  }

  /** Takes the time from a reply that has just arrived. @param {Response} response */
  set(response) {
    const told = Date.parse(response.headers.get("Date") ?? "") + 500;
    const differs = Math.abs(told - Date.now()) > TOLERANCE;
    this.#ahead = (differs ? told : Date.now()) - performance.now();
  }

  /** Moves the clock to the time of an event, if that is later: the server's events are not in its future. @param {number} time */
  atLeast(time) {
    this.#ahead = Math.max(this.#ahead, time - performance.now());
  }

  /** Stops the clock: nothing later is known. */
  stop() {
    this.#stopped ??= this.now();
  }

  go() {
    this.#stopped = null;
  }
}
