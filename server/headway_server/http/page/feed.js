// One stream for each page with every change of a session's jobs. It resumes where it was interrupted.

import { CallError, stream } from "./connect.js";
import { readJob } from "./jobs.js";

/** @typedef {import("./connect.js").Caller} Caller */

/**
 * @typedef {object} Listener
 * @property {(job: import("./jobs.js").Job) => void} job the present state of a job
 * @property {(id: string) => void} removed the job was removed
 * @property {() => void} anew earlier jobs no longer count: all jobs are sent again
 * @property {(silent: number) => void} interrupted the connection is lost; nothing has arrived for `silent` ms
 * @property {(response: Response) => void} opened the server has answered
 * @property {() => void} live the jobs are up to date
 * @property {(error: CallError) => void} unreachable the server does not answer; the feed tries again
 * @property {(error: CallError) => void} refused the server refuses this caller; the feed does not try again
 */

const FIRST_RETRY_DELAY = 200; // ms
const LONGEST_RETRY_DELAY = 5000;
/** A stream without an error counts as live after this time (ms), even if nothing has changed. */
const LIVE_DELAY = 1000;
/** A dead connection looks like a session without changes. After this time (ms) without a message it is opened again. */
const IDLE_TIMEOUT = 60_000;
/** A browser has six connections to a server for all tabs. A hidden tab closes its connection after this time (ms). */
const HIDDEN_TIMEOUT = 60_000;

const CHECK_INTERVAL = 5000;
const OPEN_TIMEOUT = 10_000;
/** Why a stream is closed that may still work. */
const RELEASED = "let go";

const FINAL = ["unauthenticated", "permission_denied", "invalid_argument", "unimplemented", "not_found"];

/** Watches until it is closed. */
export class Feed {
  #caller;
  #listener;
  #resumeToken = "";
  #closed = false;
  #stream = new AbortController();
  #heard = performance.now();
  #hiddenSince = 0;
  #timer = 0;
  /** Ends the present wait, if there is one. */
  #go = () => {};

  /** @param {Caller} caller @param {Listener} listener */
  constructor(caller, listener) {
    this.#caller = caller;
    this.#listener = listener;
    document.addEventListener("visibilitychange", this.#look);
    addEventListener("online", this.#hurry);
    this.#timer = setInterval(this.#look, CHECK_INTERVAL);
    this.#run();
  }

  close() {
    this.#closed = true;
    clearInterval(this.#timer);
    document.removeEventListener("visibilitychange", this.#look);
    removeEventListener("online", this.#hurry);
    this.#stream.abort();
    this.#go();
  }

  async #run() {
    let pause = FIRST_RETRY_DELAY;
    while (!this.#closed) {
      const seen = this.#resumeToken;
      try {
        await this.#watch();
      } catch (error) {
        if (this.#closed) return;
        this.#listener.interrupted(performance.now() - this.#heard);
        const broken = /** @type {CallError} */ (error);
        if (this.#stream.signal.reason === RELEASED || broken.reason === "STREAM_EXPIRED") {
          while (this.#unseen() && !this.#closed) await this.#wait(HIDDEN_TIMEOUT);
          continue;
        }
        if (broken.reason === "RESUME_TOKEN_EXPIRED" || (broken.code === "invalid_argument" && seen)) {
          // The token is too old, or belongs to a database that was replaced by a backup.
          this.#resumeToken = "";
          this.#listener.anew();
          continue;
        }
        if (FINAL.includes(broken.code)) {
          this.close();
          this.#listener.refused(broken);
          return;
        }
        if (this.#resumeToken !== seen) pause = FIRST_RETRY_DELAY;
        this.#listener.unreachable(broken);
        await this.#wait(broken.retryAfter || pause * (0.5 + Math.random()));
        pause = Math.min(pause * 2, LONGEST_RETRY_DELAY);
      }
    }
  }

  /** Follows one stream. Always throws CallError: no watch ends without an error. @returns {Promise<never>} */
  async #watch() {
    const attempt = (this.#stream = new AbortController());
    this.#heard = performance.now();
    let timer = setTimeout(() => attempt.abort(), OPEN_TIMEOUT);
    const live = () => {
      clearTimeout(timer);
      timer = 0;
      this.#listener.live();
    };
    const request = this.#resumeToken ? { resumeToken: this.#resumeToken } : {};
    const changes = stream(this.#caller, "WatchJobs", request, attempt.signal, (response) => {
      clearTimeout(timer);
      timer = setTimeout(live, LIVE_DELAY);
      this.#listener.opened(response);
    });
    try {
      for await (const change of changes) {
        this.#heard = performance.now();
        if (timer) live();
        if (change.job) this.#listener.job(readJob(change.job));
        else if (change.removedJobId) this.#listener.removed(change.removedJobId);
        // A message without a change only shows that the stream is alive.
        if (change.resumeToken) this.#resumeToken = change.resumeToken;
      }
    } finally {
      clearTimeout(timer);
    }
    throw new CallError("unavailable", "The server ended the watch.");
  }

  /** Closes the stream if the tab is hidden or the connection seems dead. */
  #look = () => {
    const now = performance.now();
    if (document.hidden) {
      this.#hiddenSince ||= now;
      if (this.#unseen()) this.#stream.abort(RELEASED);
      return;
    }
    if (this.#hiddenSince) {
      this.#hiddenSince = 0;
      this.#go();
    }
    if (now - this.#heard > IDLE_TIMEOUT) this.#stream.abort(RELEASED);
  };

  /** The network is back: a connection from before may be dead. */
  #hurry = () => {
    this.#go();
    if (performance.now() - this.#heard > CHECK_INTERVAL) this.#stream.abort(RELEASED);
  };

  #unseen() {
    return this.#hiddenSince > 0 && performance.now() - this.#hiddenSince > HIDDEN_TIMEOUT;
  }

  /** @param {number} length ms @returns {Promise<void>} */
  #wait(length) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, length);
      this.#go = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
