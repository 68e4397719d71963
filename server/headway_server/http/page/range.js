// The range of time that the list shows: a preset, or two dates.

import { byId } from "./dom.js";
import { startOfDay } from "./text.js";

/** @typedef {import("./jobs.js").Job} Job */

const choice = /** @type {HTMLSelectElement} */ (byId("when"));
const dates = byId("dates");
const [first, last] = ["date-from", "date-to"].map((id) => /** @type {HTMLInputElement} */ (byId(id)));

/** Sets what is called when the reader chooses another range. @param {() => void} changed */
export function onRange(changed) {
  choice.addEventListener("change", () => {
    dates.hidden = choice.value !== "dates";
    if (!dates.hidden) first.focus();
    changed();
  });
  for (const date of [first, last]) date.addEventListener("change", changed);
}

/** Whether a job overlaps the range, from its start (or creation) to its end. @param {number} now @returns {(job: Job) => boolean} */
export function inRange(now) {
  const [from, to] = bounds(now);
  return (job) => (job.startTime || job.createTime) < to && (job.ended ? job.endTime : now) >= from;
}

/** @param {number} now @returns {[number, number]} */
function bounds(now) {
  switch (choice.value) {
    case "today":
      return [startOfDay(now), Infinity];
    case "yesterday":
      return [startOfDay(now, -1), startOfDay(now)];
    case "week":
      return [startOfDay(now, -6), Infinity];
    case "month":
      return [startOfDay(now, -29), Infinity];
    case "dates":
      return [midnight(first.value, 0) || -Infinity, midnight(last.value, 1) || Infinity];
    default:
      return [-Infinity, Infinity];
  }
}

/** Where the reader is; 0 without a date. @param {string} date "2026-11-30" @param {number} days */
function midnight(date, days) {
  return date ? startOfDay(new Date(`${date}T00:00`).getTime(), days) : 0;
}
