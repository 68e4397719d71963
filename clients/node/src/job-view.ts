/** A job as the server describes it, in the words of JavaScript. */

import { type Code, codeName, invalid } from "./errors.js";
import type { Duration } from "./gen/google/protobuf/duration.js";
import { type Job, JobStatus } from "./gen/headway/v1/job.js";

/** Where a job stands; the picture is in job.proto. */
export type Status = "PENDING" | "RUNNING" | "LOST" | "COMPLETED" | "FAILED" | "CANCELLED" | "UNSPECIFIED";

/** A job as the server describes it. Spans are in milliseconds, numbers exact up to 2⁵³. */
export interface JobState {
  /** 32 lower-case hexadecimal digits. */
  id: string;
  name: string;
  /** Who or what started it. */
  invoker: string;
  /** How much there is to do, in units; 0 = not known yet. */
  size: number;
  /** How much is done, in units: the sum of `parts`. May be greater than `size`. */
  progress: number;
  /** What is counted: "records". */
  unit: string;
  status: Status;
  /** What it is doing now. */
  message: string;
  labels: Record<string, string>;
  /** Progress by part. */
  parts: Record<string, number>;
  /** Named tallies: added, updated, skipped. */
  counters: Record<string, number>;
  /** How many record errors were reported. */
  errorCount: number;
  /** Why it ended: of FAILED and CANCELLED jobs alone. */
  error: { code: Code; message: string } | null;
  /** The wish to cancel, null while nobody wished it. `seen`: its worker was told. */
  cancellation: { reason: string; deadline: Date | null; seen: boolean } | null;
  createTime: Date | null;
  startTime: Date | null;
  endTime: Date | null;
  lastContactTime: Date | null;
  lastProgressTime: Date | null;
  /** No contact for this long: LOST; 0 = never. */
  heartbeatTimeout: number;
  /** Contact, but no progress for this long: `stalled`; 0 = never. */
  stallTimeout: number;
  /** How long it is kept after its end; 0 = the server's setting. */
  retention: number;
  stalled: boolean;
  /** How long it may still take; null rather than a guess. `rate`: units a second. */
  estimate: {
    rate: number;
    remainingLow: number;
    remainingLikely: number;
    remainingHigh: number;
    asOf: Date | null;
  } | null;
  /** Which worker has it: 1, and one more after each take-over. */
  attempt: number;
  /** Each change of status, take-over and continuation, oldest first: the first 32 and the last 32 of them. */
  history: { status: Status; time: Date | null; revision: number; reason: string }[];
  /** Grows with every change of this job. */
  revision: number;
  /** The id of the job whose work this one carries on, or "". */
  continues: string;
  /** The id of the job that carries this one's work on, or "". */
  continuedBy: string;
  /** By which `create` finds it until it has ended, or "". */
  key: string;
}

/** A record that could not be worked on. */
export interface RecordFault {
  record: string;
  code: string;
  message: string;
}

// What a Duration of protobuf can be.
const LONGEST_SPAN = 315_576_000_000_000;

/** Milliseconds. */
export function span(duration: Duration | undefined): number {
  return duration ? Number(duration.seconds) * 1000 + duration.nanos / 1e6 : 0;
}

/** A span of so many milliseconds. InvalidError for what is no number, or more than 10,000 years. */
export function duration(milliseconds: number): Duration {
  if (!(Math.abs(milliseconds) <= LONGEST_SPAN)) throw invalid(`A span is in milliseconds; not ${milliseconds}.`);
  const seconds = Math.floor(milliseconds / 1000);
  const nanos = Math.round((milliseconds - seconds * 1000) * 1e6);
  return nanos === 1e9 ? { seconds: BigInt(seconds) + 1n, nanos: 0 } : { seconds: BigInt(seconds), nanos };
}

/** The name of a status. */
export function statusName(status: JobStatus): Status {
  return (JobStatus[status] as Status | undefined) ?? "UNSPECIFIED";
}

export function toState(job: Job): JobState {
  const { error, cancellation, estimate } = job;
  return {
    id: job.id,
    name: job.name,
    invoker: job.invoker,
    size: Number(job.size),
    progress: Number(job.progress),
    unit: job.unit,
    status: statusName(job.status),
    message: job.message,
    labels: Object.fromEntries(job.labels),
    parts: numbers(job.parts),
    counters: numbers(job.counters),
    errorCount: Number(job.errorCount),
    error: error ? { code: codeName(error.code), message: error.message } : null,
    cancellation: cancellation?.requested
      ? { reason: cancellation.reason, deadline: cancellation.deadline ?? null, seen: cancellation.seen }
      : null,
    createTime: job.createTime ?? null,
    startTime: job.startTime ?? null,
    endTime: job.endTime ?? null,
    lastContactTime: job.lastContactTime ?? null,
    lastProgressTime: job.lastProgressTime ?? null,
    heartbeatTimeout: span(job.heartbeatTimeout),
    stallTimeout: span(job.stallTimeout),
    retention: span(job.retention),
    stalled: job.stalled,
    estimate: estimate
      ? {
          rate: estimate.rate,
          remainingLow: span(estimate.remainingLow),
          remainingLikely: span(estimate.remainingLikely),
          remainingHigh: span(estimate.remainingHigh),
          asOf: estimate.asOf ?? null,
        }
      : null,
    attempt: job.attempt,
    history: job.history.map(({ status, time, revision, reason }) => ({
      status: statusName(status),
      time: time ?? null,
      revision: Number(revision),
      reason,
    })),
    revision: Number(job.revision),
    continues: job.continues,
    continuedBy: job.continuedBy,
    key: job.key,
  };
}

function numbers(map: Map<string, bigint>): Record<string, number> {
  return Object.fromEntries([...map].map(([name, value]) => [name, Number(value)]));
}
