/** A job in the hands of its worker. */

import { inspect } from "node:util";
import { status as codes } from "@grpc/grpc-js";
import type { CallOptions } from "./calls.js";
import type { Client } from "./client.js";
import { type Course, Step } from "./course.js";
import { type Engine, within } from "./engine.js";
import { type Code, type HeadwayError, JobCancelled } from "./errors.js";
import { Status } from "./gen/google/rpc/status.js";
import { Job as JobMessage } from "./gen/headway/v1/job.js";
import { FailJobRequest, FinishJobRequest, UpdateJobRequest } from "./gen/headway/v1/job_service.js";
import { Meter } from "./meter.js";
import type { FollowOptions } from "./requests.js";
import { type JobState, type Status as StatusName, statusName, toState } from "./state.js";
import { asSize, clean, inWords, type Json, NAME_LENGTH, toJson, toRecord } from "./values.js";

/**
 * A job in the hands of its worker; made by `Client.create`, `run`, `resume` and `fetch`. It is the meter of its part "".
 *
 * Updates are sent by the event loop in the background, at the pace that the server asks for. None of them waits, and
 * none throws because the server is away or refuses it: that is a warning of the client's logger.
 *
 * The end of a job waits until the server has it, as long as the server answers, at most `exitTimeout`; what is left goes
 * on in the background.
 */
export class Job extends Meter implements AsyncDisposable {
  readonly #client: Client;
  readonly #engine: Engine;
  readonly #course: Course;
  readonly #known = new Map<string, Json>();
  readonly #parts = new Map<string, Meter>();
  #ended = false;
  #results: unknown;

  /** @internal */
  constructor(client: Client, engine: Engine, course: Course) {
    super(course.tally, (size) => {
      if (sizeOf(course) === 0) course.tally.size = size;
    });
    this.#client = client;
    this.#engine = engine;
    this.#course = course;
    // A job that was only fetched is reported from its first change on.
    course.tally.woken = () => engine.submit(course);
  }

  /** 32 hexadecimal digits, chosen by this client. */
  get id(): string {
    return this.#course.job.id;
  }

  /** The session id: a secret, keep it out of logs. */
  get session(): string {
    return this.#course.session;
  }

  /** As the server last said; `refresh()` asks it. */
  get status(): StatusName {
    return statusName(this.#course.job.status);
  }

  /** All that the server last said of the job, progress over all parts included; `refresh()` asks it. */
  get state(): JobState {
    return toState(this.#course.job);
  }

  /** Which worker this is: 1, and one more after each take-over. */
  get attempt(): number {
    return this.#course.attempt;
  }

  /** What is counted: "records". */
  get unit(): string {
    return this.#course.job.unit;
  }

  /** What the job is, for people. Can be set, at most 256 characters. */
  get name(): string {
    return this.#course.job.name;
  }

  set name(text: string) {
    this.#update("name", text);
  }

  /** Who or what started it. Can be set, at most 256 characters. */
  get invoker(): string {
    return this.#course.job.invoker;
  }

  set invoker(text: string) {
    this.#update("invoker", text);
  }

  /** How much there is to do, in units; 0 = not known. Can be set: NaN, infinity and what is negative mean the same. */
  get size(): number {
    return sizeOf(this.#course);
  }

  set size(units: number) {
    this.#course.tally.touch();
    this.#course.tally.size = asSize(units);
  }

  /**
   * What came of it: a map by custom, at most 1 MiB as JSON. Set it before the job ends. Of a fetched job: the results as
   * they were then, undefined unless it was COMPLETED.
   */
  get results(): unknown {
    return this.#results;
  }

  set results(results: unknown) {
    this.#results = results;
  }

  /**
   * Aborted once somebody wants the job to end early; its reason is a JobCancelled. Hand it to all that takes a signal;
   * `track` heeds it by itself.
   */
  get signal(): AbortSignal {
    return this.#course.cancelled.signal;
  }

  /**
   * Aborted once the server takes no more reports of this worker; its reason is the HeadwayError: STALE_ATTEMPT if another
   * has taken the job over, JOB_ENDED, JOB_NOT_FOUND.
   */
  get stopSignal(): AbortSignal {
    return this.#course.stopped.signal;
  }

  /** Why the server takes no more reports of this worker, if it does not. */
  get stopped(): HeadwayError | undefined {
    return this.#course.error;
  }

  /** The meter of one part, for a worker that shares the job: its progress adds to the job's. Names have at most 128
   * characters, a job at most 256 parts. */
  part(name: string): Meter {
    const key = clean(name, 128);
    if (key === "") return this;
    let meter = this.#parts.get(key);
    if (!meter) {
      this.#course.tally.touch();
      meter = new Meter(this.#course.addPart(key));
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
   * A variable, undefined if it was never set. What this process set, or took over, is answered from memory; for the rest
   * the server is asked. HeadwayError if that fails.
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
    // Whoever writes JavaScript may give a number, or OK, which is no error.
    const number = (typeof codes[code] === "number" && codes[code]) || codes.UNKNOWN;
    await this.#end(Status.fromPartial({ code: number, message: clean(inWords(error), 1024) }));
  }

  /**
   * Works on the job, and ends it as the function ends: COMPLETED with `results`; FAILED, with "Type: message", if it
   * throws; CANCELLED if it throws because somebody wanted it to end early. What the function returns or throws goes on
   * unchanged. If it has ended the job itself, that holds.
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
   * The end of `await using`: a block that is left before the job was ended has failed, or was cancelled if somebody
   * wanted that. JavaScript does not tell why it was left; `run` does.
   *
   * A job that was only fetched goes on as it is: what was reported of it here is delivered, then it is let go.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended) return;
    if (this.#course.heartbeat < 0) {
      const step = new Step({ afterReports: true, release: true });
      this.#ended = true;
      this.#course.tally.woken = undefined;
      this.#engine.submit(this.#course, step);
      await within(step.tried.promise, this.#client.exitTimeout);
      return;
    }
    const { signal } = this;
    if (signal.aborted) await this.fail(signal.reason, "CANCELLED");
    else await this.fail("the worker left the job before its end");
  }

  /** Asks the server how the job stands. HeadwayError if that fails. */
  async refresh(options: CallOptions = {}): Promise<this> {
    const about = { ...options, session: this.session };
    this.#course.describe(await this.#client.message(this.id, about));
    // Perhaps it is PENDING no more, and reports may flow.
    if (!this.#course.tally.woken) this.#engine.submit(this.#course);
    if (this.status === "COMPLETED" && this.#results === undefined) {
      this.#results = (await this.#client.results(this.id, about)) ?? undefined;
    }
    return this;
  }

  /** Asks the job's worker to end early; see `Client.cancel`. */
  async cancel(reason = "", grace?: number): Promise<JobState> {
    return await this.#client.cancel(this.id, { reason, grace, session: this.session });
  }

  /** Removes the job and all that belongs to it; nothing more is reported. HeadwayError if that fails. */
  async clear(): Promise<void> {
    this.#ended = true;
    this.#engine.submit(this.#course, new Step({ release: true }));
    await this.#client.clear(this.id, { session: this.session });
  }

  /** Waits until the job has ended, whoever ends it, and gives its final state; see `Client.wait`. */
  async wait(options: FollowOptions = {}): Promise<JobState> {
    return await this.#client.wait(this.id, { ...options, session: this.session });
  }

  /** Waits until all said so far is stored, at most so many milliseconds (default: `exitTimeout`); whether it is. */
  async flush(timeout: number = this.#client.exitTimeout): Promise<boolean> {
    const late = await this.#engine.linger([this.#course], timeout);
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
    // What takes a signal often throws an error of its own, for this reason.
    return (
      this.signal.aborted &&
      error instanceof Error &&
      (error.name === "AbortError" || error.cause === this.signal.reason)
    );
  }

  #update(field: "name" | "invoker", text: string): void {
    const value = clean(text, NAME_LENGTH);
    this.#course.tally.touch();
    this.#course.job[field] = value;
    const job = JobMessage.fromPartial({ id: this.id, [field]: value });
    const message = UpdateJobRequest.fromPartial({ sessionId: this.session, job, updateMask: [field] });
    this.#engine.submit(this.#course, new Step({ call: { kind: "UpdateJobRequest", message } }));
  }

  async #end(error: Status | undefined): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#course.tally.touch();
    const about = { sessionId: this.session, jobId: this.id };
    const results = this.#results === undefined ? undefined : toJson(this.#results);
    const step = new Step({
      afterReports: true,
      call: error
        ? { kind: "FailJobRequest", message: FailJobRequest.fromPartial({ ...about, error }) }
        : { kind: "FinishJobRequest", message: FinishJobRequest.fromPartial({ ...about, results }) },
    });
    this.#engine.submit(this.#course, step);
    await within(step.tried.promise, this.#client.exitTimeout);
  }
}

function sizeOf(course: Course): number {
  return course.tally.size ?? Number(course.job.size);
}
