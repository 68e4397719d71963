/** The connection: creates, reads and watches jobs. */

import { type CallOptions, Wire } from "./calls.js";
import { type Logger, toStandardError, unfailing } from "./connection-state.js";
import { Engine, within } from "./engine.js";
import { ErrorPolicy, policyFor } from "./error-policy.js";
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
import { CREATE_TIMEOUT, FIND_TIMEOUT, findOrCreate, hasReason, takeOver } from "./job-finder.js";
import { ENDED, JobState, PendingCall } from "./job-state.js";
import { duration, type JobView, type RecordFault, span, toView } from "./job-view.js";
import { type Deliverer, forget, remember } from "./process-end.js";
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
import { type Delivery, SpoolSender, spoolUndelivered } from "./spool-sender.js";
import { Target } from "./target.js";
import { clean, type Json } from "./values.js";

const EXIT_TIMEOUT = 10_000;
const CALL_TIMEOUT = 10_000;
const SPOOL_TIMEOUT = 1_000;

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
  /** Bounds how long (ms) the end of a job and of the client waits until everything is delivered; 10,000 by default. */
  exitTimeout?: number | undefined;
  /** Bounds how long (ms) a call waits for its answer; 10,000 by default. */
  callTimeout?: number | undefined;
  /** Receives warnings: the server is unreachable, or refuses something. By default they go to standard error. */
  logger?: Logger | undefined;
}

/** A change in a session: a new or newer job, or the id of one that was removed. */
export type Change = ({ job: JobView } | { removed: string }) & {
  /** Where to continue the watch after this change. */
  resumeToken: string;
};

/**
 * A connection to a Headway server. It sends nothing before it is used. InvalidError if the target or the token is
 * malformed, or the CA file cannot be read.
 */
export function connect(options: ConnectOptions = {}): Client {
  return new Client(options);
}

/**
 * A connection to one server. Calls that the caller waits for reject with HeadwayError: NotFoundError if the session
 * has no such job, InvalidError for a malformed request or without a session, UnavailableError if the server is
 * unreachable.
 */
export class Client implements AsyncDisposable, Deliverer {
  /** Bounds how long (ms) the end of a job and of the client waits until everything is delivered. */
  readonly exitTimeout: number;
  readonly #callTimeout: number;
  readonly #session: string | undefined;
  readonly #target: Target;
  readonly #log: Logger;
  readonly #engine: Engine;
  readonly #spoolSender: SpoolSender;
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
    this.#spoolSender = new SpoolSender(this.#target, this.#log);
    this.#engine = new Engine(this.#target, this.#log, () => {
      this.#post = this.#spoolSender.deliver().catch(() => {});
    });
  }

  /** `host:port` of the server. */
  get address(): string {
    return this.#target.address;
  }

  /**
   * Creates a job and begins to work on it.
   *
   * If the server does not answer, the client creates the job in the background, under the id that it has already.
   * `create` waits for that as long as a refused connection takes, or at most a second. With `key` or `continues` it
   * waits at most 5 s, and then begins a new job; if an unfinished job has the key, the new job is created without it.
   * Rejects if the server refuses at once: InvalidError, ALREADY_EXISTS, UNAUTHENTICATED, PERMISSION_DENIED; with
   * `continues` NotFoundError or StateError.
   */
  async create(name = "", options: CreateOptions = {}): Promise<Job> {
    const session = this.#in(options.session);
    const message = createRequest(session, name, options);
    const mayHaveBegun = message.key !== "" || message.continues !== "";
    const end = performance.now() + (mayHaveBegun ? FIND_TIMEOUT : CREATE_TIMEOUT);
    if (options.jobId) await this.#catchUp(message.jobId, CREATE_TIMEOUT);
    if (mayHaveBegun) {
      // Send the whole spool: only the server can tell which job has the key.
      await this.#catchUp(undefined, FIND_TIMEOUT);
      try {
        return await this.#attach(session, await findOrCreate(this.#open(), message, this.#limits({})));
      } catch (error) {
        if (!(error instanceof HeadwayError) || [ErrorPolicy.Stop, ErrorPolicy.Drop].includes(policyFor(error)))
          throw error;
        // The server did not answer in time. The worker begins, and its work becomes a job of its own.
        message.keyIfFree = true;
      }
    }
    const jobState = new JobState(session, described(message), {
      heartbeat: message.pending ? -1 : span(message.heartbeatTimeout),
      started: false,
    });
    const job = this.#work(jobState);
    const pendingCall = new PendingCall({ call: { kind: "CreateJobRequest", message } });
    jobState.partState.woken = undefined;
    this.#engine.submit(jobState, pendingCall);
    await within(pendingCall.tried.promise, Math.max(end - performance.now(), 0));
    if (pendingCall.answer.done) await pendingCall.answer.promise;
    return job;
  }

  /** Creates a job and works on it; see `create` and `Job.run`. */
  async run<T>(name: string, options: CreateOptions, work: (job: Job) => T | PromiseLike<T>): Promise<T> {
    return await (await this.create(name, options)).run(work);
  }

  /**
   * Takes a job over from a worker that is gone, or starts a PENDING one. The server refuses further reports of the
   * former worker. If the job has ended, a new job continues it, as `create` with `continues`. If it was continued
   * already, this takes the last job of that chain. Progress continues from where it was, and `get` reads the variables
   * (the checkpoint).
   *
   * NotFoundError; UnavailableError if the server is unreachable.
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

  /** Begins the work on a job that the server has given to this worker. */
  async #attach(session: string, state: JobMessage, options: Options = {}): Promise<Job> {
    const pending = state.status === JobStatus.PENDING;
    const heartbeat = pending ? -1 : span(state.heartbeatTimeout);
    const jobState = new JobState(session, state, { heartbeat, started: !pending });
    jobState.describe(state);
    const job = this.#work(jobState).adopt(await this.variables(state.id, [], { ...options, session }), undefined);
    if (!pending) jobState.partState.touch();
    return job;
  }

  /**
   * A job to read it, to change it, or to report a `part` of it; undefined if it is not in this session.
   *
   * It sends no heartbeats. Its values are those of this moment: `refresh` renews them. A process that reports parts of
   * many jobs takes each with `await using`, which releases it at the end of the block.
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
    const jobState = new JobState(session, state, { heartbeat: -1, started: state.status !== JobStatus.PENDING });
    jobState.describe(state);
    const results = state.status === JobStatus.COMPLETED ? await this.results(jobId, options) : undefined;
    return this.#work(jobState).adopt({}, results);
  }

  /** The job's current state. */
  async get(jobId: string, options: Options = {}): Promise<JobView> {
    return toView(await this.message(jobId, options));
  }

  /** The jobs of the session that match all filters, newest first, fetched page by page. */
  async *list(options: ListOptions = {}): AsyncGenerator<JobView, void, undefined> {
    const request = listRequest(this.#in(options.session), options);
    do {
      const page = await this.#open().unary(service.listJobs, request, this.#limits(options));
      for (const job of page.jobs) yield toView(job);
      request.pageToken = page.nextPageToken;
    } while (request.pageToken);
  }

  /**
   * The job's current state, then each newer state, until it has ended. After a broken connection it continues where it
   * stopped, for as long as it takes. `afterRevision`: only newer states, but always the final one.
   *
   * NotFoundError, also if the job is cleared meanwhile.
   */
  async *watch(
    jobId: string,
    options: FollowOptions & { afterRevision?: number | undefined } = {},
  ): AsyncGenerator<JobView, void, undefined> {
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
          yield toView(job);
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
   * The current jobs of the session, then each change. It never ends, and reconnects after broken connections.
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
          const what = change.job ? { job: toView(change.job) } : { removed: change.removedJobId ?? "" };
          yield { ...what, resumeToken: change.resumeToken };
        }
      } catch (error) {
        options.signal?.throwIfAborted();
        this.#open();
        await deadline.pause(fromGrpc(error), options);
      }
    }
  }

  /** Waits until the job has ended, and returns its final state. */
  async wait(jobId: string, options: FollowOptions = {}): Promise<JobView> {
    let last: JobView | undefined;
    for await (const state of this.watch(jobId, options)) last = state;
    if (!last) throw failed("UNKNOWN", "The watch ended before the job.");
    return last;
  }

  /** The job's results; undefined unless it is COMPLETED with results. */
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
   * Asks the job's worker to end early. The server ends the job after `grace` milliseconds (60,000 by default; 0 = at
   * once). StateError if it has ended otherwise.
   */
  async cancel(
    jobId: string,
    options: Options & { reason?: string | undefined; grace?: number | undefined } = {},
  ): Promise<JobView> {
    const request = CancelJobRequest.fromPartial({
      sessionId: this.#in(options.session),
      jobId,
      reason: clean(options.reason ?? "", 1024),
      gracePeriod: options.grace === undefined ? undefined : duration(options.grace),
    });
    return toView(await this.#open().unary(service.cancelJob, request, this.#limits(options)));
  }

  /** Removes the job with its variables, results and record errors. A missing job is no error. */
  async clear(jobId: string, options: Options = {}): Promise<void> {
    const request = ClearJobRequest.fromPartial({ sessionId: this.#in(options.session), jobId, allowMissing: true });
    await this.#open().unary(service.clearJob, request, this.#limits(options));
  }

  /** Sends to this server what earlier processes could not deliver. The client also does that at its first answer. */
  async flushSpool(): Promise<Delivery> {
    return await new SpoolSender(this.#target, this.#log).deliver();
  }

  /**
   * Waits until everything is delivered, at most `exitTimeout`, then saves the rest in the spool, for the next run.
   * Jobs that have not ended stay as they are. A process that ends without `close` does the same by itself.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal */
  spool(): void {
    this.#spoolUndelivered(this.#engine.jobs, "the process ends before all is delivered");
  }

  /** @internal */
  async message(jobId: string, options: Options): Promise<JobMessage> {
    const request = GetJobRequest.fromPartial({ sessionId: this.#in(options.session), jobId });
    return await this.#open().unary(service.getJob, request, this.#limits(options));
  }

  async #close(): Promise<void> {
    const late = await this.#engine.waitDelivered(this.#engine.jobs, this.exitTimeout);
    await within(this.#post, Math.min(SPOOL_TIMEOUT, this.exitTimeout));
    this.#spoolSender.stop();
    this.#spoolUndelivered(late, `${this.address} has not answered in time`);
    this.#engine.close();
    // Release the spool files: other processes may take them, and so may this one.
    for (const { file } of late) file?.release();
    this.#reads?.close();
    forget(this);
  }

  #spoolUndelivered(jobs: Iterable<JobState>, why: string): void {
    for (const [{ job }, place] of spoolUndelivered(jobs, this.#target, this.#log)) {
      const where = place && ` yet, and is saved in ${place} until \`headway flush\` or the next run sends it`;
      this.#log.warn(`headway: ${why}; the last state of job ${job.id} is not delivered${where}`);
    }
  }

  #work(jobState: JobState): Job {
    remember(this);
    return new Job(this, this.#engine, jobState);
  }

  async #catchUp(jobId: string | undefined, timeout: number): Promise<void> {
    const spoolSender = new SpoolSender(this.#target, this.#log);
    await within(
      spoolSender.deliver(jobId).catch(() => {}),
      timeout,
    );
    spoolSender.stop();
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
