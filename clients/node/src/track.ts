/** Loops that count their items. */

import { setImmediate } from "node:timers/promises";
import type { PartState } from "./part-state.js";

/** How a tracked loop can be left early. */
export interface TrackOptions {
  /**
   * The loop throws the signal's reason before the next item after it is aborted. By default it is the job's signal:
   * JobCancelled after a cancellation request. With null the loop goes on.
   */
  signal?: AbortSignal | null | undefined;
}

// How long (ms) a source that never waits may block the event loop.
const MAX_LOOP_BLOCK = 10;

/** What `for await` takes. */
export type Items<T> = Iterable<T | PromiseLike<T>> | AsyncIterable<T>;

/** How many items there are, if that is known without taking them. */
export function lengthOf(items: object): number | undefined {
  if (Array.isArray(items) || ArrayBuffer.isView(items)) return (items as unknown as ArrayLike<unknown>).length;
  return items instanceof Set || items instanceof Map ? items.size : undefined;
}

/** Yields the items and counts each as done when the next is asked for. */
export class Track<T> implements AsyncIterableIterator<T> {
  readonly #partState: PartState;
  readonly #source: Iterator<T | PromiseLike<T>> | AsyncIterator<T>;
  readonly #signal: AbortSignal | undefined;
  #claimed = 0;
  #turned = performance.now();

  constructor(partState: PartState, items: Items<T>, { signal }: TrackOptions) {
    this.#partState = partState;
    // A string is iterable too, but it is no object.
    const asynchronous = typeof items === "object" && Symbol.asyncIterator in items;
    this.#source = asynchronous
      ? items[Symbol.asyncIterator]()
      : (items as Iterable<T | PromiseLike<T>>)[Symbol.iterator]();
    this.#signal = signal === undefined ? partState.signal : (signal ?? undefined);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<T>> {
    this.#partState.done += this.#claimed;
    this.#claimed = 0;
    if (performance.now() - this.#turned > MAX_LOOP_BLOCK) {
      // A loop that never waits would hold back reports and heartbeats.
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
    this.#claimed = 1;
    return { done: false, value: item };
  }

  /** The loop is left: the current item is not done. */
  async return(): Promise<IteratorResult<T>> {
    this.#claimed = 0;
    await this.#source.return?.();
    return { done: true, value: undefined };
  }
}

function isPromise<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof value === "object" && value !== null && "then" in value;
}

/** The same for a plain `for`. */
export function* trackSync<T>(
  partState: PartState,
  items: Iterable<T>,
  { signal = partState.signal }: TrackOptions,
): Generator<T, void, undefined> {
  for (const item of items) {
    if (signal?.aborted) throw signal.reason;
    yield item;
    partState.done += 1;
  }
}
