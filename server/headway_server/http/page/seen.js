// What this tab has seen of one job: how its progress went, and how often its worker reports.

/** @typedef {import("./jobs.js").Job} Job */

/** Points that are kept of a job; when there are more, every second one goes. */
const POINTS = 240;
/** Intervals between reports that are kept: the latest. */
const INTERVALS = 9;
/** A shorter time out of sight is no gap (ms): a restart of the server takes less. */
const SHORTEST_GAP = 5000;
/** The server's clock is known within this (ms). */
const CLOCK_MARGIN = 5000;

/** Times and amounts in their order, with gaps where this tab could not see the job. */
export class Seen {
  /**
   * Time, amount, and when the job went out of sight before; 0 if it was in sight since the last point.
   * @type {[number, number, number][]}
   */
  points = [];
  #apart = 0;
  #contact = 0;
  /** @type {number[]} */
  #intervals = [];
  /** @type {{from: number, to: number} | null} */
  #gap = null;

  /** The job as it is now. @param {Job} job */
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

  /** This tab sees nothing more of it. @param {number} time */
  lose(time) {
    this.#gap ??= { from: time, to: Infinity };
  }

  /** This tab sees it again. @param {number} time */
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
    // Across a gap nobody knows how many reports there were.
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
