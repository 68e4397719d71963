// <headway-job session="…" job="…"></headway-job>: one job's bar in any page. The page loads only this script.
//
// `server` is the URL of Headway's page; by default it is where this script came from. When the job has ended, the element
// dispatches `headway-ended`, with the job's status and progress in its detail.

import { Bar } from "./bar.js";
import { Clock } from "./clock.js";
import { call } from "./connect.js";
import { Feed } from "./feed.js";
import { newest } from "./jobs.js";
import { Seen } from "./seen.js";

/** @typedef {import("./jobs.js").Job} Job */

const TICK = 1000;

/** All elements of a page that show jobs of one session share one stream. */
class Shared {
  /** @type {Map<string, Shared>} */
  static all = new Map();

  /** @type {Set<HeadwayJob>} */
  #elements = new Set();
  /** @type {Map<string, Job>} */
  #jobs = new Map();
  /** @type {Map<string, Seen>} */
  #seen = new Map();
  #clock = new Clock();
  #caller;
  #feed;
  #key;

  /** @param {string} server @param {string} session */
  static of(server, session) {
    const key = `${server} ${session}`;
    const shared = Shared.all.get(key) ?? new Shared(key, server, session);
    Shared.all.set(key, shared);
    return shared;
  }

  /** @param {string} key @param {string} server @param {string} session */
  constructor(key, server, session) {
    this.#key = key;
    const explain = (/** @type {string} */ words) => {
      this.#clock.stop();
      for (const element of this.#elements) element.trouble(words);
    };
    this.#caller = { server, session, token: "" };
    this.#feed = new Feed(this.#caller, {
      job: (job) => {
        this.#clock.atLeast(newest(job));
        this.#jobs.set(job.id, job);
        const seen = this.#seen.get(job.id) ?? new Seen();
        this.#seen.set(job.id, seen);
        seen.add(job);
        for (const element of this.#elements) if (element.job === job.id) this.#draw();
      },
      removed: (id) => {
        this.#jobs.delete(id);
        this.#seen.delete(id);
        for (const element of this.#elements) if (element.job === id) element.gone("This job was removed.");
      },
      anew: () => this.#jobs.clear(),
      interrupted: (silent) => {
        for (const each of this.#seen.values()) each.lose(this.#clock.now() - silent);
      },
      opened: (response) => this.#clock.set(response),
      live: () => {
        this.#clock.go();
        for (const each of this.#seen.values()) each.find(this.#clock.now());
        this.#live = true;
        for (const element of this.#elements) this.#welcome(element);
      },
      unreachable: () => explain("The server does not answer; trying again…"),
      refused: (error) => explain(error.message),
    });
    this.#timer = setInterval(() => this.#draw(), TICK);
  }

  #timer;
  #drawing = false;
  #live = false;

  /** @param {HeadwayJob} element */
  add(element) {
    this.#elements.add(element);
    if (this.#live) this.#welcome(element);
    this.#draw();
  }

  /** Shows an error if the job does not exist. @param {HeadwayJob} element */
  async #welcome(element) {
    element.trouble("");
    if (this.#jobs.has(element.job)) return;
    try {
      await call(this.#caller, "GetJob", { jobId: element.job });
    } catch (error) {
      const { code, message } = /** @type {import("./connect.js").CallError} */ (error);
      if (code === "not_found" || code === "invalid_argument") element.trouble(message);
    }
  }

  /** @param {HeadwayJob} element */
  remove(element) {
    this.#elements.delete(element);
    if (this.#elements.size) return;
    this.#feed.close();
    clearInterval(this.#timer);
    Shared.all.delete(this.#key);
  }

  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      for (const element of [...this.#elements]) {
        const job = this.#jobs.get(element.job);
        if (job) element.show(job, this.#clock.now(), this.#seen.get(element.job)?.usual);
      }
    });
  }
}

/** The element. */
export class HeadwayJob extends HTMLElement {
  static observedAttributes = ["session", "job", "server"];

  #bar = new Bar();
  #trouble = document.createElement("p");
  /** @type {Shared | null} */
  #shared = null;
  #renewing = false;
  #dressed = false;
  #known = false;

  constructor() {
    super();
    const looks = document.createElement("link");
    looks.rel = "stylesheet";
    looks.href = new URL("bar.css", import.meta.url).href;
    for (const event of ["load", "error"]) {
      looks.addEventListener(event, () => {
        this.#dressed = true;
        this.#bar.element.hidden = !this.#known;
      });
    }
    this.#bar.element.hidden = true;
    this.#trouble.className = "trouble";
    this.#trouble.setAttribute("role", "status");
    this.attachShadow({ mode: "open" }).append(looks, this.#bar.element, this.#trouble);
  }

  /** The job's id. */
  get job() {
    return this.getAttribute("job") ?? "";
  }

  connectedCallback() {
    this.#renew();
  }

  disconnectedCallback() {
    this.#leave();
  }

  attributeChangedCallback() {
    this.#renew();
  }

  /** @param {Job} job @param {number} now @param {number | undefined} usual ms between its reports */
  show(job, now, usual) {
    this.#bar.show(job, now, usual);
    this.#known = true;
    this.#bar.element.hidden = !this.#dressed;
    if (!job.ended) return;
    // An ended job does not change.
    this.#leave();
    const { status, progress, size } = job;
    this.dispatchEvent(new CustomEvent("headway-ended", { bubbles: true, composed: true, detail: { status, progress, size } }));
  }

  /** Shows that the job was removed, and nothing else of it. @param {string} words */
  gone(words) {
    this.#known = false;
    this.#bar.element.hidden = true;
    this.trouble(words);
  }

  /** Shows why there are no changes; "" clears it. @param {string} words */
  trouble(words) {
    this.#trouble.textContent = words;
  }

  /** Shows what the attributes name, once all of them are set. */
  #renew() {
    if (this.#renewing) return;
    this.#renewing = true;
    queueMicrotask(() => {
      this.#renewing = false;
      if (this.isConnected) this.#follow();
    });
  }

  #follow() {
    this.#leave();
    this.trouble("");
    this.#known = false;
    this.#bar.element.hidden = true;
    const session = this.getAttribute("session");
    if (!session || !this.job) return;
    const server = new URL(this.getAttribute("server") ?? ".", this.hasAttribute("server") ? document.baseURI : import.meta.url);
    if (!server.pathname.endsWith("/")) server.pathname += "/";
    this.#shared = Shared.of(server.href, session);
    this.#shared.add(this);
  }

  #leave() {
    this.#shared?.remove(this);
    this.#shared = null;
  }
}

customElements.define("headway-job", HeadwayJob);
