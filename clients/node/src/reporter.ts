/** Knows what was reported of one part and what was not: numbered reports make a retry count once. */

import type { FieldFault, HeadwayError } from "./errors.js";
import { ReportProgressRequest } from "./gen/headway/v1/job_service.js";
import { microseconds } from "./ids.js";
import type { PartState } from "./part-state.js";
import { whole } from "./values.js";

const MAX_ERROR_BYTES_PER_REPORT = 1024 * 1024;

/** No clock gives a sequence from here on, and counting on from it could exceed 2⁶³. Such a sequence is ignored. */
const MAX_USABLE_SEQUENCE = 1n << 62n;

/** The fields that all reports of a job carry. */
export interface About {
  session: string;
  jobId: string;
  attempt: number;
}

/** A report and its bytes, which are the same whenever it is sent. */
export interface Report {
  message: ReportProgressRequest;
  bytes: Uint8Array;
}

/** A report that only says that the worker is alive. */
export function heartbeat({ session, jobId, attempt }: About): Uint8Array {
  return encode(ReportProgressRequest.fromPartial({ sessionId: session, jobId, attempt }));
}

/** Turns one part's state into reports. A report stays the same, and is sent again, until it is settled. */
export class Reporter {
  readonly partState: PartState;
  #sequence = BigInt(microseconds());
  #progress: bigint;
  #size: bigint;
  #message = "";
  #counters: ReadonlyMap<string, number> = new Map();
  readonly #unsettled: Report[] = [];
  #more = false;
  #pressing = false;

  constructor(partState: PartState, progress = 0n, size = 0n) {
    this.partState = partState;
    this.#progress = progress;
    this.#size = size;
  }

  /**
   * The server has applied a report with the sequence `last`. Later reports must have higher numbers, even if an
   * earlier process of the same attempt had a faster clock.
   */
  numberAbove(last: bigint): void {
    if (last > this.#sequence && last < MAX_USABLE_SEQUENCE) this.#sequence = last;
  }

  /** Whether a report is unsettled, or another must follow without waiting. */
  get busy(): boolean {
    return this.unsettled || this.#pressing;
  }

  /** Whether a report is not settled yet. */
  get unsettled(): boolean {
    return this.#unsettled.length > 0;
  }

  /**
   * The unsettled report, or a new one, or undefined if nothing has changed. Without `fresh` it makes a new report only
   * to complete the one before.
   */
  report(about: About, fresh: boolean): Report | undefined {
    if (!this.unsettled && (fresh || this.#more)) this.#freeze(about);
    return this.#unsettled[0];
  }

  /** Everything that this part has left to report, exactly as it is sent if this process still sends it. */
  drain(about: About, fresh: boolean): Report[] {
    let more = fresh ? this.#freeze(about) : true;
    while (more && this.#more) more = this.#freeze(about);
    return [...this.#unsettled];
  }

  /** The server has applied the report. */
  settle(): void {
    this.#unsettled.shift();
  }

  /** The server has refused the report. The rest of it goes out again without the invalid fields. */
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
    const sample = this.partState.sample(MAX_ERROR_BYTES_PER_REPORT);
    this.#more = sample.more;
    this.#pressing = sample.pressing;
    const report = ReportProgressRequest.fromPartial({ sessionId: session, jobId, attempt, part: this.partState.part });
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
 * Removes from a report what the server refused, and returns whether there was such a thing. If the error names
 * counters or the progress (they can exceed a limit together with other reports), this removes those, else the
 * variables.
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
