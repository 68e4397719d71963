/** Loops whose items are counted. */

import { setImmediate } from "node:timers/promises";
import type { Tally } from "./tally.js";

/** How a tracked loop can be left early. */
export interface TrackOptions {
  /**
   * The loop throws the signal's reason before the next item once it is aborted. By default that of the job: JobCancelled
   * once somebody wants it to end early. With null the loop goes on.
   */
  signal?: AbortSignal | null | undefined;
}

// How long a source that never waits may keep the event loop, in milliseconds.
const TURN = 10;

/** What `for await` takes. */
export type Items<T> = Iterable<T | PromiseLike<T>> | AsyncIterable<T>;

/** How many items there are, if that can be told without taking them. */
export function lengthOf(items: object): number | undefined {
  if (Array.isArray(items) || ArrayBuffer.isView(items)) return (items as unknown as ArrayLike<unknown>).length;
  return items instanceof Set || items instanceof Map ? items.size : undefined;
}

/** Yields the items and counts each as done when the next is asked for. */
export class Track<T> implements AsyncIterableIterator<T> {
  readonly #tally: Tally;
  readonly #source: Iterator<T | PromiseLike<T>> | AsyncIterator<T>;
  readonly #signal: AbortSignal | undefined;
  #inHand = 0;
  #turned = performance.now();

  constructor(tally: Tally, items: Items<T>, { signal }: TrackOptions) {
    this.#tally = tally;
    // A string is iterable too, but no object.
    const asynchronous = typeof items === "object" && Symbol.asyncIterator in items;
    this.#source = asynchronous
      ? items[Symbol.asyncIterator]()
      : (items as Iterable<T | PromiseLike<T>>)[Symbol.iterator]();
    this.#signal = signal === undefined ? tally.signal : (signal ?? undefined);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<T>> {
    this.#tally.done += this.#inHand;
    this.#inHand = 0;
    if (performance.now() - this.#turned > TURN) {
      // A loop that never waits for anything would keep reports and heartbeats in.
      await setImmediate();
      this.#turned = performance.now();
    }
    if (this.#signal?.aborted) {
      await this.return();
      throw this.#signal.reason;
    }
    const answer = this.#source.next();
    const { done, value } = "then" in answer ? await answer : answer;
    if (done) return { done: true, value: undefined };
    const item = isPromise(value) ? await value : value;
    this.#inHand = 1;
    return { done: false, value: item };
  }

  /** The loop is left: the item in hand is not done. */
  async return(): Promise<IteratorResult<T>> {
    this.#inHand = 0;
    await this.#source.return?.();
    return { done: true, value: undefined };
  }
}

function isPromise<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof value === "object" && value !== null && "then" in value;
}

/** The same for a plain `for`. */
export function* trackSync<T>(
  tally: Tally,
  items: Iterable<T>,
  { signal = tally.signal }: TrackOptions,
): Generator<T, void, undefined> {
  for (const item of items) {
    if (signal?.aborted) throw signal.reason;
    yield item;
    tally.done += 1;
  }
}
