/**
 * The state of one part of a job: progress, counters, record errors and variables. It knows nothing of the network; the
 * engine samples it when a report is due. So an update costs as much as an assignment.
 */

import { RecordError } from "./gen/headway/v1/job.js";
import { amount, clean, type Json, toRecord } from "./values.js";

const MAX_COUNTERS = 64;
const MAX_ERRORS_PER_REPORT = 1000;
const MAX_ERRORS_AT_EACH_END = 500;

/** What a part has to report: current totals, and record errors and variables that were not taken before. */
export interface Sample {
  progress: number;
  counters: ReadonlyMap<string, number>;
  errors: RecordError[];
  variables: { [key: string]: Json } | undefined;
  message: string | undefined;
  size: number | undefined;
  /** Something is left for a further sample. */
  more: boolean;
  /** Record errors are left, which pile up if the next sample is delayed. */
  pressing: boolean;
}

interface Checkpoint {
  progress: number;
  counters: Map<string, number>;
  errors: number;
}

export class PartState {
  readonly part: string;
  done: number;
  message: string | undefined;
  size: number | undefined;
  /** Aborted after a cancellation request. */
  signal: AbortSignal | undefined;
  /** Called at the first change, if it is set. */
  woken: (() => void) | undefined;
  readonly #counters = new Map<string, number>();
  readonly #errors = new Backlog();
  #errorsTaken = 0;
  #variables: { [key: string]: Json } | undefined;
  #checkpoint: Checkpoint | undefined;

  constructor(part: string, progress = 0) {
    this.part = part;
    this.done = progress;
  }

  /** Call it before every change. */
  touch(): void {
    const woken = this.woken;
    this.woken = undefined;
    woken?.();
  }

  count(counter: string, by: number): void {
    let name = counter;
    if (!this.#counters.has(name)) {
      name = clean(counter, 128) || "?";
      if (!this.#counters.has(name) && this.#counters.size === MAX_COUNTERS) return;
    }
    this.#counters.set(name, (this.#counters.get(name) ?? 0) + amount(by, 0));
  }

  recordError(record: unknown, message: unknown, code: unknown): void {
    this.#errors.append({ record: clean(record, 256) || "?", message: clean(message, 1024), code: clean(code, 64) });
  }

  /** Merges variables. `checkpoint`: they belong to this moment's progress, counters and record errors. */
  merge(variables: object, checkpoint: boolean): { [key: string]: Json } {
    const json = toRecord(variables);
    this.#variables = Object.fromEntries([...Object.entries(this.#variables ?? {}), ...Object.entries(json)]);
    if (checkpoint) {
      this.#checkpoint = {
        progress: this.done,
        counters: new Map(this.#counters),
        errors: this.#errorsTaken + this.#errors.length,
      };
    }
    return json;
  }

  /** Takes everything there is to report. The record errors have at most `room` bytes, plus one. */
  sample(room: number): Sample {
    const checkpoint = this.#checkpoint;
    let waiting = checkpoint ? checkpoint.errors - this.#errorsTaken : this.#errors.length;
    const errors: RecordError[] = [];
    let left = room;
    while (waiting > 0 && left > 0 && errors.length < MAX_ERRORS_PER_REPORT) {
      const error = this.#errors.shift();
      errors.push(error);
      left -= Buffer.byteLength(error.record) + Buffer.byteLength(error.message) + Buffer.byteLength(error.code) + 12;
      waiting -= 1;
    }
    this.#errorsTaken += errors.length;
    let variables: Sample["variables"];
    if (waiting === 0) {
      variables = this.#variables;
      this.#variables = this.#checkpoint = undefined;
    }
    return {
      progress: checkpoint ? checkpoint.progress : this.done,
      counters: checkpoint ? checkpoint.counters : new Map(this.#counters),
      errors,
      variables,
      message: this.message,
      size: this.size,
      more: checkpoint !== undefined || waiting > 0,
      pressing: waiting > 0,
    };
  }
}

/** Holds record errors until they are sent. It counts all of them, and keeps the texts of the first and the last. */
class Backlog {
  readonly #first: RecordError[] = [];
  #nameless = 0;
  readonly #last: RecordError[] = [];

  get length(): number {
    return this.#first.length + this.#nameless + this.#last.length;
  }

  append(error: RecordError): void {
    if (this.#last.length === 0 && this.#first.length < MAX_ERRORS_AT_EACH_END) {
      this.#first.push(error);
      return;
    }
    this.#last.push(error);
    if (this.#last.length > MAX_ERRORS_AT_EACH_END) {
      this.#last.shift();
      this.#nameless += 1;
    }
  }

  /** Removes and returns the oldest one. The backlog must not be empty. */
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
