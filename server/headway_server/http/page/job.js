// A job's own page.

import { Bar } from "./bar.js";
import { askToCancel, dismiss } from "./cancel.js";
import { call } from "./connect.js";
import { csv, save } from "./csv.js";
import { Curve } from "./curve.js";
import { byId, h, mark, say, timeElement } from "./dom.js";
import { amount, count, duration, moment, number, percent, rate, remaining, silence, span, statusWord } from "./text.js";
import { raw, sorted, tree } from "./tree.js";

/** @typedef {import("./jobs.js").Job} Job */
/** @typedef {import("./connect.js").Caller} Caller */
/** @typedef {{number: number, record: string, code: string, message: string}} RecordError */

/** What the watch does not send is read again at most so often (ms), and only after the job has changed. */
const REREAD_INTERVAL = 2000;
/** How many lines of a traceback are shown at first: the ones nearest to the error. */
const LAST_LINES = 10;

/** The page of one job, from when it is opened until `close`. */
export class JobPage {
  #bar = new Bar(h("h1", { tabindex: -1, id: "job-title" }));
  #trace = h("pre", { class: "trace said", tabindex: 0, role: "region", "aria-label": "Traceback" });
  #traceAll = h("button", { type: "button", click: () => this.#showTrace(Infinity) });
  #curve = new Curve();
  #facts = h("dl", { class: "facts-list" });
  #parts = h("ul", { class: "parts" });
  #counters = h("dl", { class: "counters" });
  #history = h("ol", { class: "history" });
  #cancel = h("button", { type: "button", class: "danger", click: () => this.#askToCancel() }, "Cancel this job…");
  #sections;
  #errors;
  #results;
  #variables;
  /** @type {Job | undefined} */
  #job;
  #wantsFocus = false;

  /** Creates an empty page. It shows nothing before the job is known. @param {Caller} caller @param {string} id */
  constructor(caller, id) {
    this.#caller = caller;
    this.id = id;
    this.#errors = new Errors(caller, id);
    this.#results = new Values(caller, id, "Results", "GetResults", (reply) => reply.results);
    this.#variables = new Values(caller, id, "Variables", "GetVariables", (reply) =>
      Object.keys(reply.variables ?? {}).length ? reply.variables : undefined,
    );
    this.#sections = {
      trace: h("section", { class: "panel" }, h("div", { class: "bar" }, h("h2", {}, "Traceback"), this.#traceAll), this.#trace),
      curve: section("Progress over time", this.#curve.element),
      counters: section("Counters", this.#counters),
      parts: section("Parts", this.#parts),
    };
    this.element = h("div", { class: "job-page", hidden: true },
      h("div", { class: "panel head" }, this.#bar.element, h("div", { class: "actions" }, this.#cancel)),
      h("div", { class: "columns" },
        h("div", {}, this.#sections.trace, this.#sections.curve, this.#errors.element, this.#results.element, this.#variables.element),
        h("div", {},
          section("Facts", this.#facts), this.#sections.counters, this.#sections.parts,
          section("History", this.#history),
        ),
      ),
    );
    byId("job").replaceChildren(this.element);
  }

  #caller;

  close() {
    dismiss();
    this.#errors.close();
    this.#results.close();
    this.#variables.close();
    this.element.remove();
  }

  /** Moves the focus to the title, as soon as there is one. */
  focus() {
    this.#wantsFocus = this.element.hidden;
    this.element.querySelector("h1")?.focus();
  }

  /** @param {Job} job @param {import("./seen.js").Seen | undefined} seen @param {number} now */
  show(job, seen, now) {
    const before = this.#job;
    this.#job = job;
    this.element.hidden = false;
    this.tick(seen, now);
    if (this.#wantsFocus) this.focus();
    if (before?.revision === job.revision) return;
    this.#cancel.hidden = job.ended;
    this.#sections.counters.hidden = Object.keys(job.counters).length === 0;
    this.#counters.replaceChildren(
      ...Object.entries(job.counters).sort().map(([name, value]) =>
        h("div", {}, h("dt", { class: "said" }, name), h("dd", {}, number(value))),
      ),
    );
    this.#showParts(job);
    this.#showTrace(LAST_LINES);
    if (job.history.length !== before?.history.length) this.#showHistory(job);
    this.#errors.wanted(job.errorCount > 0, job.errorCount);
    this.#results.wanted(job.status === "COMPLETED", job.status);
    this.#variables.wanted(true, job.revision);
  }

  /** Time has passed. @param {import("./seen.js").Seen | undefined} seen @param {number} now */
  tick(seen, now) {
    const job = this.#job;
    if (!job) return;
    this.#bar.show(job, now, seen?.usual);
    // A job that ended before this page received it has no curve.
    this.#sections.curve.hidden = !job.startTime || (job.ended && (seen?.points.length ?? 0) < 2);
    if (job.startTime) this.#curve.show(job, seen, now);
    this.#showFacts(job, now, Boolean(silence(job, now, seen?.usual ?? 0)));
  }

  /** @param {Job} job @param {number} now @param {boolean} silent */
  #showFacts(job, now, silent) {
    const ago = (/** @type {number} */ time) => time && timeElement(time, `${span(now - time)} ago`);
    const at = (/** @type {number} */ time) => time && timeElement(time, moment(time));
    /** @type {[string, string | 0 | Node][]} */
    const facts = [
      ["Progress", [count(job), job.unit !== "%" && percent(job)].filter(Boolean).join(" · ")],
      [job.ended ? "Average pace" : silent ? "Last pace" : "Pace", rate(job)],
      ["Time left", silent ? "" : remaining(job, now).replace(" left", "")],
      ["Invoker", job.invoker],
      [job.ended ? "Took" : "Running for", duration(job, now).replace(/^\w+ /, "")],
      ["Created", at(job.createTime)],
      ["Started", job.startTime - job.createTime > 1000 ? at(job.startTime) : 0],
      ["Ended", at(job.endTime)],
      ["Last contact", job.ended ? 0 : ago(job.lastContactTime)],
      ["Last progress", job.ended ? 0 : ago(job.lastProgressTime)],
      ["Attempt", job.attempt > 1 ? String(job.attempt) : 0],
      ["Lost after", job.heartbeatTimeout && span(job.heartbeatTimeout)],
      ["Stalled after", job.stallTimeout && span(job.stallTimeout)],
      ["Removed", job.retention && `${span(job.retention)} after its end`],
      ["Labels", Object.entries(job.labels).sort().map(([key, value]) => `${key}=${value}`).join(", ")],
      ["Key", job.key],
      ["Continues", job.continues && jobLink(job.continues)],
      ["Continued by", job.continuedBy && jobLink(job.continuedBy)],
      ["Id", h("span", { class: "id" }, job.id)],
    ];
    for (const [position, [name, fact]] of facts.entries()) {
      const row = this.#facts.children[position] ?? this.#facts.appendChild(h("div", {}, h("dt"), h("dd", { class: "said" })));
      const [term, content] = row.children;
      mark(row, "hidden", fact ? null : "");
      say(term, name);
      if (typeof fact === "string") say(content, fact);
      else if (fact && !content.firstChild?.isEqualNode(fact)) content.replaceChildren(fact);
    }
  }

  /** Shows the parts. A part has no size: its bar is full at an even share of the job's size, or at the longest part. @param {Job} job */
  #showParts(job) {
    const parts = Object.entries(job.parts).filter(([name]) => name).sort();
    this.#sections.parts.hidden = parts.length === 0;
    const full = Math.max(1, job.size / parts.length, ...parts.map(([, done]) => done));
    this.#parts.replaceChildren(
      ...parts.map(([name, done]) => {
        const fill = h("div", { class: "fill" });
        fill.style.setProperty("--done", String(done / full));
        return h("li", {}, h("span", { class: "said" }, name), h("span", {}, amount(job, done)),
          h("div", { class: "meter", "aria-hidden": "true" }, fill));
      }),
    );
  }

  /** @param {number} most lines */
  #showTrace(most) {
    const lines = this.#job?.error?.trace ?? [];
    this.#sections.trace.hidden = lines.length === 0;
    this.#traceAll.hidden = lines.length <= most;
    say(this.#traceAll, `Show all ${number(lines.length)} lines`);
    say(this.#trace, lines.slice(-most).join("\n"));
  }

  /** @param {Job} job */
  #showHistory(job) {
    this.#history.replaceChildren(
      ...job.history.map((change) =>
        h("li", {}, timeElement(change.time, moment(change.time)), " ",
          h("strong", {}, statusWord(change.status)), " ", h("span", { class: "said" }, reason(change))),
      ),
    );
  }

  async #askToCancel() {
    if (this.#job) await askToCancel(this.#caller, this.#job);
  }
}

/** @param {string} id */
function jobLink(id) {
  return h("a", { class: "id", href: `#/job/${id}` }, id);
}

/** The reason of a change, unless it repeats the status. @param {Job["history"][number]} change */
function reason(change) {
  return change.reason.toLowerCase() === statusWord(change.status).toLowerCase() ? "" : change.reason;
}

/** @param {string} title @param {...HTMLElement} content */
function section(title, ...content) {
  return h("section", { class: "panel" }, h("h2", {}, title), ...content);
}

/** Reads a resource of a job, again when it may have changed, but at most every REREAD_INTERVAL. */
class Reader {
  #key = "";
  #read = "";
  #timer = 0;
  #closed = false;

  /** @param {Caller} caller @param {string} id @param {string} method @param {(reply: any) => void} take
   *  @param {(error: Error) => void} fail */
  constructor(caller, id, method, take, fail) {
    this.#call = async () => {
      const key = this.#key;
      try {
        const reply = await call(caller, method, { jobId: id });
        if (this.#closed) return;
        this.#read = key;
        take(reply);
      } catch (error) {
        const refused = /** @type {import("./connect.js").CallError} */ (error);
        // The watch reports a removed job, once for the whole page.
        if (refused.code === "not_found") return;
        // An unreachable server is asked again; one that refuses is not.
        if (refused.code !== "unavailable") this.#read = key;
        if (!this.#closed) fail(refused);
      }
    };
  }

  #call;

  /** Reads again if this key differs from the last one. @param {string} key */
  want(key) {
    this.#key = key;
    if (this.#timer || key === this.#read) return;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      if (this.#key !== this.#read) this.want(this.#key);
    }, REREAD_INTERVAL);
    this.#call();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
  }
}

/** The record errors: the first and the last of them, to search and to download. */
class Errors {
  #title = h("h2", {}, "Record errors");
  #note = h("p", { class: "quiet" });
  #rows = h("tbody", { role: "rowgroup" });
  #search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search record errors", input: () => this.#show() });
  #reader;
  /** @type {RecordError[]} */
  #errors = [];
  #total = 0;

  /** @param {Caller} caller @param {string} id */
  constructor(caller, id) {
    const download = () => {
      const rows = this.#errors.map((error) => [error.number, error.record, error.code, error.message]);
      save(`record-errors-${id}.csv`, csv([["number", "record", "code", "message"], ...rows]), "text/csv");
    };
    const head = ["No.", "Record", "Code", "Message"].map((name) => h("th", { scope: "col", role: "columnheader" }, name));
    this.element = h("section", { class: "panel errors-panel", hidden: true },
      h("div", { class: "bar" }, this.#title, this.#search,
        h("button", { type: "button", click: download }, "Download CSV")),
      this.#note,
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Record errors" },
        // The roles are said: on a phone the table is laid out as blocks.
        h("table", { role: "table" }, h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...head)), this.#rows)),
    );
    this.#reader = new Reader(caller, id, "ListRecordErrors", (reply) => this.#take(reply), (error) => say(this.#note, error.message));
  }

  /** @param {boolean} wanted @param {number} total */
  wanted(wanted, total) {
    this.element.hidden = !wanted;
    say(this.#title, `Record errors (${number(total)})`);
    if (wanted) this.#reader.want(String(total));
  }

  close() {
    this.#reader.close();
  }

  /** @param {any} reply */
  #take(reply) {
    const first = reply.first ?? [];
    const last = reply.last ?? [];
    this.#total = Number(reply.total ?? 0);
    // With fewer than 200 in all, the first and the last ones overlap.
    const begin = Math.max(this.#total - last.length, first.length);
    const numbered = (/** @type {any[]} */ errors, /** @type {number} */ from) => errors.map((error, index) => ({
      number: from + index + 1, record: error.record ?? "", code: error.code ?? "", message: error.message ?? "",
    }));
    this.#errors = [...numbered(first, 0), ...numbered(last.slice(begin - this.#total + last.length), begin)];
    this.#show();
  }

  #show() {
    const words = this.#search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.#errors.filter((error) => {
      const text = `${error.record}\n${error.code}\n${error.message}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const kept = this.#total > this.#errors.length ? `The first and the last ${number(this.#errors.length / 2)} are stored. ` : "";
    say(this.#note, kept + (words.length ? `${number(found.length)} found.` : ""));
    this.#rows.replaceChildren(
      ...found.map((error) =>
        h("tr", { role: "row" }, h("td", { role: "cell" }, number(error.number)),
          ...[error.record, error.code, error.message].map((text) => h("td", { role: "cell", class: "told" }, text))),
      ),
    );
  }
}

/** Results or variables, as a tree or as text. */
class Values {
  #content = h("div", { class: "scroll", tabindex: 0, role: "region" });
  #tools = h("div", { class: "tools" });
  #reader;
  #raw = false;
  /** @type {Map<string, boolean>} */
  #folds = new Map();
  /** @type {any} */
  #value;

  /** @param {Caller} caller @param {string} id @param {string} title @param {string} method @param {(reply: any) => any} of */
  constructor(caller, id, title, method, of) {
    const turn = h("button", { type: "button", "aria-pressed": "false", click: () => {
      this.#raw = !this.#raw;
      mark(turn, "aria-pressed", String(this.#raw));
      this.#show();
    } }, "Raw");
    const download = h("button", { type: "button", click: () =>
      save(`${title.toLowerCase()}-${id}.json`, JSON.stringify(this.#value, null, 2), "application/json") }, "Download JSON");
    this.#tools.append(turn, download);
    mark(this.#content, "aria-label", title);
    this.element = h("section", { class: "panel", hidden: true },
      h("div", { class: "bar" }, h("h2", {}, title), this.#tools), this.#content);
    this.#reader = new Reader(caller, id, method, (reply) => {
      const value = sorted(of(reply));
      const same = JSON.stringify(value) === JSON.stringify(this.#value);
      this.#value = value;
      this.element.hidden = value === undefined;
      if (!same) this.#show();
    }, (error) => {
      if (this.#value !== undefined) return;
      this.element.hidden = false;
      this.#content.replaceChildren(h("p", { class: "error" }, error.message));
    });
  }

  /** @param {boolean} wanted @param {string} key */
  wanted(wanted, key) {
    if (wanted) this.#reader.want(key);
  }

  close() {
    this.#reader.close();
  }

  #show() {
    if (this.#value !== undefined) this.#content.replaceChildren(this.#raw ? raw(this.#value) : tree(this.#value, this.#folds));
  }
}
