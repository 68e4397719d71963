/** The methods that a worker calls while it works. */

import type { PartState } from "./part-state.js";
import { type Items, lengthOf, Track, type TrackOptions, trackSync } from "./track.js";
import { amount, clean } from "./values.js";

/**
 * One part of a job: a worker that shares the job moves its own.
 *
 * Every method returns at once, and none throws because of the server. The event loop sends the changes in the
 * background, at the pace that the server asks for. Use one part from one process.
 */
export class Meter {
  readonly #partState: PartState;
  readonly #expect: (size: number) => void;

  /** @internal */
  constructor(partState: PartState, expect: (size: number) => void = () => {}) {
    this.#partState = partState;
    this.#expect = expect;
  }

  /** Units done by this part, as far as this process knows; exact up to 2⁵³. Can be set. */
  get progress(): number {
    return this.#partState.done;
  }

  set progress(done: number) {
    const partState = this.#partState;
    if (partState.woken) partState.touch();
    partState.done = amount(done, partState.done);
  }

  /** Counts more units as done; 1 by default. */
  advance(by = 1): void {
    const partState = this.#partState;
    if (partState.woken) partState.touch();
    // One bad number must not undo everything that was counted.
    partState.done += amount(by, 0);
  }

  /**
   * Yields the items and counts each as done when the next is asked for, for `for await`. An item does not count if the
   * loop breaks or throws during it. If the job's size is not known yet and the items have a length, that becomes the
   * size. After a cancellation request it throws JobCancelled before the next item, unless `signal` is null.
   *
   * Takes sync and async iterables, a `Readable` for example. It lets the event loop run now and then, so that reports
   * are sent even if neither the items nor the loop ever wait.
   */
  track<T>(items: Items<T>, options: TrackOptions = {}): AsyncIterableIterator<T> {
    this.#begin(items);
    return new Track(this.#partState, items, options);
  }

  /** As `track`, for a plain `for`. Nothing is sent while the loop runs, unless it is in an async function and awaits. */
  trackSync<T>(items: Iterable<T>, options: TrackOptions = {}): IterableIterator<T> {
    this.#begin(items);
    return trackSync(this.#partState, items, options);
  }

  /**
   * Adds to a named counter ("added", "updated"). A job has at most 64, with names of 1 to 128 characters. Longer names
   * are cut, further counters are dropped.
   */
  count(counter: string, by = 1): void {
    this.#partState.touch();
    this.#partState.count(counter, by);
  }

  /**
   * Reports a record that could not be processed: which (its first 256 characters), why (1,024), and a code to group by
   * (64).
   *
   * Every error is counted. If more than 1,000 wait for the server, only the first and the last 500 keep their texts.
   * The server keeps only the first and the last 100 of a job.
   */
  recordError(record: unknown, message: unknown = "", code: unknown = ""): void {
    this.#partState.touch();
    this.#partState.recordError(record, message, code);
  }

  /** Merges into the job's variables: at most 256, of 256 KiB in all. Sent with the next report. */
  set(variables: object): void {
    this.#partState.touch();
    this.#partState.merge(variables, false);
  }

  /**
   * Merges variables and stores them together with the current progress, counters and record errors, or not at all. A
   * worker that resumes the job after a crash reads them.
   */
  checkpoint(variables: object): void {
    this.#partState.touch();
    this.#partState.merge(variables, true);
  }

  /** What the job is doing now, for people: its first 1,024 characters. Can be set. */
  get message(): string {
    return this.#partState.message ?? "";
  }

  set message(text: string) {
    this.#partState.touch();
    this.#partState.message = clean(text, 1024);
  }

  #begin(items: object): void {
    this.#partState.touch();
    const length = lengthOf(items);
    if (length !== undefined) this.#expect(length);
  }
}
