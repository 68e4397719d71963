// Ages ("no contact for 40 s") are told by the server's clock: this machine's may be wrong, or be set meanwhile.

/** The `Date` of an answer is whole seconds, and some way old when it is read: this much is no difference (ms). */
const TOLERANCE = 2000;

/** What time it is at the server, by a clock that nobody sets. It stands still while the server is away. */
export class Clock {
  #ahead = Date.now() - performance.now();
  /** @type {number | null} */
  #stopped = null;

  /** Milliseconds since 1970. */
  now() {
    return this.#stopped ?? this.#ahead + performance.now();
  }

  /** Takes the time from an answer that has just come. @param {Response} response */
  set(response) {
    const told = Date.parse(response.headers.get("Date") ?? "") + 500;
    const differs = Math.abs(told - Date.now()) > TOLERANCE;
    this.#ahead = (differs ? told : Date.now()) - performance.now();
  }

  /** What has happened at the server is not in its future. @param {number} time */
  atLeast(time) {
    this.#ahead = Math.max(this.#ahead, time - performance.now());
  }

  /** Nothing is known of what comes after now. */
  stop() {
    this.#stopped ??= this.now();
  }

  go() {
    this.#stopped = null;
  }
}
