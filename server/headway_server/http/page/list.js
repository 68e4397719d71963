// The list of jobs: filter, search and order. It follows the feed.

import { Bar } from "./bar.js";
import { byId, h, mark, say } from "./dom.js";
import { needsAttention } from "./jobs.js";
import { inRange, onRange } from "./range.js";
import { dayName, moment, number, remainingRange, share, startOfDay, times } from "./text.js";

/** @typedef {import("./jobs.js").Job} Job */

/** How many rows are created at once. More are created when the reader scrolls to their end. */
const STEP = 200;
/** An order by a value that changes is renewed at most so often (ms): rows that move all the time can't be read. */
const REORDER_INTERVAL = 2000;

const FILTERS = /** @type {Record<string, (job: Job) => boolean>} */ ({
  all: () => true,
  active: (job) => !job.ended,
  attention: needsAttention,
  completed: (job) => job.status === "COMPLETED",
  failed: (job) => job.status === "FAILED",
  cancelled: (job) => job.status === "CANCELLED",
});

const PLACES = { RUNNING: 0, LOST: 0, PENDING: 1, COMPLETED: 2, FAILED: 2, CANCELLED: 2 };

/** Unfinished jobs come first, oldest first, so that rows keep their places; then ended jobs, newest first. */
function byStatus(/** @type {Job} */ a, /** @type {Job} */ b) {
  const place = PLACES[a.status] - PLACES[b.status];
  return place || (a.ended ? b.endTime - a.endTime : a.createTime - b.createTime);
}

/** The heading above a job in the order by status. @param {Job} job @param {number} now */
function stage(job, now) {
  return job.ended ? dayName(job.endTime, now) : job.status === "PENDING" ? "Waiting" : "Running";
}

/**
 * `heading`: the heading above a job; `day`: the day of that heading, which the job's times do not repeat.
 * @type {Record<string, {
 *   compare: (now: number) => (a: Job, b: Job) => number, moves: boolean,
 *   heading?: (job: Job, now: number) => string, day?: (job: Job, now: number) => number
 * }>}
 */
const ORDERS = {
  status: {
    compare: () => byStatus,
    moves: false,
    heading: stage,
    day: (job, now) => (job.ended ? job.endTime : now),
  },
  newest: {
    compare: () => (a, b) => b.createTime - a.createTime,
    moves: false,
    heading: (job, now) => dayName(job.createTime, now),
    day: (job) => job.createTime,
  },
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

/** One job of the list. */
class Row {
  link;
  item;
  shown = false;
  #bar;
  #times = h("span", { class: "times" });

  /** @param {string} id */
  constructor(id) {
    this.link = h("a", { href: `#/job/${id}` });
    this.#bar = new Bar(this.link);
    this.#bar.element.append(this.#times);
    this.#bar.element.classList.add("dated");
    this.item = h("li", {}, this.#bar.element);
  }

  /**
   * @param {Job} job @param {number} now @param {number | undefined} usual ms between its reports
   * @param {number} day a time of the day that its heading names
   */
  show(job, now, usual, day) {
    this.shown = true;
    this.#bar.show(job, now, usual);
    say(this.#times, times(job, day));
    const [begun, ended] = [job.startTime || job.createTime, job.endTime];
    mark(this.#times, "title", ended ? `${moment(begun)} to ${moment(ended)}` : moment(begun));
  }
}

/** The list with its toolbar. */
export class List {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /** @type {Map<string, HTMLLIElement>} */
  #headings = new Map();
  /** The begin of the day for which the headings were made. */
  #today = 0;
  /** The ids of all jobs that pass the filter, in order. @type {string[]} */
  #order = [];
  /** What decides the place of each job: while it stays the same, so does the place. @type {Map<string, string>} */
  #kinds = new Map();
  #limit = STEP;
  #filter = "all";
  #sort = "status";
  /** The present order of the rows. */
  #placed = "";
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
    onRange(anew);
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

  /** Moves the focus to the row of a job that was shown. @param {string} id */
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
    if (this.#stale || (ORDERS[this.#sort].moves && changed.length && performance.now() - this.#ordered > REORDER_INTERVAL)) {
      this.#place(now);
    }
    for (const id of changed) {
      const job = this.#jobs.get(id);
      const row = this.#rows.get(id);
      if (job && row) this.#show(row, job, now);
    }
  }

  /** Time has passed. @param {number} now */
  tick(now) {
    if (this.#today !== startOfDay(now)) this.#place(now);
    for (const [id, row] of this.#rows) {
      const job = this.#jobs.get(id);
      if (job && !job.ended) this.#show(row, job, now);
    }
  }

  /** Sorts the jobs and places the rows. @param {number} now */
  #place(now) {
    const otherDays = this.#today !== startOfDay(now) || this.#placed !== this.#sort;
    this.#placed = this.#sort;
    this.#stale = false;
    this.#today = startOfDay(now);
    this.#ordered = performance.now();
    const within = inRange(now);
    const found = [...this.#jobs.values()].filter((job) => within(job) && matches(job, this.#words));
    for (const [name, passes] of Object.entries(FILTERS)) {
      const count = found.filter(passes).length;
      say(byId(`count-${name}`), number(count));
      // A filter that passes no job is hidden.
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
    const heading = ORDERS[this.#sort].heading;
    const headings = new Set(heading && shown.slice(0, this.#limit).map((job) => heading(job, now)));
    // If all jobs run, a heading adds nothing.
    if (headings.size === 1 && headings.has("Running")) headings.clear();
    for (const [name, item] of this.#headings) {
      if (headings.has(name)) continue;
      item.remove();
      this.#headings.delete(name);
    }
    const focused = document.activeElement;
    /** @type {Element | null} */
    let place = this.#list.firstElementChild;
    let position = 0;
    let under = "";
    /** @type {Row | null} */
    let above = null;
    const stand = (/** @type {Element} */ item) => {
      if (item === place) place = place.nextElementSibling;
      else this.#list.insertBefore(item, place);
    };
    for (const job of shown.slice(0, this.#limit)) {
      const name = heading?.(job, now) ?? "";
      const begins = name !== under && headings.has(name);
      if (begins) stand(this.#heading((under = name)));
      if (above) mark(above.item, "class", begins ? "last" : null);
      const row = this.#rows.get(job.id) ?? this.#row(job);
      if (otherDays || !row.shown) this.#show(row, job, now);
      stand(row.item);
      above = row;
      mark(row.item, "aria-posinset", String(++position));
      mark(row.item, "aria-setsize", String(shown.length));
    }
    if (focused instanceof HTMLElement && focused !== document.activeElement && focused.isConnected) {
      // A row that was moved has lost the focus.
      focused.focus({ preventScroll: true });
    }
    mark(this.#end, "hidden", this.#limit >= shown.length ? "" : null);
    byId("none").hidden = shown.length > 0 || this.#jobs.size === 0;
  }

  /** @param {Row} row @param {Job} job @param {number} now */
  #show(row, job, now) {
    row.show(job, now, this.#seen.get(job.id)?.usual, ORDERS[this.#sort].day?.(job, now) ?? now);
  }

  /** @param {Job} job */
  #row(job) {
    const row = new Row(job.id);
    this.#rows.set(job.id, row);
    return row;
  }

  /** @param {string} name */
  #heading(name) {
    const item = this.#headings.get(name) ?? h("li", { class: "day" }, h("h2", {}, name));
    this.#headings.set(name, item);
    return item;
  }

  /** Arrows, Home and End go from row to row. @param {KeyboardEvent} event */
  #step(event) {
    const link = /** @type {Element} */ (event.target).closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const links = [...this.#list.querySelectorAll("a")];
    const position = links.indexOf(link);
    const next = { ArrowDown: position + 1, ArrowUp: position - 1, Home: 0, End: links.length - 1 }[event.key];
    if (next === undefined || !links[next]) return;
    event.preventDefault();
    links[next].focus();
  }
}

/** Shorter searches would match ids by chance. */
const ENOUGH_OF_ID = 6;

/** @type {WeakMap<Job, string>} */
const searched = new WeakMap();

/** Whether all words are in the name, invoker, message, labels or id. @param {Job} job @param {string[]} words */
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
