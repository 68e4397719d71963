/** What a worker touches while it works. */

import type { Tally } from "./tally.js";
import { type Items, lengthOf, Track, type TrackOptions, trackSync } from "./track.js";
import { amount, clean } from "./values.js";

/**
 * One part of a job: what a worker that shares the job moves on its own.
 *
 * Every method returns at once, and none throws because of the server. What is said is sent by the event loop in the
 * background, at the pace that the server asks for. Use one part from one process.
 */
export class Meter {
  readonly #tally: Tally;
  readonly #expect: (size: number) => void;

  /** @internal */
  constructor(tally: Tally, expect: (size: number) => void = () => {}) {
    this.#tally = tally;
    this.#expect = expect;
  }

  /** Units done by this part, in this process's eyes; exact up to 2⁵³. Can be set. */
  get progress(): number {
    return this.#tally.done;
  }

  set progress(done: number) {
    const tally = this.#tally;
    if (tally.woken) tally.touch();
    tally.done = amount(done, tally.done);
  }

  /** Counts more units as done; 1 by default. */
  advance(by = 1): void {
    const tally = this.#tally;
    if (tally.woken) tally.touch();
    // One slip must not undo all that was counted.
    tally.done += amount(by, 0);
  }

  /**
   * Yields the items and counts each as done when the next is asked for, for `for await`. An item during which the
   * loop breaks or throws is not counted. If the job's size is not known yet and the items have a length, that becomes
   * the size. Throws JobCancelled before the next item once somebody wants the job to end early, unless `signal` is null.
   *
   * Takes iterables of both kinds, a `Readable` for example, and gives the event loop its turn now and then, so that
   * reports leave even if neither the items nor the loop ever wait.
   */
  track<T>(items: Items<T>, options: TrackOptions = {}): AsyncIterableIterator<T> {
    this.#begin(items);
    return new Track(this.#tally, items, options);
  }

  /** As `track`, for a plain `for`. Nothing is sent while the loop runs, unless it is in an async function and awaits. */
  trackSync<T>(items: Iterable<T>, options: TrackOptions = {}): IterableIterator<T> {
    this.#begin(items);
    return trackSync(this.#tally, items, options);
  }

  /** Adds to a named tally ("added", "updated"). At most 64 a job, names of 1 to 128 characters: what is longer is cut,
   * further ones are passed over. */
  count(counter: string, by = 1): void {
    this.#tally.touch();
    this.#tally.count(counter, by);
  }

  /**
   * Notes a record that could not be worked on: which (its first 256 characters), why (1,024), and a code to group by
   * (64).
   *
   * Each is counted. Of more than 1,000 that wait for the server the first and the last 500 keep their texts; it keeps
   * but the first and the last 100 of a job itself.
   */
  recordError(record: unknown, message: unknown = "", code: unknown = ""): void {
    this.#tally.touch();
    this.#tally.recordError(record, message, code);
  }

  /** Merges into the job's variables: at most 256, of 256 KiB in all. Sent with the next report. */
  set(variables: object): void {
    this.#tally.touch();
    this.#tally.merge(variables, false);
  }

  /**
   * Merges variables that are stored together with the progress, counters and record errors of this moment, or not at
   * all: what a worker needs that resumes the job after a crash.
   */
  checkpoint(variables: object): void {
    this.#tally.touch();
    this.#tally.merge(variables, true);
  }

  /** What the job is doing now, for people: its first 1,024 characters. Can be set. */
  get message(): string {
    return this.#tally.message ?? "";
  }

  set message(text: string) {
    this.#tally.touch();
    this.#tally.message = clean(text, 1024);
  }

  #begin(items: object): void {
    this.#tally.touch();
    const length = lengthOf(items);
    if (length !== undefined) this.#expect(length);
  }
}
