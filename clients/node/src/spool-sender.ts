/** Leaves in the spool what this process could not deliver, and sends what earlier ones left. */

import { existsSync } from "node:fs";
import { type Call, isEnd, Wire, type Word } from "./calls.js";
import { inOneLine, type Logger } from "./contact.js";
import type { Course } from "./course.js";
import { fromGrpc, HeadwayError } from "./errors.js";
import { JobServiceService as service } from "./gen/headway/v1/job_service.js";
import { lighten } from "./report.js";
import * as spool from "./spool.js";
import type { Target } from "./target.js";
import { judge, Verdict } from "./verdict.js";

const PATIENCE = 10_000;

/** What became of the letters for a server: how many of them. */
export interface Delivery {
  /** Arrived. */
  sent: number;
  /** Put aside, since the server will never take them. */
  refused: number;
  /** Still there, since the server does not answer. */
  waiting: number;
}

/**
 * Writes what these jobs have left to say. For each that has something left: where it is, or "" if it cannot be
 * written. One warning says why, however many jobs there are.
 */
export function writeDown(courses: Iterable<Course>, target: Target, log: Logger): Map<Course, string> {
  const left = new Map<Course, string>();
  let fault: unknown;
  for (const course of courses) {
    try {
      const words = course.over ? [] : course.remains();
      if (words.length === 0) continue;
      left.set(course, "");
      if (spool.folder() === undefined) continue;
      const { id: jobId, name } = course.job;
      course.letter = spool.write({ address: target.address, tls: target.tls, jobId, name, words }, course.letter);
      left.set(course, course.letter.path);
    } catch (error) {
      fault = error;
    }
  }
  if (fault) log.warn(`headway: what is left to say cannot be written down: ${(fault as Error).message}`);
  return left;
}

/** Goes through the letters for one server, one after the other, over a channel of its own. */
export class Postman {
  readonly #target: Target;
  readonly #log: Logger;
  #wire: Wire | undefined;
  #stopped = false;

  constructor(target: Target, log: Logger) {
    this.#target = target;
    this.#log = log;
  }

  /**
   * Sends what waits for this server, or what there is of one job. If the server does not answer, the rest stays for
   * a later time.
   */
  async deliver(jobId?: string): Promise<Delivery> {
    const delivery: Delivery = { sent: 0, refused: 0, waiting: 0 };
    const files = spool.letters(this.#target, jobId);
    if (files.length === 0) return delivery;
    this.#wire = new Wire(this.#target, { retry: false });
    try {
      let answers = true;
      const held = new Set<string>();
      for (const file of files) {
        const job = spool.jobIn(file);
        const claimed = answers && !this.#stopped && !held.has(job) ? spool.Letter.claim(file) : undefined;
        if (claimed) {
          const outcome = await this.#bring(claimed.letter, claimed.text);
          delivery[outcome] += 1;
          answers = outcome !== "waiting";
        } else if (existsSync(file)) {
          // It is in other hands, or none of ours: what comes after it of the same job waits for it, all else does not.
          held.add(job);
          delivery.waiting += 1;
        }
      }
    } finally {
      this.#wire.close();
    }
    return delivery;
  }

  /** Breaks off. */
  stop(): void {
    this.#stopped = true;
    this.#wire?.close();
  }

  async #bring(letter: spool.Letter, text: string): Promise<keyof Delivery> {
    try {
      const { jobId, words } = spool.fromFile(text);
      await this.#send(words);
      this.#log.info(`headway: what was left to say of job ${jobId} is delivered`);
      letter.remove();
      return "sent";
    } catch (error) {
      const verdict = error instanceof HeadwayError ? judge(error) : Verdict.Refused;
      if (verdict !== Verdict.Gone && verdict !== Verdict.Refused) return "waiting";
      const reason = error instanceof HeadwayError ? inOneLine(error) : (error as Error).message;
      this.#log.warn(`headway: what was left to say of a job is refused, see ${letter.refuse()}: ${reason}`);
      return "refused";
    } finally {
      letter.release();
    }
  }

  /** Makes these calls in order. HeadwayError if one fails that matters. */
  async #send(words: Word[]): Promise<void> {
    let ended: HeadwayError | undefined;
    for (const word of words) {
      try {
        await this.#call(word);
        if (isEnd(word)) ended = undefined;
      } catch (error) {
        // If the end did arrive, and only its answer did not, then so did all before it: its repeat tells.
        const reason = fromGrpc(error);
        if (isEnd(word) || reason.reason !== "JOB_ENDED") throw reason;
        ended = reason;
      }
    }
    if (ended) throw ended;
  }

  async #call(word: Word): Promise<void> {
    try {
      await this.#callOnce(word);
    } catch (error) {
      // As the engine does: what is refused of a job must not keep the rest of it back.
      const refusal = fromGrpc(error);
      if (judge(refusal) !== Verdict.Refused) throw error;
      if (word.kind === "ReportProgressRequest") {
        if (lighten(word.message, refusal.fields)) await this.#call(word);
      } else if (word.kind === "FinishJobRequest" && word.message.results !== undefined) {
        word.message.results = undefined;
        await this.#callOnce(word);
      } else if (word.kind !== "UpdateJobRequest") {
        throw error;
      }
    }
  }

  async #callOnce(word: Word): Promise<void> {
    const wire = this.#wire as Wire;
    if (word.kind === "ReportProgressRequest") {
      await wire.unary(service.reportProgress, word.message, { timeout: PATIENCE });
    } else {
      await wire.place(word as Call, { timeout: PATIENCE });
    }
  }
}
