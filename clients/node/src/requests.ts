/** What jobs are created and found by, and how a watch is taken up again. */

import { setTimeout } from "node:timers/promises";
import { failed, type HeadwayError, invalid } from "./errors.js";
import { Job, JobStatus } from "./gen/headway/v1/job.js";
import { CreateJobRequest, ListJobsRequest } from "./gen/headway/v1/job_service.js";
import { chance, uuid7 } from "./ids.js";
import { duration, type Status } from "./state.js";
import { asSize, clean, NAME_LENGTH, whole } from "./values.js";

const HEARTBEAT_TIMEOUT = 60_000;
const UNIT_LENGTH = 32;
const LABEL_LENGTH = 256;

/** Which session, and what breaks the call off. */
export interface Options {
  /** A secret of 1 to 256 bytes; else the client's own, else HEADWAY_SESSION. */
  session?: string | undefined;
  /** Breaks the call off; it then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** What a job can be created with, besides its name; spans are in milliseconds, limits in job.proto. */
export interface CreateOptions {
  /** A secret of 1 to 256 bytes; else the client's own, else HEADWAY_SESSION. */
  session?: string | undefined;
  /** 32 lower-case hexadecimal digits of one's own; else a new UUIDv7. */
  jobId?: string | undefined;
  /** Who or what starts it. */
  invoker?: string | undefined;
  /** How much there is to do, in units; 0 = not known yet. */
  size?: number | undefined;
  /** What is counted: "records". */
  unit?: string | undefined;
  /** To filter by. */
  labels?: Record<string, string> | undefined;
  /** Time without contact after which it counts as LOST; 60,000 by default, 0 = never. */
  heartbeatTimeout?: number | undefined;
  /** Time without progress after which it counts as stalled; never by default. */
  stallTimeout?: number | undefined;
  /** How long it is kept after its end; the server's setting by default. */
  retention?: number | undefined;
  /** It waits for a worker, who calls `resume`. Its creator gives it no heartbeats, and need not end it. */
  pending?: boolean | undefined;
  /** The id of a job that has ended, or is LOST: the new one begins with its name, invoker, size, unit, labels, progress,
   * counters and variables, the checkpoint. What is given here wins. */
  continues?: string | undefined;
  /** Finds the unfinished job of the session that has this key, and takes it over from its worker; if there is none, the
   * job is created with it. So `create` can be called at every start: "nightly-2026-11"; at most 256 characters. A key is no
   * lock: a former worker that is still at work learns of it by `stopSignal`. */
  key?: string | undefined;
}

/** Which jobs of a session to list: those that pass all of these. */
export interface ListOptions extends Options {
  statuses?: Status[] | undefined;
  name?: string | undefined;
  invoker?: string | undefined;
  labels?: Record<string, string> | undefined;
  stalled?: boolean | undefined;
  /** How many are fetched at a time: 50 by default, at most 1,000. */
  pageSize?: number | undefined;
}

/** How long to follow something. */
export interface FollowOptions extends Options {
  /** Milliseconds in all, then HeadwayError, DEADLINE_EXCEEDED; as long as it takes by default. */
  timeout?: number | undefined;
  /** Called each time before a broken connection is taken up again; what it throws ends the watch. */
  onBroken?: ((error: HeadwayError) => void) | undefined;
}

export function createRequest(session: string, name: string, options: CreateOptions): CreateJobRequest {
  return CreateJobRequest.fromPartial({
    sessionId: session,
    jobId: options.jobId || uuid7(),
    name: clean(name, NAME_LENGTH),
    invoker: clean(options.invoker ?? "", NAME_LENGTH),
    size: whole(asSize(options.size)),
    unit: clean(options.unit ?? "", UNIT_LENGTH),
    labels: new Map(
      Object.entries(options.labels ?? {}).map(([key, value]) => [clean(key), clean(value, LABEL_LENGTH)]),
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

/** When a watch has to be over, and how long to wait before it is taken up again. */
export class Deadline {
  readonly #end: number;
  #tries = 0;

  constructor(timeout: number | undefined) {
    this.#end = timeout === undefined ? Number.POSITIVE_INFINITY : performance.now() + timeout;
  }

  /** Milliseconds left, undefined if there is no end. */
  get left(): number | undefined {
    return Number.isFinite(this.#end) ? Math.max(this.#end - performance.now(), 0) : undefined;
  }

  heard(): void {
    this.#tries = 0;
  }

  /** Waits a while after a watch broke off. Throws if its time is over, and the error if that is final. */
  async pause(error: HeadwayError, { signal, onBroken }: FollowOptions): Promise<void> {
    const left = this.left;
    if (left === 0 || (left !== undefined && error.code === "DEADLINE_EXCEEDED")) {
      throw failed("DEADLINE_EXCEEDED", "The job has not ended in time.");
    }
    if (error.code !== "UNAVAILABLE" && error.code !== "CANCELLED") throw error;
    onBroken?.(error);
    // A stream ends by itself now and then.
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
