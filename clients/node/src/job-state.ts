/** The engine's record of one job: what it still has to tell the server, in order. */

import { setMaxListeners } from "node:events";
import { type Call, isEnd, type Word } from "./calls.js";
import { type HeadwayError, JobCancelled } from "./errors.js";
import { type Cancellation, type Job, JobStatus } from "./gen/headway/v1/job.js";
import { type About, heartbeat, Reporter } from "./report.js";
import type { Letter } from "./spool.js";
import { Tally } from "./tally.js";

/** What a job never leaves again. */
export const ENDED: ReadonlySet<JobStatus> = new Set([JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]);

/** A promise that others settle. Nobody has to look at it. */
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

/** What a step is about. */
export interface StepOptions {
  call?: Call;
  /** All that there is to report at its coming is reported first. */
  afterReports?: boolean;
  /** The job is left alone after this step. */
  release?: boolean;
}

/** A call that a job has to make, or with no call the point up to which its reports shall go out. */
export class Step {
  readonly call: Call | undefined;
  afterReports: boolean;
  readonly release: boolean;
  /** All that its reports have to say is known; what changes later comes too late for it. */
  sampled = false;
  /** What the server answered, or its refusal. */
  readonly answer = new Promised<Job | undefined>();
  /** Done with the answer, or as soon as it is known that the server does not answer now. */
  readonly tried = new Promised<void>();

  constructor({ call, afterReports = false, release = false }: StepOptions) {
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

/** A report to send, and who is told what became of it; nobody for a heartbeat. */
export interface Dispatch {
  reporter: Reporter | undefined;
  bytes: Uint8Array;
}

/** How a course begins. */
export interface CourseOptions {
  /** The job's heartbeat_timeout in milliseconds, 0 for none; below that no heartbeats are given at all. */
  heartbeat: number;
  /** Whether reports may flow: not before the job is created, or while it is PENDING. */
  started: boolean;
}

/** One job on its way. */
export class Course {
  readonly session: string;
  /** The job as the server last described it; before it did, as the worker did. */
  job: Job;
  readonly tally: Tally;
  readonly heartbeat: number;
  started: boolean;
  /** Why the server wants no more reports, once it does not. */
  error: HeadwayError | undefined;
  over = false;
  /** Where what is left is written down for a later process, until it is delivered from here after all. */
  letter: Letter | undefined;
  /** Aborted once somebody wants the job to end early. */
  readonly cancelled = new AbortController();
  /** Aborted with `error`. */
  readonly stopped = new AbortController();
  calling = false;
  /** When to look for something to report; in milliseconds of `performance.now()`, as all times here. */
  due = 0;
  /** When to give a heartbeat if there is nothing to report. */
  beatAt = 0;
  /** When to try again what the server could not take. */
  retryAt = 0;
  /** Which worker this is, whoever else has the job meanwhile; 0 before the server said. */
  attempt: number;
  readonly #reporters = new Map<string, Reporter>();
  readonly #steps: Step[] = [];

  constructor(session: string, job: Job, { heartbeat, started }: CourseOptions) {
    this.session = session;
    this.job = job;
    this.attempt = job.attempt;
    this.heartbeat = heartbeat;
    this.started = started;
    // A worker hands them to all that it begins, however many that are.
    setMaxListeners(0, this.cancelled.signal, this.stopped.signal);
    this.tally = this.addPart("", job.size);
  }

  /** The tally of a part; the same one for the same name. */
  addPart(name: string, size = 0n): Tally {
    let reporter = this.#reporters.get(name);
    if (!reporter) {
      const progress = this.job.parts.get(name) ?? 0n;
      reporter = new Reporter(new Tally(name, Number(progress)), progress, size);
      reporter.tally.signal = this.cancelled.signal;
      this.#reporters.set(name, reporter);
    }
    return reporter.tally;
  }

  addStep(step: Step): void {
    if (this.over) step.settle(undefined, this.error);
    else this.#steps.push(step);
  }

  /** Whether it waits for another to start it, and there is nothing to do for it meanwhile. */
  get waits(): boolean {
    return !this.started && this.#steps.length === 0;
  }

  /** The step whose turn it is, unless reports come first. */
  get nextStep(): Step | undefined {
    const step = this.#steps[0];
    return this.calling || step?.afterReports ? undefined : step;
  }

  /** The reports to send now; if there are none, a heartbeat, or the turn of the step that waited for them. */
  *reports(now: number): Generator<Dispatch> {
    const step = this.#steps[0];
    const fresh = !step?.sampled;
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
    if (step) {
      // The worker may count on: a step waits for what was there when it came, and not for ever.
      step.sampled ||= complete;
      step.afterReports &&= !silent;
    } else if (silent && this.heartbeat >= 0 && now >= this.beatAt) {
      yield { reporter: undefined, bytes: heartbeat(this.#about(this.attempt)) };
    }
  }

  /** Whether it is the turn of reports, or of the step that waits for them. */
  get reporting(): boolean {
    return !this.over && (this.#steps[0]?.afterReports ?? this.started);
  }

  /** Whether more should go out without waiting for the next turn. */
  get urgent(): boolean {
    return this.#steps.length > 0 || [...this.#reporters.values()].some((reporter) => reporter.busy);
  }

  /** All that is left to say, in order, frozen as it will be sent. */
  remains(): Word[] {
    const left: Word[] = [];
    // A job that nobody has answered for yet begins with its first attempt.
    let attempt = this.attempt || 1;
    let started = this.started;
    for (const { call, sampled, afterReports } of this.#steps) {
      if (!call) continue;
      if (isEnd(call)) {
        if (started && afterReports) left.push(...this.#drain(!sampled, attempt));
        call.message.attempt = attempt;
        return [...left, call];
      }
      if (call.kind === "CreateJobRequest") started = !call.message.pending;
      if (call.kind === "StartJobRequest") {
        // Which attempt that will be, only the server can tell: 0 is not checked.
        started = true;
        attempt = 0;
      }
      left.push(call);
    }
    // Also what was said after a point in time that somebody waits for, or has waited for in vain.
    if (started) left.push(...this.#drain(true, attempt));
    return left;
  }

  /** A step is done. */
  answered(step: Step, job: Job | undefined): void {
    this.#steps.shift();
    this.retryAt = 0;
    if (job) {
      this.describe(job);
      // Who creates a job is its first worker, whoever has taken it over before the answer came.
      this.attempt ||= 1;
    }
    if (step.release || (step.call && isEnd(step.call))) this.stop();
    step.settle(job);
  }

  /** What the server says of the job. */
  describe(job: Job): void {
    this.job = job;
    this.started = job.status !== JobStatus.PENDING;
    // What is changed but not sent yet is not forgotten over an older answer.
    for (const { call } of this.#steps) {
      if (call?.kind !== "UpdateJobRequest" || !call.message.job) continue;
      const { updateMask, job: wanted } = call.message;
      if (updateMask?.includes("name")) job.name = wanted.name;
      if (updateMask?.includes("invoker")) job.invoker = wanted.invoker;
    }
    if (job.cancellation?.requested && !ENDED.has(job.status)) this.cancel(job.cancellation);
  }

  /** The server says that the job shall end early. */
  cancel(wish: Cancellation): void {
    this.job.cancellation = wish;
    this.cancelled.abort(new JobCancelled(wish.reason, wish.deadline));
  }

  /** Nothing more is sent for this job. */
  stop(error?: HeadwayError): void {
    this.over = true;
    this.error = error;
    for (const step of this.#steps.splice(0)) step.settle(undefined, error);
    if (error) this.stopped.abort(error);
  }

  /** Whoever waits for one of its steps waits no longer. */
  giveUpWaiting(): void {
    for (const step of this.#steps) step.tried.resolve();
  }

  #about(attempt: number): About {
    return { session: this.session, jobId: this.job.id, attempt };
  }

  #drain(fresh: boolean, attempt: number): Word[] {
    for (const reporter of this.#reporters.values()) reporter.numberAbove(this.job.lastSequence);
    return [...this.#reporters.values()].flatMap((reporter) =>
      reporter
        .drain(this.#about(attempt), fresh)
        .map(({ message }): Word => ({ kind: "ReportProgressRequest", message })),
    );
  }
}
