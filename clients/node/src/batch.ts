/** One request of the stream: the reports of many jobs, and whose they are. */

import { BinaryWriter } from "@bufbuild/protobuf/wire";
import type { Course } from "./course.js";
import type { HeadwayError } from "./errors.js";
import type { Reporter } from "./report.js";

/** What the server takes in one message, less room for its frame. */
export const MESSAGE_BYTES = 4 * 1024 * 1024 - 64 * 1024;

const REPORTS = 1000;
const BYTES = 2 * 1024 * 1024;
const REPORTS_FIELD = (1 << 3) | 2;

/** Whose report it is; without a reporter it is a heartbeat. */
export interface Sender {
  course: Course;
  reporter: Reporter | undefined;
}

/** Filled with what is due, as far as it has room; what has none is due still. */
export class Batch {
  readonly senders: Sender[] = [];
  /** Position in `senders` → why that report was refused. */
  readonly failures = new Map<number, HeadwayError>();
  /** Reports that fit in no request. */
  readonly oversized: Sender[] = [];
  /** Jobs whose state makes no report: each is its own fault and stops no other. */
  readonly faults: { course: Course; fault: unknown }[] = [];
  readonly #writer = new BinaryWriter();
  #bytes = 0;

  fill(courses: Course[], now: number, turn: (course: Course) => number): void {
    for (const course of courses.sort((one, other) => one.due - other.due)) {
      try {
        for (const { reporter, bytes } of course.reports(now)) {
          if (bytes.length > MESSAGE_BYTES) this.oversized.push({ course, reporter });
          else if (!this.#add({ course, reporter }, bytes)) return;
          course.beatAt = now + turn(course);
        }
      } catch (fault) {
        this.faults.push({ course, fault });
      }
      course.due = now + turn(course);
    }
  }

  /** The StreamProgressRequest. Reports are in it as the bytes that they are, however often they are sent. */
  encode(): Uint8Array {
    return this.#writer.finish();
  }

  #add(sender: Sender, bytes: Uint8Array): boolean {
    this.#bytes += bytes.length;
    if (this.senders.length > 0 && (this.#bytes > BYTES || this.senders.length === REPORTS)) return false;
    this.#writer.uint32(REPORTS_FIELD).bytes(bytes);
    this.senders.push(sender);
    return true;
  }
}
