/** Whether the server answers, and when to try it again if it does not. */

import type { HeadwayError } from "./errors.js";
import { chance } from "./ids.js";

/** Where notices go; `console` and most loggers are one. */
export interface Logger {
  /** What the user should know: the server does not answer, something was refused. */
  warn(message: string): void;
  /** What is well again. */
  info(message: string): void;
}

const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 5_000;
const LONGEST_IN_HASTE = 500;
const LINE = 300;

/** Warnings on standard error, and no more. */
export const toStandardError: Logger = { warn: (message) => console.warn(message), info: () => {} };

/** The same logger; a fault of its own is its own, and stops neither reports nor the process. */
export function unfailing(logger: Logger): Logger {
  const say = (level: keyof Logger) => (message: string) => {
    try {
      logger[level](message);
    } catch {
      // There is no other place to say it.
    }
  };
  return { warn: say("warn"), info: say("info") };
}

/** Why, as one line for a log, whatever the other side has written into it. */
export function inOneLine(error: HeadwayError): string {
  const line = error.message.replace(/[^\p{L}\p{M}\p{N}\p{P}\p{S}]+/gu, " ").trim();
  return line.slice(0, LINE) || error.code;
}

/** Pauses grow from 0.1 to 5 s while the server is away, to half a second if somebody waits for it. */
export class Contact {
  /** Whether the server did not answer when last asked. */
  down = false;
  /** When to ask again; in milliseconds of `performance.now()`. */
  retryAt = 0;
  readonly #address: string;
  readonly #log: Logger;
  #tries = 0;
  #waiting = 0;

  constructor(address: string, log: Logger) {
    this.#address = address;
    this.#log = log;
  }

  /** So many more, or fewer, wait until all is delivered. */
  hurry(waiting: number, now: number): void {
    this.#waiting += waiting;
    if (this.#waiting) this.retryAt = Math.min(this.retryAt, now + LONGEST_IN_HASTE);
  }

  heard(): void {
    if (this.#tries > 1) this.#log.info(`headway: ${this.#address} answers again`);
    this.down = false;
    this.#tries = 0;
    this.retryAt = 0;
  }

  lost(error: HeadwayError, now: number): void {
    // All that was under way fails together; that is one failure.
    if (now < this.retryAt) return;
    this.down = true;
    const longest = this.#waiting ? LONGEST_IN_HASTE : LONGEST_PAUSE;
    this.retryAt = now + Math.min(FIRST_PAUSE * 2 ** Math.min(this.#tries, 10), longest) * chance(0.5, 1);
    this.#tries += 1;
    // A server that only restarts, or moves a stream to another, is back before the second failure.
    if (this.#tries === 2) {
      this.#log.warn(`headway: ${this.#address} does not answer (${inOneLine(error)}); the work goes on`);
    }
  }
}
