// One stream a page that carries every change of a session's jobs, taken up again wherever it broke off.

import { CallError, stream } from "./connect.js";
import { readJob } from "./jobs.js";

/** @typedef {import("./connect.js").Caller} Caller */

/**
 * @typedef {object} Listener
 * @property {(job: import("./jobs.js").Job) => void} job a job as it is now
 * @property {(id: string) => void} removed it is gone
 * @property {() => void} anew what was seen before no longer counts: all jobs come again
 * @property {(silent: number) => void} interrupted nothing is seen from now on; nothing came for `silent` ms
 * @property {(response: Response) => void} opened the server has answered
 * @property {() => void} live what is shown is what is
 * @property {(error: CallError) => void} away the server does not answer, and is tried again and again
 * @property {(error: CallError) => void} refused the server does not let us: it is not tried again
 */

const FIRST_PAUSE = 200; // ms
const LONGEST_PAUSE = 5000;
/** A stream that has been open for so long (ms) without an error is live, though nothing has changed. */
const LIVE_AFTER = 1000;
/** A connection that died without a word looks like a session where nothing happens: after so long it is opened anew. */
const LONGEST_SILENCE = 60_000;
/** A browser has six connections to a server for all its tabs: one that nobody sees gives its own back after so long. */
const HIDDEN_FOR = 60_000;

const LOOK_EVERY = 5000;
const OPEN_WITHIN = 10_000;
/** Why a stream is ended that may be perfectly well. */
const LET_GO = "let go";

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
  /** Ends the present pause, if there is one. */
  #go = () => {};

  /** @param {Caller} caller @param {Listener} listener */
  constructor(caller, listener) {
    this.#caller = caller;
    this.#listener = listener;
    document.addEventListener("visibilitychange", this.#look);
    addEventListener("online", this.#hurry);
    this.#timer = setInterval(this.#look, LOOK_EVERY);
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
    let pause = FIRST_PAUSE;
    while (!this.#closed) {
      const seen = this.#resumeToken;
      try {
        await this.#watch();
      } catch (error) {
        if (this.#closed) return;
        this.#listener.interrupted(performance.now() - this.#heard);
        const broken = /** @type {CallError} */ (error);
        if (this.#stream.signal.reason === LET_GO || broken.reason === "STREAM_EXPIRED") {
          while (this.#unseen() && !this.#closed) await this.#wait(HIDDEN_FOR);
          continue;
        }
        if (broken.reason === "RESUME_TOKEN_EXPIRED" || (broken.code === "invalid_argument" && seen)) {
          // The point to go on from is too long ago, or in a database that was replaced by a backup.
          this.#resumeToken = "";
          this.#listener.anew();
          continue;
        }
        if (FINAL.includes(broken.code)) {
          this.close();
          this.#listener.refused(broken);
          return;
        }
        if (this.#resumeToken !== seen) pause = FIRST_PAUSE;
        this.#listener.away(broken);
        await this.#wait(broken.retryAfter || pause * (0.5 + Math.random()));
        pause = Math.min(pause * 2, LONGEST_PAUSE);
      }
    }
  }

  /** Follows one stream. Throws CallError: no watch ends well. @returns {Promise<never>} */
  async #watch() {
    const attempt = (this.#stream = new AbortController());
    this.#heard = performance.now();
    let timer = setTimeout(() => attempt.abort(), OPEN_WITHIN);
    const live = () => {
      clearTimeout(timer);
      timer = 0;
      this.#listener.live();
    };
    const request = this.#resumeToken ? { resumeToken: this.#resumeToken } : {};
    const changes = stream(this.#caller, "WatchJobs", request, attempt.signal, (response) => {
      clearTimeout(timer);
      timer = setTimeout(live, LIVE_AFTER);
      this.#listener.opened(response);
    });
    try {
      for await (const change of changes) {
        this.#heard = performance.now();
        if (timer) live();
        if (change.job) this.#listener.job(readJob(change.job));
        else if (change.removedJobId) this.#listener.removed(change.removedJobId);
        // Without any of it, it only says that the stream is alive.
        if (change.resumeToken) this.#resumeToken = change.resumeToken;
      }
    } finally {
      clearTimeout(timer);
    }
    throw new CallError("unavailable", "The server ended the watch.");
  }

  /** Looks whether the stream is still worth having. */
  #look = () => {
    const now = performance.now();
    if (document.hidden) {
      this.#hiddenSince ||= now;
      if (this.#unseen()) this.#stream.abort(LET_GO);
      return;
    }
    if (this.#hiddenSince) {
      this.#hiddenSince = 0;
      this.#go();
    }
    if (now - this.#heard > LONGEST_SILENCE) this.#stream.abort(LET_GO);
  };

  /** The network is there again: what was open before may be dead without a word. */
  #hurry = () => {
    this.#go();
    if (performance.now() - this.#heard > LOOK_EVERY) this.#stream.abort(LET_GO);
  };

  #unseen() {
    return this.#hiddenSince > 0 && performance.now() - this.#hiddenSince > HIDDEN_FOR;
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
