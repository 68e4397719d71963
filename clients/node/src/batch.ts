/** One request of the stream: the reports of many jobs, and their senders. */

import { BinaryWriter } from "@bufbuild/protobuf/wire";
import type { HeadwayError } from "./errors.js";
import type { JobState } from "./job-state.js";
import type { Reporter } from "./reporter.js";

/** What the server accepts in one message, less room for its frame. */
export const MAX_MESSAGE_BYTES = 4 * 1024 * 1024 - 64 * 1024;

const MAX_BATCH_REPORTS = 1000;
const MAX_BATCH_BYTES = 2 * 1024 * 1024;
const REPORTS_FIELD = (1 << 3) | 2;

/** The sender of a report; without a reporter it is a heartbeat. */
export interface Sender {
  jobState: JobState;
  reporter: Reporter | undefined;
}

/** Filled with the reports that are due, as far as there is room. The rest stays due. */
export class Batch {
  readonly senders: Sender[] = [];
  /** Position in `senders` → the error of that report. */
  readonly failures = new Map<number, HeadwayError>();
  /** Reports that fit in no request. */
  readonly oversized: Sender[] = [];
  /** Jobs whose state makes no report. Each fault stops only its own job. */
  readonly faults: { jobState: JobState; fault: unknown }[] = [];
  readonly #writer = new BinaryWriter();
  #bytes = 0;

  fill(jobs: JobState[], now: number, turn: (jobState: JobState) => number): void {
    for (const jobState of jobs.sort((one, other) => one.due - other.due)) {
      try {
        for (const { reporter, bytes } of jobState.reports(now)) {
          if (bytes.length > MAX_MESSAGE_BYTES) this.oversized.push({ jobState, reporter });
          else if (!this.#add({ jobState, reporter }, bytes)) return;
          jobState.beatAt = now + turn(jobState);
        }
      } catch (fault) {
        this.faults.push({ jobState, fault });
      }
      jobState.due = now + turn(jobState);
    }
  }

  /** The StreamProgressRequest. It contains reports as bytes, which stay the same however often they are sent. */
  encode(): Uint8Array {
    return this.#writer.finish();
  }

  #add(sender: Sender, bytes: Uint8Array): boolean {
    this.#bytes += bytes.length;
    if (this.senders.length > 0 && (this.#bytes > MAX_BATCH_BYTES || this.senders.length === MAX_BATCH_REPORTS))
      return false;
    this.#writer.uint32(REPORTS_FIELD).bytes(bytes);
    this.senders.push(sender);
    return true;
  }
}
