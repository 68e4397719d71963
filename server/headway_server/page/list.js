// The list of jobs: filter, search and order; what it shows follows the feed.

import { Bar } from "./bar.js";
import { byId, h, mark, say } from "./dom.js";
import { needsAttention } from "./jobs.js";
import { number, remainingRange, share } from "./text.js";

/** @typedef {import("./jobs.js").Job} Job */

/** Rows that are made at once. More are made as the reader comes to their end. */
const STEP = 200;
/** An order by what moves is made anew so often (ms): rows that change places all the time can't be read. */
const REORDER = 2000;

const FILTERS = /** @type {Record<string, (job: Job) => boolean>} */ ({
  all: () => true,
  active: (job) => !job.ended,
  attention: needsAttention,
  completed: (job) => job.status === "COMPLETED",
  failed: (job) => job.status === "FAILED",
  cancelled: (job) => job.status === "CANCELLED",
});

const PLACES = { RUNNING: 0, LOST: 0, PENDING: 1, COMPLETED: 2, FAILED: 2, CANCELLED: 2 };

/** What goes on stands first, in the order that it began, so that rows keep their places; then what ended last. */
function byStatus(/** @type {Job} */ a, /** @type {Job} */ b) {
  const place = PLACES[a.status] - PLACES[b.status];
  return place || (a.ended ? b.endTime - a.endTime : a.createTime - b.createTime);
}

/** @type {Record<string, {compare: (now: number) => (a: Job, b: Job) => number, moves: boolean}>} */
const ORDERS = {
  status: { compare: () => byStatus, moves: false },
  newest: { compare: () => (a, b) => b.createTime - a.createTime, moves: false },
  name: { compare: () => (a, b) => collator.compare(a.name || a.id, b.name || b.id), moves: false },
  progress: { compare: () => (a, b) => (share(b) ?? -1) - (share(a) ?? -1), moves: true },
  left: { compare: (now) => (a, b) => left(a, now) - left(b, now), moves: true },
  errors: { compare: () => (a, b) => b.errorCount - a.errorCount, moves: true },
};
const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** @param {Job} job @param {number} now */
function left(job, now) {
  return remainingRange(job, now)?.high ?? Number.MAX_SAFE_INTEGER;
}

/** The list, and what stands above it. */
export class List {
  /** @type {Map<string, {item: HTMLLIElement, link: HTMLAnchorElement, bar: Bar}>} */
  #rows = new Map();
  /** Ids as they stand, of all that pass the filter. @type {string[]} */
  #order = [];
  /** Where the order hangs on: what a job must change to change places. @type {Map<string, string>} */
  #kinds = new Map();
  #limit = STEP;
  #filter = "all";
  #sort = "status";
  #words = /** @type {string[]} */ ([]);
  #stale = true;
  #ordered = 0;
  #list = byId("list");
  #search = /** @type {HTMLInputElement} */ (byId("search"));
  #end = byId("list-end");

  /** @param {Map<string, Job>} jobs @param {Map<string, import("./seen.js").Seen>} seen @param {() => void} changed called when the reader wants to see something else */
  constructor(jobs, seen, changed) {
    this.#jobs = jobs;
    this.#seen = seen;
    const anew = () => {
      this.#limit = STEP;
      this.#stale = true;
      changed();
    };
    this.#search.addEventListener("input", () => {
      this.#words = this.#search.value.toLowerCase().split(/\s+/).filter(Boolean);
      anew();
    });
    byId("sort").addEventListener("change", (event) => {
      this.#sort = /** @type {HTMLSelectElement} */ (event.target).value;
      anew();
    });
    for (const chip of byId("filters").querySelectorAll("input")) {
      chip.addEventListener("change", () => {
        this.#filter = chip.value;
        anew();
      });
    }
    byId("list").addEventListener("keydown", (event) => this.#step(event));
    new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting) || this.#limit >= this.#order.length) return;
        this.#limit += STEP;
        this.#stale = true;
        changed();
      },
      { rootMargin: "800px" },
    ).observe(this.#end);
  }

  #jobs;
  #seen;

  /** Puts the keyboard back to the row of a job that was looked at. @param {string} id */
  focus(id) {
    (this.#rows.get(id)?.link ?? byId("list-title")).focus();
  }

  /** Shows what has changed. @param {Iterable<string>} ids @param {number} now */
  update(ids, now) {
    const changed = [...ids];
    for (const id of changed) {
      const job = this.#jobs.get(id);
      const kind = job && `${job.status} ${job.stalled} ${job.name}`;
      if (kind === this.#kinds.get(id)) continue;
      if (kind) this.#kinds.set(id, kind);
      else this.#kinds.delete(id);
      this.#stale = true;
    }
    if (this.#stale || (ORDERS[this.#sort].moves && changed.length && performance.now() - this.#ordered > REORDER)) {
      this.#place(now);
    }
    for (const id of changed) {
      const job = this.#jobs.get(id);
      if (job) this.#rows.get(id)?.bar.show(job, now, this.#seen.get(id)?.usual);
    }
  }

  /** Time has passed. @param {number} now */
  tick(now) {
    for (const [id, row] of this.#rows) {
      const job = this.#jobs.get(id);
      if (job && !job.ended) row.bar.show(job, now, this.#seen.get(id)?.usual);
    }
  }

  /** Finds the order, and makes the rows stand in it. @param {number} now */
  #place(now) {
    this.#stale = false;
    this.#ordered = performance.now();
    const found = [...this.#jobs.values()].filter((job) => matches(job, this.#words));
    for (const [name, passes] of Object.entries(FILTERS)) {
      const count = found.filter(passes).length;
      say(byId(`count-${name}`), number(count));
      // What is hardly ever there is not offered while there is none.
      if (name !== "all") mark(byId(`filter-${name}`), "data-empty", count || this.#filter === name ? null : "");
    }
    const shown = found.filter(FILTERS[this.#filter]).sort(ORDERS[this.#sort].compare(now));
    this.#order = shown.map((job) => job.id);
    const visible = new Set(this.#order.slice(0, this.#limit));
    for (const [id, row] of this.#rows) {
      if (visible.has(id)) continue;
      row.item.remove();
      this.#rows.delete(id);
    }
    const focused = document.activeElement;
    /** @type {Element | null} */
    let place = this.#list.firstElementChild;
    let position = 0;
    for (const job of shown.slice(0, this.#limit)) {
      const row = this.#rows.get(job.id) ?? this.#row(job, now);
      if (row.item === place) place = place.nextElementSibling;
      else this.#list.insertBefore(row.item, place);
      mark(row.item, "aria-posinset", String(++position));
      mark(row.item, "aria-setsize", String(shown.length));
    }
    if (focused instanceof HTMLElement && focused !== document.activeElement && focused.isConnected) {
      // A row that was moved has lost the keyboard.
      focused.focus({ preventScroll: true });
    }
    mark(this.#end, "hidden", this.#limit >= shown.length ? "" : null);
    byId("none").hidden = shown.length > 0 || this.#jobs.size === 0;
  }

  /** @param {Job} job @param {number} now */
  #row(job, now) {
    const link = h("a", { href: `#/job/${job.id}` });
    const bar = new Bar(link);
    const item = h("li", {}, bar.element);
    const row = { item, link, bar };
    bar.show(job, now, this.#seen.get(job.id)?.usual);
    this.#rows.set(job.id, row);
    return row;
  }

  /** Arrows, Home and End go from row to row. @param {KeyboardEvent} event */
  #step(event) {
    const item = /** @type {Element} */ (event.target).closest("li");
    if (!item || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const next = {
      ArrowDown: item.nextElementSibling,
      ArrowUp: item.previousElementSibling,
      Home: this.#list.firstElementChild,
      End: this.#list.lastElementChild,
    }[event.key];
    if (!next) return;
    event.preventDefault();
    next.querySelector("a")?.focus();
  }
}

/** Fewer digits are in ids by chance. */
const ENOUGH_OF_ID = 6;

/** @type {WeakMap<Job, string>} */
const searched = new WeakMap();

/** Whether all words are somewhere in what people know a job by. @param {Job} job @param {string[]} words */
function matches(job, words) {
  if (!words.length) return true;
  let text = searched.get(job);
  if (text === undefined) {
    const labels = Object.entries(job.labels).map(([key, value]) => `${key}=${value}`);
    text = [job.name, job.invoker, job.message, ...labels].join("\n").toLowerCase();
    searched.set(job, text);
  }
  return words.every((word) => text.includes(word) || (word.length >= ENOUGH_OF_ID && job.id.includes(word)));
}
