// A job's progress over time: what this page has seen, and what the job itself tells of its past.

import { h, mark, say, svg, timeElement } from "./dom.js";
import { amount, clock } from "./text.js";

/** @typedef {import("./jobs.js").Job} Job */

/** Points that are kept of a job; when there are more, every second one goes. */
const POINTS = 240;
const WIDTH = 1000;
const HEIGHT = 240;

/** What was seen of one job: times and amounts, in their order. */
export class Seen {
  /** @type {[number, number][]} */
  points = [];
  #apart = 0;

  /** @param {Job} job */
  add(job) {
    const time = job.lastProgressTime || job.startTime;
    const last = this.points.at(-1);
    if (!time || (last && (time <= last[0] || time - last[0] < this.#apart))) return;
    this.points.push([time, job.progress]);
    if (this.points.length <= POINTS) return;
    this.points = this.points.filter((_, index) => index % 2 === 0);
    this.#apart = 2 * (this.points[this.points.length - 1][0] - this.points[0][0]) / POINTS;
  }
}

/** Draws the curve of one job. */
export class Curve {
  #lost = svg("g", { class: "lost" });
  #size = svg("line", { class: "size", x1: 0, x2: WIDTH });
  #guess = svg("path", { class: "guess" });
  #area = svg("path", { class: "area" });
  #line = svg("path", { class: "line" });
  #picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    this.#lost, this.#size, this.#area, this.#guess, this.#line,
  );
  #top = h("span", { class: "top" });
  #times = h("p", { class: "times" });
  element = h("figure", { class: "curve" }, this.#top, this.#times);

  constructor() {
    this.element.insertBefore(this.#picture, this.#times);
  }

  /** @param {Job} job @param {Seen | undefined} seen @param {number} now */
  show(job, seen, now) {
    const last = job.lastProgressTime || job.startTime;
    const begin = job.startTime;
    const end = Math.max(job.ended ? job.endTime : now, begin + 1000);
    const points = (seen?.points ?? []).filter(([time]) => time >= begin && time < last);
    if (last) points.push([last, job.progress]);
    const most = Math.max(job.size, ...points.map(([, done]) => done), 1);
    const x = (/** @type {number} */ time) => round(((time - begin) / (end - begin)) * WIDTH);
    const y = (/** @type {number} */ done) => round(HEIGHT - (done / most) * (HEIGHT - 8));
    const path = points.map(([time, done]) => `L${x(time)} ${y(done)}`).join("");
    const first = points[0] ?? [begin, 0];
    // It began with nothing done; how it came from there to the first point, nobody here has seen.
    mark(this.#guess, "d", `M0 ${HEIGHT}L${x(first[0])} ${y(first[1])}`);
    mark(this.#line, "d", `M${x(first[0])} ${y(first[1])}${path}L${x(end)} ${y(job.progress)}`);
    mark(this.#area, "d", `M${x(first[0])} ${HEIGHT}${path}L${x(end)} ${y(job.progress)}V${HEIGHT}Z`);
    mark(this.#size, "y1", String(y(job.size)));
    mark(this.#size, "y2", String(y(job.size)));
    mark(this.#size, "visibility", job.size ? "visible" : "hidden");
    this.#lost.replaceChildren(
      ...absences(job, end).map(([from, to]) =>
        svg("rect", { x: x(from), width: Math.max(x(to) - x(from), 2), y: 0, height: HEIGHT }),
      ),
    );
    say(this.#top, amount(job, most));
    this.#times.replaceChildren(timeElement(begin, clock(begin)), timeElement(end, job.ended ? clock(end) : "now"));
    const told = `Progress over time: 0 at ${clock(begin)}, ${amount(job, job.progress)} at ${clock(last || begin)}`;
    mark(this.#picture, "aria-label", told);
  }
}

/** When the job was LOST, from and to. @param {Job} job @param {number} end @returns {[number, number][]} */
function absences(job, end) {
  return job.history.flatMap((change, index) =>
    change.status === "LOST" ? [[change.time, job.history[index + 1]?.time ?? end]] : [],
  );
}

/** @param {number} value */
function round(value) {
  return Math.round(value * 10) / 10;
}
