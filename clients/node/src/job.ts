/** A job as its worker sees it. */

import { inspect } from "node:util";
import { status as codes } from "@grpc/grpc-js";
import type { CallOptions } from "./calls.js";
import type { Client } from "./client.js";
import { type Engine, within } from "./engine.js";
import { type Code, type HeadwayError, JobCancelled } from "./errors.js";
import { Status } from "./gen/google/rpc/status.js";
import { Job as JobMessage } from "./gen/headway/v1/job.js";
import { FailJobRequest, FinishJobRequest, UpdateJobRequest } from "./gen/headway/v1/job_service.js";
import { type JobState, PendingCall } from "./job-state.js";
import { type JobView, type Status as StatusName, statusName, toView } from "./job-view.js";
import { Meter } from "./meter.js";
import type { FollowOptions } from "./requests.js";
import { asSize, clean, describe, type Json, MAX_NAME_LENGTH, toJson, toRecord } from "./values.js";

/**
 * A job as its worker sees it; made by `Client.create`, `run`, `resume` and `fetch`. It is also the meter of its part
 * "".
 *
 * The event loop sends updates in the background, at the pace that the server asks for. Updates never wait, and never
 * throw because the server is unreachable or refuses them: the client's logger warns of that.
 *
 * The end of a job waits until the server has stored it, at most `exitTimeout`, and not while the server is
 * unreachable. The rest goes on in the background.
 */
export class Job extends Meter implements AsyncDisposable {
  readonly #client: Client;
  readonly #engine: Engine;
  readonly #jobState: JobState;
  readonly #known = new Map<string, Json>();
  readonly #parts = new Map<string, Meter>();
  #ended = false;
  #results: unknown;

  /** @internal */
  constructor(client: Client, engine: Engine, jobState: JobState) {
    super(jobState.partState, (size) => {
      if (sizeOf(jobState) === 0) jobState.partState.size = size;
    });
    this.#client = client;
    this.#engine = engine;
    this.#jobState = jobState;
    // A job that was only fetched is reported from its first change on.
    jobState.partState.woken = () => engine.submit(jobState);
  }

  /** 32 hexadecimal digits, chosen by this client. */
  get id(): string {
    return this.#jobState.job.id;
  }

  /** The session id: a secret, keep it out of logs. */
  get session(): string {
    return this.#jobState.session;
  }

  /** The status that the server last reported; `refresh()` renews it. */
  get status(): StatusName {
    return statusName(this.#jobState.job.status);
  }

  /** The server's last description of the job, including the progress of all parts; `refresh()` renews it. */
  get state(): JobView {
    return toView(this.#jobState.job);
  }

  /** The number of this worker: 1, and one more after each take-over. */
  get attempt(): number {
    return this.#jobState.attempt;
  }

  /** Names what is counted: "records". */
  get unit(): string {
    return this.#jobState.job.unit;
  }

  /** Describes the job to people. Can be set, at most 256 characters. */
  get name(): string {
    return this.#jobState.job.name;
  }

  set name(text: string) {
    this.#update("name", text);
  }

  /** Who or what started the job. Can be set, at most 256 characters. */
  get invoker(): string {
    return this.#jobState.job.invoker;
  }

  set invoker(text: string) {
    this.#update("invoker", text);
  }

  /** The amount of work, in units; 0 = not known. Can be set: NaN, infinity and negative numbers mean 0. */
  get size(): number {
    return sizeOf(this.#jobState);
  }

  set size(units: number) {
    this.#jobState.partState.touch();
    this.#jobState.partState.size = asSize(units);
  }

  /**
   * The job's results: usually a map, at most 1 MiB as JSON. Set them before the job ends. Of a fetched job they are
   * those of that moment, undefined unless it was COMPLETED.
   */
  get results(): unknown {
    return this.#results;
  }

  set results(results: unknown) {
    this.#results = results;
  }

  /**
   * Aborted after a cancellation request; its reason is a JobCancelled. Pass it to everything that takes a signal;
   * `track` uses it by itself.
   */
  get signal(): AbortSignal {
    return this.#jobState.cancelled.signal;
  }

  /**
   * Aborted if the server accepts no more reports of this worker; its reason is the HeadwayError: STALE_ATTEMPT if
   * another worker has taken the job over, JOB_ENDED, JOB_NOT_FOUND.
   */
  get stopSignal(): AbortSignal {
    return this.#jobState.stopped.signal;
  }

  /** Why the server accepts no more reports of this worker; undefined as long as it does. */
  get stopped(): HeadwayError | undefined {
    return this.#jobState.error;
  }

  /**
   * The meter of one part, for a worker that shares the job. Its progress adds to the job's. Names have at most 128
   * characters, a job has at most 256 parts.
   */
  part(name: string): Meter {
    const key = clean(name, 128);
    if (key === "") return this;
    let meter = this.#parts.get(key);
    if (!meter) {
      this.#jobState.partState.touch();
      meter = new Meter(this.#jobState.addPart(key));
      this.#parts.set(key, meter);
    }
    return meter;
  }

  override set(variables: object): void {
    this.#remember(variables);
    super.set(variables);
  }

  override checkpoint(variables: object): void {
    this.#remember(variables);
    super.checkpoint(variables);
  }

  /**
   * A variable, undefined if it was never set. Variables that this process set or took over come from memory. For
   * others it asks the server; HeadwayError if that fails.
   */
  async get(key: string, options: CallOptions = {}): Promise<Json | undefined> {
    if (this.#known.has(key)) return this.#known.get(key);
    const found = await this.#client.variables(this.id, [key], { ...options, session: this.session });
    return Object.hasOwn(found, key) ? found[key] : undefined;
  }

  /** Ends the job as COMPLETED, with results if given here or set before. */
  async finish(results?: unknown): Promise<void> {
    if (results !== undefined) this.#results = results;
    await this.#end(undefined);
  }

  /** Ends the job as FAILED because of an error or a text; with the code "CANCELLED" as CANCELLED. */
  async fail(error: unknown, code: Code = "UNKNOWN"): Promise<void> {
    // JavaScript callers may give a number, or OK, which is no error.
    const number = (typeof codes[code] === "number" && codes[code]) || codes.UNKNOWN;
    await this.#end(Status.fromPartial({ code: number, message: clean(describe(error), 1024) }));
  }

  /**
   * Works on the job, and ends it as the function ends: COMPLETED with `results`; FAILED, with "Type: message", if it
   * throws; CANCELLED if it throws because of a cancellation request. What the function returns or throws goes on
   * unchanged. If the function has ended the job itself, nothing changes.
   */
  async run<T>(work: (job: Job) => T | PromiseLike<T>): Promise<T> {
    try {
      const value = await work(this);
      await this.finish();
      return value;
    } catch (error) {
      await this.fail(error, this.#isCancellation(error) ? "CANCELLED" : "UNKNOWN");
      throw error;
    }
  }

  /**
   * The end of `await using`. A job that has not ended by then is FAILED, or CANCELLED after a cancellation request.
   * JavaScript does not tell why the block was left; `run` does.
   *
   * A job that was only fetched does not end: what was reported of it here is delivered, then it is released.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended) return;
    if (this.#jobState.heartbeat < 0) {
      const pendingCall = new PendingCall({ afterReports: true, release: true });
      this.#ended = true;
      this.#jobState.partState.woken = undefined;
      this.#engine.submit(this.#jobState, pendingCall);
      await within(pendingCall.tried.promise, this.#client.exitTimeout);
      return;
    }
    const { signal } = this;
    if (signal.aborted) await this.fail(signal.reason, "CANCELLED");
    else await this.fail("the worker left the job before its end");
  }

  /** Asks the server for the job's current state. HeadwayError if that fails. */
  async refresh(options: CallOptions = {}): Promise<this> {
    const about = { ...options, session: this.session };
    this.#jobState.describe(await this.#client.message(this.id, about));
    // The job may no longer be PENDING, so that reports may be sent.
    if (!this.#jobState.partState.woken) this.#engine.submit(this.#jobState);
    if (this.status === "COMPLETED" && this.#results === undefined) {
      this.#results = (await this.#client.results(this.id, about)) ?? undefined;
    }
    return this;
  }

  /** Asks the job's worker to end early; see `Client.cancel`. */
  async cancel(reason = "", grace?: number): Promise<JobView> {
    return await this.#client.cancel(this.id, { reason, grace, session: this.session });
  }

  /** Removes the job and everything that belongs to it. Nothing more is reported. HeadwayError if that fails. */
  async clear(): Promise<void> {
    this.#ended = true;
    this.#engine.submit(this.#jobState, new PendingCall({ release: true }));
    await this.#client.clear(this.id, { session: this.session });
  }

  /** Waits until the job has ended, no matter who ends it, and returns its final state; see `Client.wait`. */
  async wait(options: FollowOptions = {}): Promise<JobView> {
    return await this.#client.wait(this.id, { ...options, session: this.session });
  }

  /**
   * Waits until everything reported so far is stored, at most so many milliseconds (default: `exitTimeout`). Returns
   * whether it is.
   */
  async flush(timeout: number = this.#client.exitTimeout): Promise<boolean> {
    const late = await this.#engine.waitDelivered([this.#jobState], timeout);
    return late.length === 0 && !this.stopped;
  }

  [inspect.custom](): string {
    return `Job { id: '${this.id}', name: ${inspect(this.name)}, status: '${this.status}' }`;
  }

  /** @internal */
  adopt(variables: object, results: unknown): this {
    for (const [name, value] of Object.entries(variables)) this.#known.set(name, value);
    this.#results = results ?? undefined;
    return this;
  }

  #remember(variables: object): void {
    for (const [name, value] of Object.entries(toRecord(variables))) this.#known.set(name, value);
  }

  #isCancellation(error: unknown): boolean {
    if (error instanceof JobCancelled) return true;
    // Code that takes a signal often throws an error of its own, with this cause.
    return (
      this.signal.aborted &&
      error instanceof Error &&
      (error.name === "AbortError" || error.cause === this.signal.reason)
    );
  }

  #update(field: "name" | "invoker", text: string): void {
    const value = clean(text, MAX_NAME_LENGTH);
    this.#jobState.partState.touch();
    this.#jobState.job[field] = value;
    const job = JobMessage.fromPartial({ id: this.id, [field]: value });
    const message = UpdateJobRequest.fromPartial({ sessionId: this.session, job, updateMask: [field] });
    this.#engine.submit(this.#jobState, new PendingCall({ call: { kind: "UpdateJobRequest", message } }));
  }

  async #end(error: Status | undefined): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#jobState.partState.touch();
    const about = { sessionId: this.session, jobId: this.id };
    const results = this.#results === undefined ? undefined : toJson(this.#results);
    const pendingCall = new PendingCall({
      afterReports: true,
      call: error
        ? { kind: "FailJobRequest", message: FailJobRequest.fromPartial({ ...about, error }) }
        : { kind: "FinishJobRequest", message: FinishJobRequest.fromPartial({ ...about, results }) },
    });
    this.#engine.submit(this.#jobState, pendingCall);
    await within(pendingCall.tried.promise, this.#client.exitTimeout);
  }
}

function sizeOf(jobState: JobState): number {
  return jobState.partState.size ?? Number(jobState.job.size);
}
