/** A job as the server describes it, with JavaScript types. */

import { type Code, codeName, invalid } from "./errors.js";
import type { Duration } from "./gen/google/protobuf/duration.js";
import { type Job, JobStatus } from "./gen/headway/v1/job.js";

/** The status of a job; job.proto has a diagram. */
export type Status = "PENDING" | "RUNNING" | "LOST" | "COMPLETED" | "FAILED" | "CANCELLED" | "UNSPECIFIED";

/** A job as the server describes it. Durations are in milliseconds, numbers exact up to 2⁵³. */
export interface JobView {
  /** 32 lower-case hexadecimal digits. */
  id: string;
  name: string;
  /** Who or what started the job. */
  invoker: string;
  /** The amount of work, in units; 0 = not known yet. */
  size: number;
  /** How much is done, in units: the sum of `parts`. May be greater than `size`. */
  progress: number;
  /** Names what is counted: "records". */
  unit: string;
  status: Status;
  /** What the job is doing now. */
  message: string;
  labels: Record<string, string>;
  /** Progress by part. */
  parts: Record<string, number>;
  /** Named counters: added, updated, skipped. */
  counters: Record<string, number>;
  /** How many record errors were reported. */
  errorCount: number;
  /** The error that ended a FAILED or CANCELLED job. */
  error: { code: Code; message: string } | null;
  /** The cancellation request, or null. `seen`: its worker has received it. */
  cancellation: { reason: string; deadline: Date | null; seen: boolean } | null;
  createTime: Date | null;
  startTime: Date | null;
  endTime: Date | null;
  lastContactTime: Date | null;
  lastProgressTime: Date | null;
  /** After this long without contact the job is LOST; 0 = never. */
  heartbeatTimeout: number;
  /** After this long with contact, but without progress the job is `stalled`; 0 = never. */
  stallTimeout: number;
  /** How long the server keeps the job after its end; 0 = the server's setting. */
  retention: number;
  stalled: boolean;
  /** The estimated remaining time; null if there is none. `rate`: units a second. */
  estimate: {
    rate: number;
    remainingLow: number;
    remainingLikely: number;
    remainingHigh: number;
    asOf: Date | null;
  } | null;
  /** The number of its worker: 1, and one more after each take-over. */
  attempt: number;
  /** Each change of status, take-over and continuation, oldest first: the first 32 and the last 32 of them. */
  history: { status: Status; time: Date | null; revision: number; reason: string }[];
  /** Grows with every change of this job. */
  revision: number;
  /** The id of the job that this one continues, or "". */
  continues: string;
  /** The id of the job that continues this one, or "". */
  continuedBy: string;
  /** The key with which `create` finds it until it has ended, or "". */
  key: string;
}

/** A record that could not be processed. */
export interface RecordFault {
  record: string;
  code: string;
  message: string;
}

// The longest Duration of protobuf.
const MAX_DURATION = 315_576_000_000_000;

/** Milliseconds. */
export function span(duration: Duration | undefined): number {
  return duration ? Number(duration.seconds) * 1000 + duration.nanos / 1e6 : 0;
}

/** A duration of so many milliseconds. InvalidError for what is no number, or more than 10,000 years. */
export function duration(milliseconds: number): Duration {
  if (!(Math.abs(milliseconds) <= MAX_DURATION)) throw invalid(`A span is in milliseconds; not ${milliseconds}.`);
  const seconds = Math.floor(milliseconds / 1000);
  const nanos = Math.round((milliseconds - seconds * 1000) * 1e6);
  return nanos === 1e9 ? { seconds: BigInt(seconds) + 1n, nanos: 0 } : { seconds: BigInt(seconds), nanos };
}

/** The name of a status. */
export function statusName(status: JobStatus): Status {
  return (JobStatus[status] as Status | undefined) ?? "UNSPECIFIED";
}

export function toView(job: Job): JobView {
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
