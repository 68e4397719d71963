/**
 * The part of the client that works in the background for all jobs. It samples them when the server wants a report,
 * keeps one request in flight, and repeats what was not acknowledged. Sequence numbers and ids chosen by the client
 * make repeats count once. Whatever the server does, nothing here makes the worker wait unless it asks to.
 *
 * Its timers keep no process alive, and neither does an idle connection.
 */

import { Batch, type Sender } from "./batch.js";
import { isEnd, Wire } from "./calls.js";
import { ConnectionState, inOneLine, type Logger } from "./connection-state.js";
import { deniesAccess, ErrorPolicy, policyFor, tooLarge, unsendable } from "./error-policy.js";
import { failed, fromGrpc, fromStatus, HeadwayError } from "./errors.js";
import type { Job } from "./gen/headway/v1/job.js";
import type { StreamProgressResponse } from "./gen/headway/v1/job_service.js";
import { chance } from "./ids.js";
import { type JobState, PendingCall } from "./job-state.js";
import { type Listener, ReportStream } from "./report-stream.js";
import type { Target } from "./target.js";

/** Bounds how long (ms) the engine waits for an answer before the connection counts as broken. */
export const ANSWER_TIMEOUT = 10_000;

const MAX_CALLS_IN_FLIGHT = 16;
const DEFAULT_REPORT_INTERVAL = 250;
const MIN_REPORT_INTERVAL = 10;
const MAX_REPORT_INTERVAL = 30_000;
const BLOCKED_LOOP_GRACE = 500;
// An open stream keeps the process alive. It stays open between reports that soon follow each other.
const STREAM_IDLE_TIMEOUT = 1_000;

export class Engine implements Listener {
  readonly target: Target;
  readonly connectionState: ConnectionState;
  readonly log: Logger;
  /** Called at the first answer of the server. */
  readonly #met: () => void;
  readonly #jobs = new Set<JobState>();
  readonly #calls = new Set<PendingCall>();
  #wire: Wire | undefined;
  #stream: ReportStream | undefined;
  /** Sent, and not acknowledged yet. */
  #batch: Batch | undefined;
  #ackBy = 0;
  #usedAt = 0;
  #reportInterval = DEFAULT_REPORT_INTERVAL;
  #known = false;
  #timer: NodeJS.Timeout | undefined;
  #awake = false;
  #closed = false;

  constructor(target: Target, log: Logger, met: () => void) {
    this.target = target;
    this.log = log;
    this.connectionState = new ConnectionState(target.address, log);
    this.#met = met;
  }

  /** Takes charge of a job and queues a call for it. */
  submit(jobState: JobState, pendingCall?: PendingCall): void {
    if (this.#closed) {
      if (pendingCall?.call && !jobState.error)
        this.log.warn(`headway: job ${jobState.job.id} is changed after its client was closed`);
      jobState.stop(jobState.error);
    }
    if (!jobState.over && !this.#jobs.has(jobState)) {
      this.#jobs.add(jobState);
      jobState.beatAt = performance.now() + this.#turn(jobState);
    }
    if (pendingCall) {
      jobState.addCall(pendingCall);
      if (this.connectionState.down) pendingCall.tried.resolve();
    }
    jobState.due = 0;
    this.#wake();
  }

  /**
   * Waits until everything of these jobs is delivered, at most so many milliseconds. Returns the jobs that have
   * something left.
   */
  async waitDelivered(jobs: Iterable<JobState>, timeout: number): Promise<JobState[]> {
    const waiting = [...jobs].filter((jobState) => !jobState.over);
    const pendingCalls = waiting.map((jobState) => {
      const pendingCall = new PendingCall({ afterReports: true });
      this.submit(jobState, pendingCall);
      return pendingCall;
    });
    this.connectionState.addWaiting(1, performance.now());
    this.#wake();
    await within(Promise.allSettled(pendingCalls.map((pendingCall) => pendingCall.answer.promise)), timeout);
    this.connectionState.addWaiting(-1, performance.now());
    return waiting.filter((_, index) => !pendingCalls[index]?.answer.done);
  }

  /** The jobs that may have something to send. */
  get jobs(): JobState[] {
    return [...this.#jobs].filter((jobState) => !jobState.over);
  }

  /** Nothing more is sent. */
  close(): void {
    this.#closed = true;
    this.#disconnect();
    clearTimeout(this.#timer);
    for (const jobState of this.#jobs) jobState.stop();
    this.#jobs.clear();
  }

  // The event loop calls what follows.

  #wake(): void {
    if (this.#awake) return;
    this.#awake = true;
    queueMicrotask(() => {
      this.#awake = false;
      this.#run();
    });
  }

  #run(): void {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#safely(() => this.#pump(performance.now()));
    const wait = this.#idleFor(performance.now());
    // A timer may fire up to a millisecond early.
    if (wait !== undefined) this.#timer = setTimeout(() => this.#run(), Math.ceil(wait) + 1).unref();
  }

  /**
   * A fault of the client stops nothing, least of all the process. It counts as an outage, so that it is not repeated
   * at once.
   */
  #safely(action: () => void): void {
    try {
      action();
    } catch (fault) {
      this.#outage(failed("UNKNOWN", String(fault)));
    }
  }

  #idleFor(now: number): number | undefined {
    const moments: number[] = [];
    if (this.#batch) moments.push(this.#ackBy);
    else if (this.#stream) moments.push(this.#usedAt + STREAM_IDLE_TIMEOUT);
    if (this.connectionState.retryAt > now) {
      moments.push(this.connectionState.retryAt);
    } else {
      for (const jobState of this.#jobs) {
        if (!this.#batch && jobState.reporting) moments.push(Math.max(jobState.due, jobState.retryAt));
        if (this.#calls.size < MAX_CALLS_IN_FLIGHT && jobState.nextCall) moments.push(jobState.retryAt);
      }
    }
    return moments.length > 0 ? Math.max(Math.min(...moments) - now, 0) : undefined;
  }

  #pump(now: number): void {
    if (this.#batch && now >= this.#ackBy) {
      // The worker has blocked the event loop, and an answer may have arrived unread.
      if (now > this.#ackBy + BLOCKED_LOOP_GRACE) this.#ackBy = now + BLOCKED_LOOP_GRACE;
      else this.#outage(failed("DEADLINE_EXCEEDED", "no answer"));
    }
    for (const jobState of this.#jobs) {
      if (jobState.waits) this.#jobs.delete(jobState);
      if (!jobState.over) continue;
      this.#jobs.delete(jobState);
      if (jobState.error) jobState.file?.refuse();
      else jobState.file?.remove();
    }
    const rests = this.#jobs.size === 0 || now >= this.#usedAt + STREAM_IDLE_TIMEOUT;
    if (!this.#batch && this.#stream && rests) {
      this.#stream.part();
      this.#stream = undefined;
    }
    if (now < this.connectionState.retryAt) return;
    if (!this.#batch) this.#report(now);
    for (const jobState of this.#jobs) {
      if (this.#calls.size >= MAX_CALLS_IN_FLIGHT) break;
      const pendingCall = jobState.nextCall;
      if (pendingCall && jobState.retryAt <= now) this.#call(jobState, pendingCall);
    }
  }

  #open(): Wire {
    this.#wire ??= new Wire(this.target, { retry: false });
    return this.#wire;
  }

  #report(now: number): void {
    const batch = new Batch();
    const due = [...this.#jobs].filter(
      (jobState) => jobState.reporting && jobState.due <= now && jobState.retryAt <= now,
    );
    batch.fill(due, now, (jobState) => this.#turn(jobState));
    for (const { jobState, reporter } of batch.oversized) {
      this.#refused(jobState, reporter, tooLarge());
      jobState.due = now;
    }
    for (const { jobState, fault } of batch.faults) this.#stop(jobState, failed("INTERNAL", String(fault)));
    if (batch.senders.length === 0) return;
    this.#stream ??= new ReportStream(this.#open(), this);
    this.#batch = batch;
    this.#ackBy = now + ANSWER_TIMEOUT;
    this.#stream.send(batch.encode());
  }

  #turn(jobState: JobState): number {
    return jobState.heartbeat > 0
      ? Math.min(this.#reportInterval, Math.max(jobState.heartbeat / 3, MIN_REPORT_INTERVAL))
      : this.#reportInterval;
  }

  answered(stream: ReportStream, response: StreamProgressResponse): void {
    if (stream === this.#stream) this.#safely(() => this.#arrived(stream, response, performance.now()));
    this.#wake();
  }

  #arrived(stream: ReportStream, response: StreamProgressResponse, now: number): void {
    this.#heard();
    for (const { request, report, status } of response.failures) {
      if (status && Number(request) === stream.sent - 1) this.#batch?.failures.set(report, fromStatus(status));
    }
    for (const { jobId, cancellation } of response.cancellations) {
      if (!cancellation) continue;
      for (const jobState of this.#jobs) if (jobState.job.id === jobId) jobState.cancel(cancellation);
    }
    if (response.nextReportAfter) {
      const asked = Number(response.nextReportAfter.seconds) * 1000 + response.nextReportAfter.nanos / 1e6;
      this.#reportInterval = Math.min(Math.max(asked, MIN_REPORT_INTERVAL), MAX_REPORT_INTERVAL);
    }
    const batch = this.#batch;
    if (batch && response.acked >= stream.sent) {
      this.#batch = undefined;
      // A job with nothing but heartbeats must not keep the process alive.
      if (batch.senders.some(({ reporter }) => reporter)) this.#usedAt = now;
      batch.senders.forEach((sender, position) => {
        this.#acked(sender, batch.failures.get(position), now);
      });
    }
  }

  #acked({ jobState, reporter }: Sender, error: HeadwayError | undefined, now: number): void {
    if (!error) {
      reporter?.settle();
    } else {
      const policy = policyFor(error);
      if (policy === ErrorPolicy.Stop) this.#stop(jobState, error);
      else if (policy === ErrorPolicy.Drop) this.#refused(jobState, reporter, error);
      else this.#retryLater(jobState, error, now);
    }
    const turn = now + this.#turn(jobState);
    jobState.beatAt = Math.min(jobState.beatAt, turn);
    jobState.due = jobState.urgent ? now : Math.min(jobState.due, turn);
  }

  ended(stream: ReportStream, error: HeadwayError | undefined): void {
    if (stream !== this.#stream) return;
    const unanswered = this.#batch !== undefined;
    this.#dropStream();
    if (unanswered && error?.reason !== "STREAM_EXPIRED") {
      this.#outage(error ?? failed("UNAVAILABLE", "the stream ended"));
    }
    this.#wake();
  }

  #heard(): void {
    this.connectionState.answered();
    if (!this.#known) {
      this.#known = true;
      this.#met();
    }
  }

  #dropStream(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.close();
    for (const { jobState } of this.#batch?.senders ?? []) jobState.due = 0;
    this.#batch = undefined;
  }

  #call(jobState: JobState, pendingCall: PendingCall): void {
    const call = pendingCall.call;
    if (!call) {
      jobState.answered(pendingCall, undefined);
      this.#wake();
      return;
    }
    if (isEnd(call)) call.message.attempt = jobState.attempt;
    const fault = unsendable(call);
    if (fault) {
      this.#answer(jobState, pendingCall, fault);
      this.#wake();
      return;
    }
    jobState.calling = true;
    this.#calls.add(pendingCall);
    const wire = this.#open();
    const called = (answer: Job | HeadwayError) => {
      // A cancelled call is not in flight any more.
      if (wire !== this.#wire || !this.#calls.delete(pendingCall)) return;
      jobState.calling = false;
      this.#safely(() => this.#answer(jobState, pendingCall, answer));
      this.#wake();
    };
    wire.place(call, { timeout: ANSWER_TIMEOUT }).then(called, (error) => called(fromGrpc(error)));
  }

  #answer(jobState: JobState, pendingCall: PendingCall, answer: Job | HeadwayError): void {
    if (!(answer instanceof HeadwayError)) {
      if (answer.id !== jobState.job.id) {
        this.#outage(failed("UNKNOWN", "an answer to something else"));
        return;
      }
      this.#heard();
      jobState.answered(pendingCall, answer);
      jobState.due = 0;
      jobState.beatAt = performance.now() + this.#turn(jobState);
      return;
    }
    const policy = policyFor(answer);
    if (policy === ErrorPolicy.Retry) {
      this.#retryLater(jobState, answer, performance.now());
      pendingCall.tried.resolve();
    } else if (
      policy !== ErrorPolicy.Reconnect ||
      (deniesAccess(answer) && pendingCall.call?.kind === "CreateJobRequest")
    ) {
      this.#declined(jobState, pendingCall, answer);
    } else {
      this.#outage(answer);
    }
  }

  #declined(jobState: JobState, pendingCall: PendingCall, error: HeadwayError): void {
    const call = pendingCall.call;
    if (call?.kind === "FinishJobRequest" && call.message.results !== undefined && error.code === "INVALID_ARGUMENT") {
      this.#warn("the results of job % were refused, so it ends without", jobState, error);
      call.message.results = undefined;
    } else if (call?.kind === "UpdateJobRequest" && policyFor(error) !== ErrorPolicy.Stop) {
      this.#warn("a change of job % was refused", jobState, error);
      jobState.answered(pendingCall, undefined);
    } else {
      this.#stop(jobState, error);
    }
  }

  #stop(jobState: JobState, error: HeadwayError): void {
    if (jobState.over) return;
    this.#warn("job % is no longer reported", jobState, error);
    jobState.stop(error);
  }

  #refused(jobState: JobState, reporter: Sender["reporter"], error: HeadwayError): void {
    if (!reporter) {
      // A heartbeat has nothing that could be left out.
      this.#stop(jobState, error);
      return;
    }
    this.#warn("a report of job % was refused", jobState, error);
    reporter.refused(error);
  }

  #retryLater(jobState: JobState, error: HeadwayError, now: number): void {
    if (!jobState.retryAt) this.#warn("job % has to wait", jobState, error);
    jobState.retryAt = now + Math.min(Math.max(error.retryAfter || 1_000, 100), 60_000) * chance(1, 1.2);
  }

  #warn(text: string, jobState: JobState, error: HeadwayError): void {
    this.log.warn(`headway: ${text.replace("%", () => jobState.job.id)}: ${inOneLine(error)}`);
  }

  #outage(error: HeadwayError): void {
    // A server that says these is healthy, or gRPC reconnects by itself. After any other error the connection is not
    // trusted: a fault on it, in its compressed headers for example, may stay for all later calls.
    if (error.code === "UNAVAILABLE" || error.code === "RESOURCE_EXHAUSTED") this.#dropStream();
    else this.#disconnect();
    this.connectionState.failed(error, performance.now());
    for (const jobState of this.#jobs) jobState.giveUpWaiting();
  }

  /** Closes the connection, and with it all calls in flight. */
  #disconnect(): void {
    this.#dropStream();
    this.#calls.clear();
    for (const jobState of this.#jobs) jobState.calling = false;
    const wire = this.#wire;
    this.#wire = undefined;
    wire?.close();
  }
}

/** Waits for the promise, at most so many milliseconds. Meanwhile the process stays alive. */
export async function within(promise: Promise<unknown>, timeout: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, Math.min(timeout, 2 ** 31 - 1));
  });
  try {
    await Promise.race([promise, over]);
  } finally {
    clearTimeout(timer);
  }
}
