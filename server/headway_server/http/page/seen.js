// What this tab has received of one job: its progress over time, and the intervals of its reports.

/** @typedef {import("./jobs.js").Job} Job */

/** The most points that are stored of a job. Beyond it every second one is removed. */
const POINTS = 240;
/** How many intervals between reports are stored: the latest ones. */
const INTERVALS = 9;
/** A shorter interruption is no gap (ms): a restart of the server takes less time. */
const SHORTEST_GAP = 5000;
/** The greatest error of the server's clock as this page knows it (ms). */
const CLOCK_MARGIN = 5000;

/** Times and amounts in order, with gaps where this tab was not connected. */
export class Seen {
  /**
   * Time, amount, and the begin of the gap before the point; 0 if there was no gap.
   * @type {[number, number, number][]}
   */
  points = [];
  #apart = 0;
  #contact = 0;
  /** @type {number[]} */
  #intervals = [];
  /** @type {{from: number, to: number} | null} */
  #gap = null;

  /** Adds the present state of the job. @param {Job} job */
  add(job) {
    this.#hear(job.lastContactTime);
    const time = job.lastProgressTime || job.startTime;
    const last = this.points.at(-1);
    if (!time || (last && time <= last[0])) return;
    const gap = this.#gap && last && time <= this.#gap.to + CLOCK_MARGIN ? Math.max(this.#gap.from, last[0]) : 0;
    this.#gap = null;
    const missed = time - gap > SHORTEST_GAP ? gap : 0;
    if (last && !missed && time - last[0] < this.#apart) return;
    this.points.push([time, job.progress, missed]);
    if (this.points.length > POINTS) this.#thin();
  }

  /** A gap begins: the tab is no longer connected. @param {number} time */
  lose(time) {
    this.#gap ??= { from: time, to: Infinity };
  }

  /** The gap ends: the tab is connected again. @param {number} time */
  find(time) {
    if (this.#gap) this.#gap.to = Math.min(this.#gap.to, time);
    if (this.#gap && this.#gap.to - this.#gap.from < SHORTEST_GAP) this.#gap = null;
  }

  /** The usual time between reports (ms): the median of the latest; 0 if fewer than two reports were seen. */
  get usual() {
    const ordered = [...this.#intervals].sort((a, b) => a - b);
    return ordered[Math.floor(ordered.length / 2)] ?? 0;
  }

  /** @param {number} time */
  #hear(time) {
    if (time <= this.#contact) return;
    // How many reports there were in a gap is not known.
    if (this.#contact && !this.#gap) this.#intervals.push(time - this.#contact);
    if (this.#intervals.length > INTERVALS) this.#intervals.shift();
    this.#contact = time;
  }

  #thin() {
    const [first, last] = [this.points[0][0], this.points[this.points.length - 1][0]];
    this.points = this.points.filter(([, , gap], index) => index % 2 === 0 || gap);
    this.#apart = (2 * (last - first)) / POINTS;
  }
}
