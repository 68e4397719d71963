/** The engine's record of one job: what it still has to send to the server, in order. */

import { setMaxListeners } from "node:events";
import { type Call, isEnd, type SpoolRequest } from "./calls.js";
import { type HeadwayError, JobCancelled } from "./errors.js";
import { type Cancellation, type Job, JobStatus } from "./gen/headway/v1/job.js";
import { PartState } from "./part-state.js";
import { type About, heartbeat, Reporter } from "./reporter.js";
import type { SpoolFile } from "./spool.js";

/** The final statuses of a job. */
export const ENDED: ReadonlySet<JobStatus> = new Set([JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]);

/** A promise that others settle. An unhandled rejection of it is no error. */
class Promised<T> {
  readonly promise: Promise<T>;
  done = false;
  #resolve!: (value: T) => void;
  #reject!: (error: unknown) => void;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.promise.catch(() => {});
  }

  resolve(value: T): void {
    this.done = true;
    this.#resolve(value);
  }

  reject(error: unknown): void {
    this.done = true;
    this.#reject(error);
  }
}

/** How a pending call begins. */
export interface PendingCallOptions {
  call?: Call;
  /** The reports up to this moment go first. */
  afterReports?: boolean;
  /** The engine forgets the job after this call. */
  release?: boolean;
}

/** A call that a job still has to make. Without a call it marks a point: the reports before it have to go out first. */
export class PendingCall {
  readonly call: Call | undefined;
  afterReports: boolean;
  readonly release: boolean;
  /** Everything that the reports before this call have to contain is taken. Later changes do not delay the call. */
  sampled = false;
  /** What the server answered, or its error. */
  readonly answer = new Promised<Job | undefined>();
  /** Done together with the answer, or as soon as the server is known to be unreachable. */
  readonly tried = new Promised<void>();

  constructor({ call, afterReports = false, release = false }: PendingCallOptions) {
    this.call = call;
    this.afterReports = afterReports;
    this.release = release;
  }

  settle(answer: Job | undefined, error?: HeadwayError): void {
    if (error) this.answer.reject(error);
    else this.answer.resolve(answer);
    this.tried.resolve();
  }
}

/** A report to send, and its reporter; undefined for a heartbeat. */
export interface Dispatch {
  reporter: Reporter | undefined;
  bytes: Uint8Array;
}

/** How a job state begins. */
export interface JobStateOptions {
  /** The job's heartbeat_timeout in milliseconds, 0 for none. Negative: the job sends no heartbeats. */
  heartbeat: number;
  /** Whether reports may be sent: not before the job is created, or while it is PENDING. */
  started: boolean;
}

/** The engine's record of one job. */
export class JobState {
  readonly session: string;
  /** The job as the server last described it, or as the worker did before that. */
  job: Job;
  readonly partState: PartState;
  readonly heartbeat: number;
  started: boolean;
  /** Why the server accepts no more reports; undefined as long as it does. */
  error: HeadwayError | undefined;
  over = false;
  /** The spool file of what is left, until that is delivered from here after all. */
  file: SpoolFile | undefined;
  /** Aborted after a cancellation request. */
  readonly cancelled = new AbortController();
  /** Aborted with `error`. */
  readonly stopped = new AbortController();
  calling = false;
  /** When the engine next looks for something to report; in milliseconds of `performance.now()`, as all times here. */
  due = 0;
  /** When to send a heartbeat if there is nothing to report. */
  beatAt = 0;
  /** When to repeat what the server could not accept. */
  retryAt = 0;
  /** The attempt of this worker, even if another worker has the job meanwhile; 0 before the server has answered. */
  attempt: number;
  readonly #reporters = new Map<string, Reporter>();
  readonly #pendingCalls: PendingCall[] = [];

  constructor(session: string, job: Job, { heartbeat, started }: JobStateOptions) {
    this.session = session;
    this.job = job;
    this.attempt = job.attempt;
    this.heartbeat = heartbeat;
    this.started = started;
    // A worker may pass the signals to many listeners.
    setMaxListeners(0, this.cancelled.signal, this.stopped.signal);
    this.partState = this.addPart("", job.size);
  }

  /** The state of a part; the same one for the same name. */
  addPart(name: string, size = 0n): PartState {
    let reporter = this.#reporters.get(name);
    if (!reporter) {
      const progress = this.job.parts.get(name) ?? 0n;
      reporter = new Reporter(new PartState(name, Number(progress)), progress, size);
      reporter.partState.signal = this.cancelled.signal;
      this.#reporters.set(name, reporter);
    }
    return reporter.partState;
  }

  addCall(pendingCall: PendingCall): void {
    if (this.over) pendingCall.settle(undefined, this.error);
    else this.#pendingCalls.push(pendingCall);
  }

  /** Whether it waits for another worker, and has nothing to do meanwhile. */
  get waits(): boolean {
    return !this.started && this.#pendingCalls.length === 0;
  }

  /** The call to make now; undefined if reports go first. */
  get nextCall(): PendingCall | undefined {
    const pendingCall = this.#pendingCalls[0];
    return this.calling || pendingCall?.afterReports ? undefined : pendingCall;
  }

  /** The reports to send now. If there are none: a heartbeat, or the call that waited for them goes ahead. */
  *reports(now: number): Generator<Dispatch> {
    const pendingCall = this.#pendingCalls[0];
    const fresh = !pendingCall?.sampled;
    let complete = true;
    let silent = true;
    for (const reporter of this.started ? [...this.#reporters.values()] : []) {
      complete &&= !reporter.unsettled;
      reporter.numberAbove(this.job.lastSequence);
      const report = reporter.report(this.#about(this.attempt), fresh);
      if (report) {
        silent = false;
        yield { reporter, bytes: report.bytes };
      }
    }
    if (pendingCall) {
      // The worker may count on. A call waits only for what was there when it was queued.
      pendingCall.sampled ||= complete;
      pendingCall.afterReports &&= !silent;
    } else if (silent && this.heartbeat >= 0 && now >= this.beatAt) {
      yield { reporter: undefined, bytes: heartbeat(this.#about(this.attempt)) };
    }
  }

  /** Whether reports are next, or the call that waits for them. */
  get reporting(): boolean {
    return !this.over && (this.#pendingCalls[0]?.afterReports ?? this.started);
  }

  /** Whether to send more without waiting for the next report interval. */
  get urgent(): boolean {
    return this.#pendingCalls.length > 0 || [...this.#reporters.values()].some((reporter) => reporter.busy);
  }

  /** Everything that is left to send, in order, exactly as it is sent. */
  undelivered(): SpoolRequest[] {
    const left: SpoolRequest[] = [];
    // A job whose creation is unanswered begins with its first attempt.
    let attempt = this.attempt || 1;
    let started = this.started;
    for (const { call, sampled, afterReports } of this.#pendingCalls) {
      if (!call) continue;
      if (isEnd(call)) {
        if (started && afterReports) left.push(...this.#drain(!sampled, attempt));
        call.message.attempt = attempt;
        return [...left, call];
      }
      if (call.kind === "CreateJobRequest") started = !call.message.pending;
      if (call.kind === "StartJobRequest") {
        // Only the server knows which attempt that will be: 0 is not checked.
        started = true;
        attempt = 0;
      }
      left.push(call);
    }
    // Also reports after a point that somebody waits for, or has waited for in vain.
    if (started) left.push(...this.#drain(true, attempt));
    return left;
  }

  /** The first call is done. */
  answered(pendingCall: PendingCall, job: Job | undefined): void {
    this.#pendingCalls.shift();
    this.retryAt = 0;
    if (job) {
      this.describe(job);
      // The creator of a job is its first worker, even if another worker took the job over before the answer came.
      this.attempt ||= 1;
    }
    if (pendingCall.release || (pendingCall.call && isEnd(pendingCall.call))) this.stop();
    pendingCall.settle(job);
  }

  /** Takes over the server's description of the job. */
  describe(job: Job): void {
    this.job = job;
    this.started = job.status !== JobStatus.PENDING;
    // An older answer must not undo changes that are not sent yet.
    for (const { call } of this.#pendingCalls) {
      if (call?.kind !== "UpdateJobRequest" || !call.message.job) continue;
      const { updateMask, job: wanted } = call.message;
      if (updateMask?.includes("name")) job.name = wanted.name;
      if (updateMask?.includes("invoker")) job.invoker = wanted.invoker;
    }
    if (job.cancellation?.requested && !ENDED.has(job.status)) this.cancel(job.cancellation);
  }

  /** The server reports that the job is to end early. */
  cancel(cancellation: Cancellation): void {
    this.job.cancellation = cancellation;
    this.cancelled.abort(new JobCancelled(cancellation.reason, cancellation.deadline));
  }

  /** Nothing more is sent for this job. */
  stop(error?: HeadwayError): void {
    this.over = true;
    this.error = error;
    for (const pendingCall of this.#pendingCalls.splice(0)) pendingCall.settle(undefined, error);
    if (error) this.stopped.abort(error);
  }

  /** Ends the wait for the pending calls. */
  giveUpWaiting(): void {
    for (const pendingCall of this.#pendingCalls) pendingCall.tried.resolve();
  }

  #about(attempt: number): About {
    return { session: this.session, jobId: this.job.id, attempt };
  }

  #drain(fresh: boolean, attempt: number): SpoolRequest[] {
    for (const reporter of this.#reporters.values()) reporter.numberAbove(this.job.lastSequence);
    return [...this.#reporters.values()].flatMap((reporter) =>
      reporter
        .drain(this.#about(attempt), fresh)
        .map(({ message }): SpoolRequest => ({ kind: "ReportProgressRequest", message })),
    );
  }
}
