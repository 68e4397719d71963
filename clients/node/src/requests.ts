/** Options to create and find jobs, and how a watch continues. */

import { setTimeout } from "node:timers/promises";
import { failed, type HeadwayError, invalid } from "./errors.js";
import { Job, JobStatus } from "./gen/headway/v1/job.js";
import { CreateJobRequest, ListJobsRequest } from "./gen/headway/v1/job_service.js";
import { chance, uuid7 } from "./ids.js";
import { duration, type Status } from "./job-view.js";
import { asSize, clean, MAX_NAME_LENGTH, whole } from "./values.js";

const HEARTBEAT_TIMEOUT = 60_000;
const MAX_UNIT_LENGTH = 32;
const MAX_LABEL_LENGTH = 256;

/** The session, and what aborts the call. */
export interface Options {
  /** A secret of 1 to 256 bytes; else the client's own, else HEADWAY_SESSION. */
  session?: string | undefined;
  /** Aborts the call, which then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** Options of a new job, besides its name. Durations are in milliseconds, limits are in job.proto. */
export interface CreateOptions {
  /** A secret of 1 to 256 bytes; else the client's own, else HEADWAY_SESSION. */
  session?: string | undefined;
  /** 32 lower-case hexadecimal digits of your choice; else a new UUIDv7. */
  jobId?: string | undefined;
  /** Who or what starts the job. */
  invoker?: string | undefined;
  /** The amount of work, in units; 0 = not known yet. */
  size?: number | undefined;
  /** Names what is counted: "records". */
  unit?: string | undefined;
  /** Labels to filter by. */
  labels?: Record<string, string> | undefined;
  /** Time without contact after which the job counts as LOST; 60,000 by default, 0 = never. */
  heartbeatTimeout?: number | undefined;
  /** Time without progress after which the job counts as stalled; never by default. */
  stallTimeout?: number | undefined;
  /** How long the server keeps the job after its end; the server's setting by default. */
  retention?: number | undefined;
  /** The job waits for a worker that calls `resume`. Its creator sends no heartbeats, and need not end it. */
  pending?: boolean | undefined;
  /**
   * The id of a job that has ended, or is LOST. The new job begins with the old one's name, invoker, size, unit,
   * labels, progress, counters and variables (the checkpoint). Options given here win.
   */
  continues?: string | undefined;
  /**
   * Finds the unfinished job of the session that has this key, and takes it over from its worker. If there is none, a
   * job is created with the key. So `create` can be called at every start: "nightly-2026-11"; at most 256 characters. A
   * key is no lock: a former worker that is still at work learns of the take-over by `stopSignal`.
   */
  key?: string | undefined;
}

/** Selects jobs of a session: those that match all of these. */
export interface ListOptions extends Options {
  statuses?: Status[] | undefined;
  name?: string | undefined;
  invoker?: string | undefined;
  labels?: Record<string, string> | undefined;
  stalled?: boolean | undefined;
  /** The number of jobs in one call: 50 by default, at most 1,000. */
  pageSize?: number | undefined;
}

/** How long to watch. */
export interface FollowOptions extends Options {
  /** Milliseconds in all, then HeadwayError, DEADLINE_EXCEEDED; no limit by default. */
  timeout?: number | undefined;
  /** Called each time before a broken connection is opened again. An exception of it ends the watch. */
  onBroken?: ((error: HeadwayError) => void) | undefined;
}

export function createRequest(session: string, name: string, options: CreateOptions): CreateJobRequest {
  return CreateJobRequest.fromPartial({
    sessionId: session,
    jobId: options.jobId || uuid7(),
    name: clean(name, MAX_NAME_LENGTH),
    invoker: clean(options.invoker ?? "", MAX_NAME_LENGTH),
    size: whole(asSize(options.size)),
    unit: clean(options.unit ?? "", MAX_UNIT_LENGTH),
    labels: new Map(
      Object.entries(options.labels ?? {}).map(([key, value]) => [clean(key), clean(value, MAX_LABEL_LENGTH)]),
    ),
    heartbeatTimeout: duration(options.heartbeatTimeout ?? HEARTBEAT_TIMEOUT),
    stallTimeout: options.stallTimeout === undefined ? undefined : duration(options.stallTimeout),
    retention: options.retention === undefined ? undefined : duration(options.retention),
    pending: options.pending ?? false,
    continues: options.continues ?? "",
    key: clean(options.key ?? ""),
  });
}

/** The job as its creator knows it before the server has answered. */
export function described(request: CreateJobRequest): Job {
  const { jobId: id, name, invoker, size, unit, labels, pending } = request;
  const status = pending ? JobStatus.PENDING : JobStatus.RUNNING;
  return Job.fromPartial({ id, name, invoker, size, unit, labels, status });
}

export function listRequest(session: string, options: ListOptions): ListJobsRequest {
  return ListJobsRequest.fromPartial({
    sessionId: session,
    pageSize: options.pageSize ?? 0,
    statuses: (options.statuses ?? []).map(statusNumber),
    name: options.name ?? "",
    invoker: options.invoker ?? "",
    labels: new Map(Object.entries(options.labels ?? {})),
    stalled: options.stalled,
  });
}

function statusNumber(status: Status): JobStatus {
  const number: JobStatus | undefined = JobStatus[status];
  if (number === undefined) throw invalid(`There is no status ${JSON.stringify(status)}.`);
  return number;
}

/** When a watch must end, and how long to wait before it reconnects. */
export class Deadline {
  readonly #end: number;
  #tries = 0;

  constructor(timeout: number | undefined) {
    this.#end = timeout === undefined ? Number.POSITIVE_INFINITY : performance.now() + timeout;
  }

  /** Milliseconds left; undefined if there is no limit. */
  get left(): number | undefined {
    return Number.isFinite(this.#end) ? Math.max(this.#end - performance.now(), 0) : undefined;
  }

  heard(): void {
    this.#tries = 0;
  }

  /** Waits a while after a broken connection. Throws if the time is over, and the error if it is final. */
  async pause(error: HeadwayError, { signal, onBroken }: FollowOptions): Promise<void> {
    const left = this.left;
    if (left === 0 || (left !== undefined && error.code === "DEADLINE_EXCEEDED")) {
      throw failed("DEADLINE_EXCEEDED", "The job has not ended in time.");
    }
    if (error.code !== "UNAVAILABLE" && error.code !== "CANCELLED") throw error;
    onBroken?.(error);
    // The server ends a stream normally now and then.
    if (error.reason === "STREAM_EXPIRED" && this.#tries === 0) return;
    this.#tries += 1;
    const pause = Math.min(100 * 2 ** Math.min(this.#tries, 6), 5_000) * chance(0.5, 1);
    try {
      await setTimeout(Math.min(pause, left ?? pause), undefined, { signal });
    } catch (broken) {
      signal?.throwIfAborted();
      throw broken;
    }
  }
}
