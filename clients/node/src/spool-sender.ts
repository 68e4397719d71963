/** Saves in the spool what this process could not deliver, and sends what earlier processes left there. */

import { existsSync } from "node:fs";
import { type Call, isEnd, type SpoolRequest, Wire } from "./calls.js";
import { inOneLine, type Logger } from "./connection-state.js";
import { ErrorPolicy, policyFor } from "./error-policy.js";
import { fromGrpc, HeadwayError } from "./errors.js";
import { JobServiceService as service } from "./gen/headway/v1/job_service.js";
import type { JobState } from "./job-state.js";
import { lighten } from "./reporter.js";
import * as spool from "./spool.js";
import type { Target } from "./target.js";

const ANSWER_TIMEOUT = 10_000;

/** Counts what happened to the spool files for a server. */
export interface Delivery {
  /** Stored by the server. */
  sent: number;
  /** Set aside, since the server will never accept them. */
  refused: number;
  /** Still there, since the server does not answer. */
  waiting: number;
}

/**
 * Saves what these jobs have left to send. The result has an entry for each job with something left: the path of its
 * file, or "" if it cannot be saved. One warning says why, however many jobs there are.
 */
export function spoolUndelivered(jobs: Iterable<JobState>, target: Target, log: Logger): Map<JobState, string> {
  const left = new Map<JobState, string>();
  let fault: unknown;
  for (const jobState of jobs) {
    try {
      const requests = jobState.over ? [] : jobState.undelivered();
      if (requests.length === 0) continue;
      left.set(jobState, "");
      if (spool.folder() === undefined) continue;
      const { id: jobId, name } = jobState.job;
      jobState.file = spool.write({ address: target.address, tls: target.tls, jobId, name, requests }, jobState.file);
      left.set(jobState, jobState.file.path);
    } catch (error) {
      fault = error;
    }
  }
  if (fault) log.warn(`headway: undelivered reports cannot be saved: ${(fault as Error).message}`);
  return left;
}

/** Sends the spool files for one server, one after the other, over a channel of its own. */
export class SpoolSender {
  readonly #target: Target;
  readonly #log: Logger;
  #wire: Wire | undefined;
  #stopped = false;

  constructor(target: Target, log: Logger) {
    this.#target = target;
    this.#log = log;
  }

  /**
   * Sends the files that wait for this server, or those of one job. If the server does not answer, the rest stays for
   * later.
   */
  async deliver(jobId?: string): Promise<Delivery> {
    const delivery: Delivery = { sent: 0, refused: 0, waiting: 0 };
    const files = spool.waitingFiles(this.#target, jobId);
    if (files.length === 0) return delivery;
    this.#wire = new Wire(this.#target, { retry: false });
    try {
      let answers = true;
      const held = new Set<string>();
      for (const file of files) {
        const job = spool.jobInName(file);
        const claimed = answers && !this.#stopped && !held.has(job) ? spool.SpoolFile.claim(file) : undefined;
        if (claimed) {
          const outcome = await this.#bring(claimed.file, claimed.text);
          delivery[outcome] += 1;
          answers = outcome !== "waiting";
        } else if (existsSync(file)) {
          // Another process has it, or it belongs to another user. Later files of the same job wait for it, others do
          // not.
          held.add(job);
          delivery.waiting += 1;
        }
      }
    } finally {
      this.#wire.close();
    }
    return delivery;
  }

  /** Stops. */
  stop(): void {
    this.#stopped = true;
    this.#wire?.close();
  }

  async #bring(file: spool.SpoolFile, text: string): Promise<keyof Delivery> {
    try {
      const { jobId, requests } = spool.fromFile(text);
      await this.#send(requests);
      this.#log.info(`headway: the spool file of job ${jobId} is delivered`);
      file.remove();
      return "sent";
    } catch (error) {
      const policy = error instanceof HeadwayError ? policyFor(error) : ErrorPolicy.Drop;
      if (policy !== ErrorPolicy.Stop && policy !== ErrorPolicy.Drop) return "waiting";
      const reason = error instanceof HeadwayError ? inOneLine(error) : (error as Error).message;
      this.#log.warn(
        `headway: the server refused what an earlier process left for a job, see ${file.refuse()}: ${reason}`,
      );
      return "refused";
    } finally {
      file.release();
    }
  }

  /** Makes these calls in order. HeadwayError if an essential call fails. */
  async #send(requests: SpoolRequest[]): Promise<void> {
    let ended: HeadwayError | undefined;
    for (const request of requests) {
      try {
        await this.#call(request);
        if (isEnd(request)) ended = undefined;
      } catch (error) {
        // If the end arrived and only its answer was lost, everything before it arrived too. Repeating the end tells.
        const reason = fromGrpc(error);
        if (isEnd(request) || reason.reason !== "JOB_ENDED") throw reason;
        ended = reason;
      }
    }
    if (ended) throw ended;
  }

  async #call(request: SpoolRequest): Promise<void> {
    try {
      await this.#callOnce(request);
    } catch (error) {
      // As in the engine: a refused part of a job must not hold back the rest.
      const refusal = fromGrpc(error);
      if (policyFor(refusal) !== ErrorPolicy.Drop) throw error;
      if (request.kind === "ReportProgressRequest") {
        if (lighten(request.message, refusal.fields)) await this.#call(request);
      } else if (request.kind === "FinishJobRequest" && request.message.results !== undefined) {
        request.message.results = undefined;
        await this.#callOnce(request);
      } else if (request.kind !== "UpdateJobRequest") {
        throw error;
      }
    }
  }

  async #callOnce(request: SpoolRequest): Promise<void> {
    const wire = this.#wire as Wire;
    if (request.kind === "ReportProgressRequest") {
      await wire.unary(service.reportProgress, request.message, { timeout: ANSWER_TIMEOUT });
    } else {
      await wire.place(request as Call, { timeout: ANSWER_TIMEOUT });
    }
  }
}
