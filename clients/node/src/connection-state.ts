/** Whether the server answers, and when to try again if it does not. */

import type { HeadwayError } from "./errors.js";
import { chance } from "./ids.js";

/** Receives messages; `console` and most loggers are one. */
export interface Logger {
  /** Problems: the server is unreachable, or has refused something. */
  warn(message: string): void;
  /** Good news: the server answers again. */
  info(message: string): void;
}

const FIRST_RETRY_DELAY = 100;
const MAX_RETRY_DELAY = 5_000;
const MAX_RETRY_DELAY_WHILE_AWAITED = 500;
const MAX_LINE_LENGTH = 300;

/** Writes warnings to standard error, and nothing else. */
export const toStandardError: Logger = { warn: (message) => console.warn(message), info: () => {} };

/** The same logger. Its own faults stop neither reports nor the process. */
export function unfailing(logger: Logger): Logger {
  const say = (level: keyof Logger) => (message: string) => {
    try {
      logger[level](message);
    } catch {
      // There is no other place to report it.
    }
  };
  return { warn: say("warn"), info: say("info") };
}

/** The error as one line for a log, whatever the server or a proxy has written into it. */
export function inOneLine(error: HeadwayError): string {
  const line = error.message.replace(/[^\p{L}\p{M}\p{N}\p{P}\p{S}]+/gu, " ").trim();
  return line.slice(0, MAX_LINE_LENGTH) || error.code;
}

/**
 * The retry delay grows from 0.1 to 5 s while the server is unreachable, and to 0.5 s while somebody waits for
 * delivery.
 */
export class ConnectionState {
  /** Whether the last call got no answer. */
  down = false;
  /** When to try again; in milliseconds of `performance.now()`. */
  retryAt = 0;
  readonly #address: string;
  readonly #log: Logger;
  #tries = 0;
  #waiting = 0;

  constructor(address: string, log: Logger) {
    this.#address = address;
    this.#log = log;
  }

  /** Adds to the number of callers that wait for delivery; a negative number removes some. */
  addWaiting(waiting: number, now: number): void {
    this.#waiting += waiting;
    if (this.#waiting) this.retryAt = Math.min(this.retryAt, now + MAX_RETRY_DELAY_WHILE_AWAITED);
  }

  answered(): void {
    if (this.#tries > 1) this.#log.info(`headway: ${this.#address} answers again`);
    this.down = false;
    this.#tries = 0;
    this.retryAt = 0;
  }

  failed(error: HeadwayError, now: number): void {
    // All calls in flight fail together. Count that as one failure.
    if (now < this.retryAt) return;
    this.down = true;
    const longest = this.#waiting ? MAX_RETRY_DELAY_WHILE_AWAITED : MAX_RETRY_DELAY;
    this.retryAt = now + Math.min(FIRST_RETRY_DELAY * 2 ** Math.min(this.#tries, 10), longest) * chance(0.5, 1);
    this.#tries += 1;
    // A server that only restarts, or moves a stream to another server, is back before the second failure.
    if (this.#tries === 2) {
      this.#log.warn(`headway: ${this.#address} does not answer (${inOneLine(error)}); the work goes on`);
    }
  }
}
