/**
 * What one part of a job has come to: progress, counters, record errors and variables. Nothing here knows the network;
 * the engine looks at a tally when a report is due, so an update costs what an assignment costs.
 */

import { RecordError } from "./gen/headway/v1/job.js";
import { amount, clean, type Json, toRecord } from "./values.js";

const COUNTERS = 64;
const ERRORS_AT_MOST = 1000;
const ERRORS_AT_AN_END = 500;

/** What a tally has to say: totals as they stand, and what was not taken before. */
export interface Sample {
  progress: number;
  counters: ReadonlyMap<string, number>;
  errors: RecordError[];
  variables: { [key: string]: Json } | undefined;
  message: string | undefined;
  size: number | undefined;
  /** Something is left for a further sample. */
  more: boolean;
  /** What is left grows with every sample that is put off, record errors that is. */
  pressing: boolean;
}

interface Cut {
  progress: number;
  counters: Map<string, number>;
  errors: number;
}

export class Tally {
  readonly part: string;
  done: number;
  message: string | undefined;
  size: number | undefined;
  /** Aborted once somebody wants the job to end early. */
  signal: AbortSignal | undefined;
  /** Called at the first change, if it is there. */
  woken: (() => void) | undefined;
  readonly #counters = new Map<string, number>();
  readonly #errors = new Backlog();
  #errorsTaken = 0;
  #variables: { [key: string]: Json } | undefined;
  #cut: Cut | undefined;

  constructor(part: string, progress = 0) {
    this.part = part;
    this.done = progress;
  }

  /** Called before every change. */
  touch(): void {
    const woken = this.woken;
    this.woken = undefined;
    woken?.();
  }

  count(counter: string, by: number): void {
    let name = counter;
    if (!this.#counters.has(name)) {
      name = clean(counter, 128) || "?";
      if (!this.#counters.has(name) && this.#counters.size === COUNTERS) return;
    }
    this.#counters.set(name, (this.#counters.get(name) ?? 0) + amount(by, 0));
  }

  recordError(record: unknown, message: unknown, code: unknown): void {
    this.#errors.append({ record: clean(record, 256) || "?", message: clean(message, 1024), code: clean(code, 64) });
  }

  /** Merges variables. `cut`: they belong to this moment's progress, counters and record errors. */
  merge(variables: object, cut: boolean): { [key: string]: Json } {
    const json = toRecord(variables);
    this.#variables = Object.fromEntries([...Object.entries(this.#variables ?? {}), ...Object.entries(json)]);
    if (cut) {
      this.#cut = {
        progress: this.done,
        counters: new Map(this.#counters),
        errors: this.#errorsTaken + this.#errors.length,
      };
    }
    return json;
  }

  /** All there is to say, with record errors of at most `room` bytes, one of them apart. */
  sample(room: number): Sample {
    const cut = this.#cut;
    let waiting = cut ? cut.errors - this.#errorsTaken : this.#errors.length;
    const errors: RecordError[] = [];
    let left = room;
    while (waiting > 0 && left > 0 && errors.length < ERRORS_AT_MOST) {
      const error = this.#errors.shift();
      errors.push(error);
      left -= Buffer.byteLength(error.record) + Buffer.byteLength(error.message) + Buffer.byteLength(error.code) + 12;
      waiting -= 1;
    }
    this.#errorsTaken += errors.length;
    let variables: Sample["variables"];
    if (waiting === 0) {
      variables = this.#variables;
      this.#variables = this.#cut = undefined;
    }
    return {
      progress: cut ? cut.progress : this.done,
      counters: cut ? cut.counters : new Map(this.#counters),
      errors,
      variables,
      message: this.message,
      size: this.size,
      more: cut !== undefined || waiting > 0,
      pressing: waiting > 0,
    };
  }
}

/** Record errors that wait to be sent: all of them counted, those at either end with their texts. */
class Backlog {
  readonly #first: RecordError[] = [];
  #nameless = 0;
  readonly #last: RecordError[] = [];

  get length(): number {
    return this.#first.length + this.#nameless + this.#last.length;
  }

  append(error: RecordError): void {
    if (this.#last.length === 0 && this.#first.length < ERRORS_AT_AN_END) {
      this.#first.push(error);
      return;
    }
    this.#last.push(error);
    if (this.#last.length > ERRORS_AT_AN_END) {
      this.#last.shift();
      this.#nameless += 1;
    }
  }

  /** The oldest one; there must be one. */
  shift(): RecordError {
    const first = this.#first.shift();
    if (first) return first;
    if (this.#nameless > 0) {
      this.#nameless -= 1;
      return RecordError.fromPartial({ record: "?" });
    }
    return this.#last.shift() as RecordError;
  }
}
