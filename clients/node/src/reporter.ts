/** What was reported of one tally and what was not: the numbered reports that make a retry count once. */

import type { FieldFault, HeadwayError } from "./errors.js";
import { ReportProgressRequest } from "./gen/headway/v1/job_service.js";
import { microseconds } from "./ids.js";
import type { Tally } from "./tally.js";
import { whole } from "./values.js";

const ERRORS_ROOM = 1024 * 1024;

/** A sequence from here on is nobody's clock, and to count on from it might end beyond 2⁶³: it is passed over. */
const COUNTABLE = 1n << 62n;

/** Whose report it is. */
export interface About {
  session: string;
  jobId: string;
  attempt: number;
}

/** A report, and its bytes: the same whenever it is sent. */
export interface Report {
  message: ReportProgressRequest;
  bytes: Uint8Array;
}

/** A report that says no more than that the worker is there. */
export function heartbeat({ session, jobId, attempt }: About): Uint8Array {
  return encode(ReportProgressRequest.fromPartial({ sessionId: session, jobId, attempt }));
}

/** Turns one tally's state into reports. A report stays the same, and is sent again, until it is settled. */
export class Reporter {
  readonly tally: Tally;
  #sequence = BigInt(microseconds());
  #progress: bigint;
  #size: bigint;
  #message = "";
  #counters: ReadonlyMap<string, number> = new Map();
  readonly #unsettled: Report[] = [];
  #more = false;
  #pressing = false;

  constructor(tally: Tally, progress = 0n, size = 0n) {
    this.tally = tally;
    this.#progress = progress;
    this.#size = size;
  }

  /**
   * The server has applied a report with the sequence `last`. What is reported from now on is newer, also where an
   * earlier process of the same attempt had a later clock.
   */
  numberAbove(last: bigint): void {
    if (last > this.#sequence && last < COUNTABLE) this.#sequence = last;
  }

  /** Whether a report is unsettled, or another must follow before its turn. */
  get busy(): boolean {
    return this.unsettled || this.#pressing;
  }

  /** Whether a report is on its way. */
  get unsettled(): boolean {
    return this.#unsettled.length > 0;
  }

  /**
   * The unsettled report, or a new one, or undefined if nothing has changed. Not `fresh`: a new one only to complete
   * the one before.
   */
  report(about: About, fresh: boolean): Report | undefined {
    if (!this.unsettled && (fresh || this.#more)) this.#freeze(about);
    return this.#unsettled[0];
  }

  /** All that this tally has left to say, frozen as it will be sent, if it is still sent from here. */
  drain(about: About, fresh: boolean): Report[] {
    let more = fresh ? this.#freeze(about) : true;
    while (more && this.#more) more = this.#freeze(about);
    return [...this.#unsettled];
  }

  /** The report was applied. */
  settle(): void {
    this.#unsettled.shift();
  }

  /** The report was refused as it is: the rest of it goes out again without what is at fault. */
  refused({ fields }: HeadwayError): void {
    const report = this.#unsettled[0];
    if (!report || !lighten(report.message, fields)) {
      this.settle();
      return;
    }
    for (const later of this.#unsettled) this.#number(later);
  }

  #freeze(about: About): boolean {
    const message = this.#draft(about);
    if (message) this.#unsettled.push(this.#number({ message, bytes: new Uint8Array() }));
    return message !== undefined;
  }

  #draft({ session, jobId, attempt }: About): ReportProgressRequest | undefined {
    const sample = this.tally.sample(ERRORS_ROOM);
    this.#more = sample.more;
    this.#pressing = sample.pressing;
    const report = ReportProgressRequest.fromPartial({ sessionId: session, jobId, attempt, part: this.tally.part });
    let progress = whole(sample.progress);
    if (progress < 0n) progress = 0n;
    if (progress !== this.#progress) report.progress = this.#progress = progress;
    if (sample.size !== undefined) {
      const size = whole(sample.size);
      if (size !== this.#size) report.size = this.#size = size;
    }
    if (sample.message !== undefined && sample.message !== this.#message) {
      report.message = this.#message = sample.message;
    }
    for (const [name, total] of sample.counters) {
      const delta = whole(whole(total) - whole(this.#counters.get(name) ?? 0));
      if (delta !== 0n) report.counters.set(name, delta);
    }
    this.#counters = sample.counters;
    report.recordErrors = sample.errors;
    report.variables = sample.variables;
    const says =
      report.progress !== undefined ||
      report.size !== undefined ||
      report.message !== undefined ||
      report.counters.size > 0 ||
      report.recordErrors.length > 0 ||
      report.variables !== undefined;
    return says ? report : undefined;
  }

  #number(report: Report): Report {
    this.#sequence += 1n;
    report.message.sequence = this.#sequence;
    report.bytes = encode(report.message);
    return report;
  }
}

/**
 * Takes out of a report what is at fault, and says whether it had that: counters and a progress that together with those
 * of others are beyond what a job may have, if the error names them, else the variables.
 */
export function lighten(report: ReportProgressRequest, faults: readonly FieldFault[]): boolean {
  let lighter = false;
  for (const { field } of faults) {
    const counter = /^counters\[(.*)\]$/s.exec(field)?.[1];
    if (counter !== undefined) {
      lighter = report.counters.delete(counter) || lighter;
    } else if (field === "counters") {
      lighter ||= report.counters.size > 0;
      report.counters.clear();
    } else if (field === "progress") {
      lighter ||= report.progress !== undefined;
      report.progress = undefined;
    }
  }
  if (!lighter) {
    lighter = report.variables !== undefined;
    report.variables = undefined;
  }
  return lighter;
}

function encode(report: ReportProgressRequest): Uint8Array {
  return ReportProgressRequest.encode(report).finish();
}
