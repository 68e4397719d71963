// A job and its bar, for the list, the job's page and <headway-job>. bar.css has its styles.

import { h, mark, say } from "./dom.js";
import { counters, count, duration, ending, errorCount, percent, rate, remaining, share, silence, status, warnings } from "./text.js";

/** @typedef {import("./jobs.js").Job} Job */

/** Without a percentage, the text for screen readers changes so often (ms). */
const ANNOUNCE_INTERVAL = 10_000;

let made = 0;

/** Shows one job. Only what has changed is written. */
export class Bar {
  #name;
  #badge = h("span", { class: "badge" });
  #fill = h("div", { class: "fill" });
  #meter = h("div", { class: "meter", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, this.#fill);
  #percent = h("span", { class: "percent", "aria-hidden": "true" });
  #warning = h("span", { class: "warning said" });
  #failure = h("p", { class: "failure said" });
  #facts = h("span", {});
  #errors = h("span", { class: "errors" });
  #more = h("p", { class: "more said" });
  #width = "";

  /** @param {HTMLElement} name what the name is shown in: a link, a heading, … */
  constructor(name = h("span")) {
    this.#name = name;
    name.classList.add("name", "said");
    name.id ||= `job-name-${++made}`;
    mark(this.#meter, "aria-labelledby", name.id);
    const line = h("div", { class: "line" }, this.#meter, this.#percent);
    const facts = h("p", { class: "facts" }, this.#warning, this.#facts, this.#errors);
    this.element = h("div", { class: "job" }, this.#name, this.#badge, line, facts, this.#failure, this.#more);
  }

  /** @param {Job} job @param {number} now the server's time @param {number} [usual] ms between its reports */
  show(job, now, usual = 0) {
    const done = share(job);
    const urgent = warnings(job, now);
    say(this.#name, job.name || job.id);
    say(this.#badge, status(job));
    mark(this.element, "data-status", job.stalled ? "stalled" : job.status.toLowerCase());
    mark(this.element, "data-unknown", done === null && job.status === "RUNNING" ? "" : null);
    say(this.#percent, percent(job));
    const width = String(Math.min(Math.max(done ?? 0, 0), 1));
    if (width !== this.#width) this.#fill.style.setProperty("--done", (this.#width = width));
    say(this.#warning, urgent.join(" · "));
    const silent = silence(job, now, usual);
    const pace = rate(job);
    say(this.#failure, ending(job));
    const facts = job.ended
      ? [count(job), pace, duration(job, now)]
      : silent
        ? [silent, count(job), pace && `last ${pace}`]
        : urgent.length
          ? [count(job)]
          : [count(job), pace, remaining(job, now) || duration(job, now)];
    say(this.#facts, facts.filter(Boolean).join(" · "));
    say(this.#errors, errorCount(job));
    const more = [job.invoker, job.attempt > 1 && `attempt ${job.attempt}`, !job.ended && job.message, counters(job)];
    say(this.#more, more.filter(Boolean).join(" · "));
    this.#tell(job, now, done, urgent);
  }

  /**
   * Sets the text for screen readers. It changes with the percentage and the status, not with every record.
   * @param {Job} job @param {number} now @param {number | null} done @param {string[]} urgent
   */
  #tell(job, now, done, urgent) {
    const hundredths = done === null ? null : String(Math.floor(Math.min(done, 1) * 100));
    const pace = hundredths ?? Math.floor(now / ANNOUNCE_INTERVAL);
    const key = `${pace} ${status(job)}`;
    if (key === this.#told) return;
    this.#told = key;
    mark(this.#meter, "aria-valuenow", hundredths);
    const words = [status(job), ...urgent, percent(job), count(job), ending(job)];
    mark(this.#meter, "aria-valuetext", words.filter(Boolean).join(", "));
  }

  #told = "";
}
