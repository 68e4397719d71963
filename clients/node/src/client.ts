/** The connection: where jobs are made, read and watched. */

import { type CallOptions, Wire } from "./calls.js";
import { type Logger, toStandardError, unfailing } from "./contact.js";
import { Course, ENDED, Step } from "./course.js";
import { type Deliverer, forget, remember } from "./ends.js";
import { Engine, within } from "./engine.js";
import { failed, fromGrpc, HeadwayError, invalid, NotFoundError } from "./errors.js";
import { type Job as JobMessage, JobStatus } from "./gen/headway/v1/job.js";
import {
  CancelJobRequest,
  ClearJobRequest,
  GetJobRequest,
  GetResultsRequest,
  GetVariablesRequest,
  ListRecordErrorsRequest,
  JobServiceService as service,
  WatchJobRequest,
  WatchJobsRequest,
} from "./gen/headway/v1/job_service.js";
import { Job } from "./job.js";
import { type Delivery, Postman, writeDown } from "./postman.js";
import {
  type CreateOptions,
  createRequest,
  Deadline,
  described,
  type FollowOptions,
  type ListOptions,
  listRequest,
  type Options,
} from "./requests.js";
import { duration, type JobState, type RecordFault, span, toState } from "./state.js";
import { CREATE_PATIENCE, FIND_TIMEOUT, findOrCreate, hasReason, takeOver } from "./taking.js";
import { Target } from "./target.js";
import { clean, type Json } from "./values.js";
import { judge, Verdict } from "./verdict.js";

const EXIT_TIMEOUT = 10_000;
const CALL_TIMEOUT = 10_000;
const POST_PATIENCE = 1_000;

/** Where a client connects to, and how long it waits. */
export interface ConnectOptions {
  /** `host:port`, or `https://host:port` for TLS; else HEADWAY_TARGET, else 127.0.0.1:50051. */
  target?: string | undefined;
  /** The bearer token; else HEADWAY_TOKEN. */
  token?: string | undefined;
  /** A PEM file of the authorities to trust, which means TLS; else HEADWAY_CA. */
  ca?: string | undefined;
  /** The session of all calls that name none; else HEADWAY_SESSION. */
  session?: string | undefined;
  /** Milliseconds to wait at most, at the end of a job and of the client, until all is delivered; 10,000 by default. */
  exitTimeout?: number | undefined;
  /** Milliseconds that the server has to answer a call that its caller waits for; 10,000 by default. */
  callTimeout?: number | undefined;
  /** Who is told that the server is away, or refuses something; by default warnings go to standard error. */
  logger?: Logger | undefined;
}

/** A change in a session: a job that is new or newer, or the id of one that was removed. */
export type Change = ({ job: JobState } | { removed: string }) & {
  /** Where to take the watch up again after this change. */
  resumeToken: string;
};

/** A connection to a Headway server; nothing is sent before it is used. InvalidError if the target or the token is
 * malformed, or the CA file cannot be read. */
export function connect(options: ConnectOptions = {}): Client {
  return new Client(options);
}

/**
 * A connection to one server. Calls that the caller waits for reject with HeadwayError: NotFoundError if the session has
 * no such job, InvalidError for a malformed request or without a session, UnavailableError if the server is away.
 */
export class Client implements AsyncDisposable, Deliverer {
  /** Milliseconds to wait at most until all is delivered, at the end of a job and of the client. */
  readonly exitTimeout: number;
  readonly #callTimeout: number;
  readonly #session: string | undefined;
  readonly #target: Target;
  readonly #log: Logger;
  readonly #engine: Engine;
  readonly #postman: Postman;
  #post: Promise<unknown> = Promise.resolve();
  #reads: Wire | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: ConnectOptions = {}) {
    this.#target = new Target(options.target, options.token, options.ca);
    this.#target.credentials();
    this.#session = options.session;
    this.exitTimeout = options.exitTimeout ?? EXIT_TIMEOUT;
    this.#callTimeout = options.callTimeout ?? CALL_TIMEOUT;
    this.#log = unfailing(options.logger ?? toStandardError);
    this.#postman = new Postman(this.#target, this.#log);
    this.#engine = new Engine(this.#target, this.#log, () => {
      this.#post = this.#postman.deliver().catch(() => {});
    });
  }

  /** `host:port` of the server. */
  get address(): string {
    return this.#target.address;
  }

  /**
   * Creates a job and starts to work on it.
   *
   * If the server does not answer, the job is created in the background, under the id that it has already; that takes a
   * refused connection, or at most a second. One with a `key` or that `continues` another takes 5 s at most, and begins
   * anew then; should an unfinished job have the key, it is created without it. Rejects if the server answers at once that this can not be:
   * InvalidError, ALREADY_EXISTS, UNAUTHENTICATED, PERMISSION_DENIED; of `continues` NotFoundError or StateError.
   */
  async create(name = "", options: CreateOptions = {}): Promise<Job> {
    const session = this.#in(options.session);
    const message = createRequest(session, name, options);
    const mayHaveBegun = message.key !== "" || message.continues !== "";
    const end = performance.now() + (mayHaveBegun ? FIND_TIMEOUT : CREATE_PATIENCE);
    if (options.jobId) await this.#catchUp(message.jobId, CREATE_PATIENCE);
    if (mayHaveBegun) {
      // What earlier workers left to say: of which job that is, only the server can tell.
      await this.#catchUp(undefined, FIND_TIMEOUT);
      try {
        return await this.#attach(session, await findOrCreate(this.#open(), message, this.#limits({})));
      } catch (error) {
        if (!(error instanceof HeadwayError) || [Verdict.Gone, Verdict.Refused].includes(judge(error))) throw error;
        // Nobody could be asked in time: the worker begins, and its work is a job of its own.
        message.keyIfFree = true;
      }
    }
    const course = new Course(session, described(message), {
      heartbeat: message.pending ? -1 : span(message.heartbeatTimeout),
      started: false,
    });
    const job = this.#work(course);
    const step = new Step({ call: { kind: "CreateJobRequest", message } });
    course.tally.woken = undefined;
    this.#engine.submit(course, step);
    await within(step.tried.promise, Math.max(end - performance.now(), 0));
    if (step.answer.done) await step.answer.promise;
    return job;
  }

  /** Creates a job and works on it; see `create` and `Job.run`. */
  async run<T>(name: string, options: CreateOptions, work: (job: Job) => T | PromiseLike<T>): Promise<T> {
    return await (await this.create(name, options)).run(work);
  }

  /**
   * Carries a job on. One that goes on is taken over from a worker that is gone, a PENDING one is started; reports of the
   * former worker are refused from now on. One that has ended is continued by a new job, as by `create` with `continues`;
   * if it was continued already, the last of those that continue it is carried on. The progress goes on where it stood, and
   * the variables, the checkpoint, can be read with `get`.
   *
   * NotFoundError; UnavailableError if the server is away.
   */
  async resume(jobId: string, options: Options = {}): Promise<Job> {
    const session = this.#in(options.session);
    const create = createRequest(session, "", {});
    for (;;) {
      await this.#catchUp(jobId, this.exitTimeout);
      try {
        return await this.#attach(
          session,
          await takeOver(this.#open(), session, jobId, this.#limits(options)),
          options,
        );
      } catch (error) {
        if (!hasReason(error, "JOB_ENDED")) throw error;
      }
      try {
        create.continues = jobId;
        const state = await this.#open().unary(service.createJob, create, this.#limits(options));
        return await this.#attach(session, state, options);
      } catch (error) {
        if (!hasReason(error, "JOB_ALREADY_CONTINUED")) throw error;
      }
      jobId = (await this.get(jobId, { ...options, session })).continuedBy;
    }
  }

  /** Works on a job that the server has given to this worker. */
  async #attach(session: string, state: JobMessage, options: Options = {}): Promise<Job> {
    const pending = state.status === JobStatus.PENDING;
    const heartbeat = pending ? -1 : span(state.heartbeatTimeout);
    const course = new Course(session, state, { heartbeat, started: !pending });
    course.describe(state);
    const job = this.#work(course).adopt(await this.variables(state.id, [], { ...options, session }), undefined);
    if (!pending) course.tally.touch();
    return job;
  }

  /**
   * The job, to read it, to change it, or to report a `part` of it; undefined if it is not in this session.
   *
   * It gives no heartbeats, and what it says is as of now: `refresh` renews it. A process that reports parts of many jobs
   * takes each with `await using`, which lets it go at the end of the block.
   */
  async fetch(jobId: string, options: Options = {}): Promise<Job | undefined> {
    const session = this.#in(options.session);
    let state: JobMessage;
    try {
      state = await this.message(jobId, options);
    } catch (error) {
      if (error instanceof NotFoundError) return undefined;
      throw error;
    }
    const course = new Course(session, state, { heartbeat: -1, started: state.status !== JobStatus.PENDING });
    course.describe(state);
    const results = state.status === JobStatus.COMPLETED ? await this.results(jobId, options) : undefined;
    return this.#work(course).adopt({}, results);
  }

  /** The job as it stands. */
  async get(jobId: string, options: Options = {}): Promise<JobState> {
    return toState(await this.message(jobId, options));
  }

  /** The jobs of the session that pass all filters, newest first, fetched page by page. */
  async *list(options: ListOptions = {}): AsyncGenerator<JobState, void, undefined> {
    const request = listRequest(this.#in(options.session), options);
    do {
      const page = await this.#open().unary(service.listJobs, request, this.#limits(options));
      for (const job of page.jobs) yield toState(job);
      request.pageToken = page.nextPageToken;
    } while (request.pageToken);
  }

  /**
   * The job as it stands, then each newer state, until it has ended. A connection that breaks is taken up again where it
   * broke off, for as long as it takes. `afterRevision`: the states that are newer alone, but the final one always.
   *
   * NotFoundError, also if the job is cleared meanwhile.
   */
  async *watch(
    jobId: string,
    options: FollowOptions & { afterRevision?: number | undefined } = {},
  ): AsyncGenerator<JobState, void, undefined> {
    const afterRevision = BigInt(options.afterRevision ?? 0);
    const request = WatchJobRequest.fromPartial({ sessionId: this.#in(options.session), jobId, afterRevision });
    const deadline = new Deadline(options.timeout);
    for (;;) {
      try {
        const call = { timeout: deadline.left, signal: options.signal };
        for await (const { job } of this.#open().responses(service.watchJob, request, call)) {
          deadline.heard();
          if (!job) continue;
          request.afterRevision = job.revision;
          yield toState(job);
          if (ENDED.has(job.status)) return;
        }
        return;
      } catch (error) {
        options.signal?.throwIfAborted();
        this.#open();
        await deadline.pause(fromGrpc(error), options);
      }
    }
  }

  /**
   * The jobs of the session as they stand, then each change. Goes on for ever, over broken connections too.
   *
   * `resumeToken`: that of the last change received. StateError, RESUME_TOKEN_EXPIRED, if it is too old.
   */
  async *watchSession(
    options: FollowOptions & { resumeToken?: string | undefined } = {},
  ): AsyncGenerator<Change, void, undefined> {
    const { resumeToken = "" } = options;
    const request = WatchJobsRequest.fromPartial({ sessionId: this.#in(options.session), resumeToken });
    const deadline = new Deadline(options.timeout);
    for (;;) {
      try {
        const call = { timeout: deadline.left, signal: options.signal };
        for await (const change of this.#open().responses(service.watchJobs, request, call)) {
          deadline.heard();
          request.resumeToken = change.resumeToken;
          const what = change.job ? { job: toState(change.job) } : { removed: change.removedJobId ?? "" };
          yield { ...what, resumeToken: change.resumeToken };
        }
      } catch (error) {
        options.signal?.throwIfAborted();
        this.#open();
        await deadline.pause(fromGrpc(error), options);
      }
    }
  }

  /** Waits until the job has ended, and gives its final state. */
  async wait(jobId: string, options: FollowOptions = {}): Promise<JobState> {
    let last: JobState | undefined;
    for await (const state of this.watch(jobId, options)) last = state;
    if (!last) throw failed("UNKNOWN", "The watch ended before the job.");
    return last;
  }

  /** What came of the job; undefined unless it is COMPLETED with results. */
  async results(jobId: string, options: Options = {}): Promise<Json | undefined> {
    const request = GetResultsRequest.fromPartial({ sessionId: this.#in(options.session), jobId });
    return (await this.#open().unary(service.getResults, request, this.#limits(options))).results;
  }

  /** The job's variables, or those of these names that are set. */
  async variables(jobId: string, names: string[] = [], options: Options = {}): Promise<{ [name: string]: Json }> {
    const request = GetVariablesRequest.fromPartial({ sessionId: this.#in(options.session), jobId, names });
    return (await this.#open().unary(service.getVariables, request, this.#limits(options))).variables ?? {};
  }

  /** The first and the last 100 record errors, and how many there were. */
  async recordErrors(
    jobId: string,
    options: Options = {},
  ): Promise<{ first: RecordFault[]; last: RecordFault[]; total: number }> {
    const request = ListRecordErrorsRequest.fromPartial({ sessionId: this.#in(options.session), jobId });
    const { first, last, total } = await this.#open().unary(service.listRecordErrors, request, this.#limits(options));
    return { first, last, total: Number(total) };
  }

  /**
   * Asks the job's worker to end early, and ends the job after `grace` milliseconds (60,000 by default; 0 = at once).
   * StateError if it has ended otherwise.
   */
  async cancel(
    jobId: string,
    options: Options & { reason?: string | undefined; grace?: number | undefined } = {},
  ): Promise<JobState> {
    const request = CancelJobRequest.fromPartial({
      sessionId: this.#in(options.session),
      jobId,
      reason: clean(options.reason ?? "", 1024),
      gracePeriod: options.grace === undefined ? undefined : duration(options.grace),
    });
    return toState(await this.#open().unary(service.cancelJob, request, this.#limits(options)));
  }

  /** Removes the job with its variables, results and record errors; one that is not there is no error. */
  async clear(jobId: string, options: Options = {}): Promise<void> {
    const request = ClearJobRequest.fromPartial({ sessionId: this.#in(options.session), jobId, allowMissing: true });
    await this.#open().unary(service.clearJob, request, this.#limits(options));
  }

  /** Sends what earlier processes could not deliver to this server. That is done anyway when it is first heard of. */
  async flushSpool(): Promise<Delivery> {
    return await new Postman(this.#target, this.#log).deliver();
  }

  /**
   * Waits until all is delivered, at most `exitTimeout`, then writes the rest into the spool, for the next run. Jobs that
   * have not ended are let go as they are. A process that ends without it does the same by itself.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal */
  leave(): void {
    this.#writeDown(this.#engine.jobs, "the process ends before all is delivered");
  }

  /** @internal */
  async message(jobId: string, options: Options): Promise<JobMessage> {
    const request = GetJobRequest.fromPartial({ sessionId: this.#in(options.session), jobId });
    return await this.#open().unary(service.getJob, request, this.#limits(options));
  }

  async #close(): Promise<void> {
    const late = await this.#engine.linger(this.#engine.jobs, this.exitTimeout);
    await within(this.#post, Math.min(POST_PATIENCE, this.exitTimeout));
    this.#postman.stop();
    this.#writeDown(late, `${this.address} has not answered in time`);
    this.#engine.close();
    // What it wrote down is for whoever comes next, in this process too.
    for (const { letter } of late) letter?.release();
    this.#reads?.close();
    forget(this);
  }

  #writeDown(courses: Iterable<Course>, why: string): void {
    for (const [{ job }, place] of writeDown(courses, this.#target, this.#log)) {
      const where = place && ` yet, and waits in ${place} for \`headway flush\` or the next run`;
      this.#log.warn(`headway: ${why}; the last state of job ${job.id} is not delivered${where}`);
    }
  }

  #work(course: Course): Job {
    remember(this);
    return new Job(this, this.#engine, course);
  }

  async #catchUp(jobId: string | undefined, patience: number): Promise<void> {
    const postman = new Postman(this.#target, this.#log);
    await within(
      postman.deliver(jobId).catch(() => {}),
      patience,
    );
    postman.stop();
  }

  #in(session: string | undefined): string {
    if (this.#closing) throw invalid("The client is closed.");
    const found = session || this.#session || process.env.HEADWAY_SESSION;
    if (!found) throw invalid("No session: give one, or set HEADWAY_SESSION.");
    return found;
  }

  #open(): Wire {
    if (this.#closing) throw invalid("The client is closed.");
    this.#reads ??= new Wire(this.#target, { retry: true });
    return this.#reads;
  }

  #limits({ signal }: Options): CallOptions {
    return { timeout: this.#callTimeout, signal };
  }
}
