// The curve of a job's progress over time, as far as this tab has received it. Gaps stay empty.

import { h, mark, say, svg, timeElement } from "./dom.js";
import { amount, clock } from "./text.js";

/** @typedef {import("./jobs.js").Job} Job */
/** @typedef {import("./seen.js").Seen} Seen */

const WIDTH = 1000;
const HEIGHT = 240;
/** A shorter gap is not described in words (ms). */
const WORTH_A_WORD = 1000;

/** Draws the curve of one job. */
export class Curve {
  #lost = svg("g", { class: "lost" });
  #size = svg("line", { class: "size", x1: 0, x2: WIDTH });
  #unseen = svg("g", { class: "unseen-times" });
  #area = svg("path", { class: "area" });
  #line = svg("path", { class: "line" });
  #picture = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    this.#unseen, this.#lost, this.#size, this.#area, this.#line,
  );
  #top = h("span", { class: "top" });
  #times = h("p", { class: "times" });
  #note = h("p", { class: "quiet" });
  element = h("figure", { class: "curve" }, this.#top, this.#times, this.#note);

  constructor() {
    this.element.insertBefore(this.#picture, this.#times);
  }

  /** @param {Job} job @param {Seen | undefined} seen @param {number} now */
  show(job, seen, now) {
    const last = job.lastProgressTime || job.startTime;
    const begin = job.startTime;
    const end = Math.max(job.ended ? job.endTime : now, begin + 1000);
    const points = (seen?.points ?? []).filter(([time]) => time >= begin && time <= last);
    if (!points.length || points[points.length - 1][0] < last) points.push([last, job.progress, 0]);
    const most = Math.max(job.size, ...points.map(([, done]) => done), 1);
    const x = (/** @type {number} */ time) => round(((time - begin) / (end - begin)) * WIDTH);
    const y = (/** @type {number} */ done) => round(HEIGHT - (done / most) * (HEIGHT - 8));
    /** @type {[number, number][]} */
    const unseen = [];
    let [line, area] = ["", ""];
    for (const [position, [time, done, gap]] of points.entries()) {
      if (position && !gap) {
        line += `L${x(time)} ${y(done)}`;
        area += `L${x(time)} ${y(done)}`;
        continue;
      }
      unseen.push([position ? gap : begin, time]);
      line += `${position ? `H${x(gap)}` : ""}M${x(time)} ${y(done)}`;
      area += `${position ? `H${x(gap)}V${HEIGHT}Z` : ""}M${x(time)} ${HEIGHT}V${y(done)}`;
    }
    mark(this.#line, "d", `${line}H${x(end)}`);
    mark(this.#area, "d", `${area}H${x(end)}V${HEIGHT}Z`);
    this.#unseen.replaceChildren(...unseen.map(([from, to]) => span(x(from), x(to))));
    say(this.#note, note(unseen, begin));
    mark(this.#size, "y1", String(y(job.size)));
    mark(this.#size, "y2", String(y(job.size)));
    mark(this.#size, "visibility", job.size ? "visible" : "hidden");
    this.#lost.replaceChildren(
      ...absences(job, end).map(([from, to]) => span(x(from), Math.max(x(to), x(from) + 2))),
    );
    say(this.#top, amount(job, most));
    this.#times.replaceChildren(timeElement(begin, clock(begin)), timeElement(end, job.ended ? clock(end) : "now"));
    const told = `Progress over time: 0 at ${clock(begin)}, ${amount(job, job.progress)} at ${clock(last || begin)}`;
    mark(this.#picture, "aria-label", told);
  }
}

/** A rectangle of full height between two times. @param {number} from @param {number} to */
function span(from, to) {
  return svg("rect", { x: from, width: to - from, y: 0, height: HEIGHT });
}

/** The gaps in words; "" without any. @param {[number, number][]} unseen @param {number} begin */
function note(unseen, begin) {
  const times = unseen
    .filter(([from, to]) => to - from >= WORTH_A_WORD)
    .map(([from, to]) => (from === begin ? `before ${clock(to)}` : `from ${clock(from)} to ${clock(to)}`));
  return times.length ? `Not recorded ${times.join(", ")}: this page was not open, or had no connection.` : "";
}

/** The times when the job was LOST: from and to. @param {Job} job @param {number} end @returns {[number, number][]} */
function absences(job, end) {
  return job.history.flatMap((change, index) =>
    change.status === "LOST" ? [[change.time, job.history[index + 1]?.time ?? end]] : [],
  );
}

/** @param {number} value */
function round(value) {
  return Math.round(value * 10) / 10;
}
