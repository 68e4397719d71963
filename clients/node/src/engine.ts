/**
 * What stands behind the jobs of a client. It looks at them when the server wants to hear of them, keeps one request in
 * flight, and repeats what was not acknowledged: sequences and chosen ids make that count once. Whatever the server
 * does, nothing here makes the worker wait unless it asks to.
 *
 * Its timers keep no process alive, and neither does a connection on which nothing is under way.
 */

import { Batch, type Sender } from "./batch.js";
import { isEnd, Wire } from "./calls.js";
import { Contact, inOneLine, type Logger } from "./contact.js";
import { type Course, Step } from "./course.js";
import { failed, fromGrpc, fromStatus, HeadwayError } from "./errors.js";
import type { Job } from "./gen/headway/v1/job.js";
import type { StreamProgressResponse } from "./gen/headway/v1/job_service.js";
import { chance } from "./ids.js";
import { type Listener, ReportStream } from "./stream.js";
import type { Target } from "./target.js";
import { judge, keepsOut, tooLarge, unsendable, Verdict } from "./verdict.js";

/** Milliseconds that the server has for an answer before the connection counts as broken. */
export const PATIENCE = 10_000;

const CALLS = 16;
const FIRST_PACE = 250;
const SHORTEST_PACE = 10;
const LONGEST_PACE = 30_000;
const LATE = 500;
// An open stream keeps the process alive. It is left open between reports that follow each other.
const RESTS_AFTER = 1_000;

export class Engine implements Listener {
  readonly target: Target;
  readonly contact: Contact;
  readonly log: Logger;
  /** Called when the server was heard of for the first time. */
  readonly #met: () => void;
  readonly #courses = new Set<Course>();
  readonly #calls = new Set<Step>();
  #wire: Wire | undefined;
  #stream: ReportStream | undefined;
  /** Sent and not acknowledged yet. */
  #batch: Batch | undefined;
  #ackBy = 0;
  #usedAt = 0;
  #pace = FIRST_PACE;
  #known = false;
  #timer: NodeJS.Timeout | undefined;
  #awake = false;
  #closed = false;

  constructor(target: Target, log: Logger, met: () => void) {
    this.target = target;
    this.log = log;
    this.contact = new Contact(target.address, log);
    this.#met = met;
  }

  /** Takes a course in charge and queues a step for it. */
  submit(course: Course, step?: Step): void {
    if (this.#closed) {
      if (step?.call && !course.error)
        this.log.warn(`headway: job ${course.job.id} is changed after its client was closed`);
      course.stop(course.error);
    }
    if (!course.over && !this.#courses.has(course)) {
      this.#courses.add(course);
      course.beatAt = performance.now() + this.#turn(course);
    }
    if (step) {
      course.addStep(step);
      if (this.contact.down) step.tried.resolve();
    }
    course.due = 0;
    this.#wake();
  }

  /**
   * Waits until all that these jobs have to say has been delivered, at most so many milliseconds. Returns those of which
   * something is left.
   */
  async linger(courses: Iterable<Course>, timeout: number): Promise<Course[]> {
    const waiting = [...courses].filter((course) => !course.over);
    const steps = waiting.map((course) => {
      const step = new Step({ afterReports: true });
      this.submit(course, step);
      return step;
    });
    this.contact.hurry(1, performance.now());
    this.#wake();
    await within(Promise.allSettled(steps.map((step) => step.answer.promise)), timeout);
    this.contact.hurry(-1, performance.now());
    return waiting.filter((_, index) => !steps[index]?.answer.done);
  }

  /** All that there is something to say of. */
  get jobs(): Course[] {
    return [...this.#courses].filter((course) => !course.over);
  }

  /** Nothing more is sent. */
  close(): void {
    this.#closed = true;
    this.#hangUp();
    clearTimeout(this.#timer);
    for (const course of this.#courses) course.stop();
    this.#courses.clear();
  }

  // What follows is called by the event loop.

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

  /** What should not happen stops nothing, the process least of all, and is not tried again at once. */
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
    else if (this.#stream) moments.push(this.#usedAt + RESTS_AFTER);
    if (this.contact.retryAt > now) {
      moments.push(this.contact.retryAt);
    } else {
      for (const course of this.#courses) {
        if (!this.#batch && course.reporting) moments.push(Math.max(course.due, course.retryAt));
        if (this.#calls.size < CALLS && course.nextStep) moments.push(course.retryAt);
      }
    }
    return moments.length > 0 ? Math.max(Math.min(...moments) - now, 0) : undefined;
  }

  #pump(now: number): void {
    if (this.#batch && now >= this.#ackBy) {
      // The worker has kept the event loop, and an answer may lie there unread.
      if (now > this.#ackBy + LATE) this.#ackBy = now + LATE;
      else this.#outage(failed("DEADLINE_EXCEEDED", "no answer"));
    }
    for (const course of this.#courses) {
      if (course.waits) this.#courses.delete(course);
      if (!course.over) continue;
      this.#courses.delete(course);
      if (course.error) course.letter?.refuse();
      else course.letter?.remove();
    }
    const rests = this.#courses.size === 0 || now >= this.#usedAt + RESTS_AFTER;
    if (!this.#batch && this.#stream && rests) {
      this.#stream.part();
      this.#stream = undefined;
    }
    if (now < this.contact.retryAt) return;
    if (!this.#batch) this.#report(now);
    for (const course of this.#courses) {
      if (this.#calls.size >= CALLS) break;
      const step = course.nextStep;
      if (step && course.retryAt <= now) this.#call(course, step);
    }
  }

  #open(): Wire {
    this.#wire ??= new Wire(this.target, { retry: false });
    return this.#wire;
  }

  #report(now: number): void {
    const batch = new Batch();
    const due = [...this.#courses].filter((course) => course.reporting && course.due <= now && course.retryAt <= now);
    batch.fill(due, now, (course) => this.#turn(course));
    for (const { course, reporter } of batch.oversized) {
      this.#refused(course, reporter, tooLarge());
      course.due = now;
    }
    for (const { course, fault } of batch.faults) this.#stop(course, failed("INTERNAL", String(fault)));
    if (batch.senders.length === 0) return;
    this.#stream ??= new ReportStream(this.#open(), this);
    this.#batch = batch;
    this.#ackBy = now + PATIENCE;
    this.#stream.send(batch.encode());
  }

  #turn(course: Course): number {
    return course.heartbeat > 0 ? Math.min(this.#pace, Math.max(course.heartbeat / 3, SHORTEST_PACE)) : this.#pace;
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
      for (const course of this.#courses) if (course.job.id === jobId) course.cancel(cancellation);
    }
    if (response.nextReportAfter) {
      const pace = Number(response.nextReportAfter.seconds) * 1000 + response.nextReportAfter.nanos / 1e6;
      this.#pace = Math.min(Math.max(pace, SHORTEST_PACE), LONGEST_PACE);
    }
    const batch = this.#batch;
    if (batch && response.acked >= stream.sent) {
      this.#batch = undefined;
      // What has to say no more than that it is there shall keep no process alive.
      if (batch.senders.some(({ reporter }) => reporter)) this.#usedAt = now;
      batch.senders.forEach((sender, position) => {
        this.#acked(sender, batch.failures.get(position), now);
      });
    }
  }

  #acked({ course, reporter }: Sender, error: HeadwayError | undefined, now: number): void {
    if (!error) {
      reporter?.settle();
    } else {
      const verdict = judge(error);
      if (verdict === Verdict.Gone) this.#stop(course, error);
      else if (verdict === Verdict.Refused) this.#refused(course, reporter, error);
      else this.#later(course, error, now);
    }
    const turn = now + this.#turn(course);
    course.beatAt = Math.min(course.beatAt, turn);
    course.due = course.urgent ? now : Math.min(course.due, turn);
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
    this.contact.heard();
    if (!this.#known) {
      this.#known = true;
      this.#met();
    }
  }

  #dropStream(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.close();
    for (const { course } of this.#batch?.senders ?? []) course.due = 0;
    this.#batch = undefined;
  }

  #call(course: Course, step: Step): void {
    const call = step.call;
    if (!call) {
      course.answered(step, undefined);
      this.#wake();
      return;
    }
    if (isEnd(call)) call.message.attempt = course.attempt;
    const fault = unsendable(call);
    if (fault) {
      this.#answer(course, step, fault);
      this.#wake();
      return;
    }
    course.calling = true;
    this.#calls.add(step);
    const wire = this.#open();
    const called = (answer: Job | HeadwayError) => {
      // A call that was broken off is not under way any more.
      if (wire !== this.#wire || !this.#calls.delete(step)) return;
      course.calling = false;
      this.#safely(() => this.#answer(course, step, answer));
      this.#wake();
    };
    wire.place(call, { timeout: PATIENCE }).then(called, (error) => called(fromGrpc(error)));
  }

  #answer(course: Course, step: Step, answer: Job | HeadwayError): void {
    if (!(answer instanceof HeadwayError)) {
      if (answer.id !== course.job.id) {
        this.#outage(failed("UNKNOWN", "an answer to something else"));
        return;
      }
      this.#heard();
      course.answered(step, answer);
      course.due = 0;
      course.beatAt = performance.now() + this.#turn(course);
      return;
    }
    const verdict = judge(answer);
    if (verdict === Verdict.Later) {
      this.#later(course, answer, performance.now());
      step.tried.resolve();
    } else if (verdict !== Verdict.Away || (keepsOut(answer) && step.call?.kind === "CreateJobRequest")) {
      this.#declined(course, step, answer);
    } else {
      this.#outage(answer);
    }
  }

  #declined(course: Course, step: Step, error: HeadwayError): void {
    const call = step.call;
    if (call?.kind === "FinishJobRequest" && call.message.results !== undefined && error.code === "INVALID_ARGUMENT") {
      this.#notice("the results of job % were refused, so it ends without", course, error);
      call.message.results = undefined;
    } else if (call?.kind === "UpdateJobRequest" && judge(error) !== Verdict.Gone) {
      this.#notice("a change of job % was refused", course, error);
      course.answered(step, undefined);
    } else {
      this.#stop(course, error);
    }
  }

  #stop(course: Course, error: HeadwayError): void {
    if (course.over) return;
    this.#notice("job % is no longer reported", course, error);
    course.stop(error);
  }

  #refused(course: Course, reporter: Sender["reporter"], error: HeadwayError): void {
    if (!reporter) {
      // Nothing in a heartbeat could be put right.
      this.#stop(course, error);
      return;
    }
    this.#notice("a report of job % was refused", course, error);
    reporter.refused(error);
  }

  #later(course: Course, error: HeadwayError, now: number): void {
    if (!course.retryAt) this.#notice("job % has to wait", course, error);
    course.retryAt = now + Math.min(Math.max(error.retryAfter || 1_000, 100), 60_000) * chance(1, 1.2);
  }

  #notice(text: string, course: Course, error: HeadwayError): void {
    this.log.warn(`headway: ${text.replace("%", () => course.job.id)}: ${inOneLine(error)}`);
  }

  #outage(error: HeadwayError): void {
    // Who says these is well, or gRPC connects anew by itself. After all else the connection is not believed: what went
    // wrong on it once, in its compressed headers for example, stays wrong for all later calls.
    if (error.code === "UNAVAILABLE" || error.code === "RESOURCE_EXHAUSTED") this.#dropStream();
    else this.#hangUp();
    this.contact.lost(error, performance.now());
    for (const course of this.#courses) course.giveUpWaiting();
  }

  /** Closes the connection, and with it all calls that are under way. */
  #hangUp(): void {
    this.#dropStream();
    this.#calls.clear();
    for (const course of this.#courses) course.calling = false;
    const wire = this.#wire;
    this.#wire = undefined;
    wire?.close();
  }
}

/** Waits for the promise, at most so many milliseconds; meanwhile the process stays alive. */
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
