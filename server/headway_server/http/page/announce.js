// Announcements for screen readers: that a job has ended, is lost or stalled. Progress is not announced.

import { byId } from "./dom.js";
import { needsAttention } from "./jobs.js";
import { status } from "./text.js";

/** @typedef {import("./jobs.js").Job} Job */

/** Sentences are collected and announced at most so often (ms). */
const PAUSE = 3000;

/** @type {{name: string, word: string}[]} */
let waiting = [];
let timer = 0;

/** Announces a change from one state to the next, if it is important. @param {Job | undefined} before @param {Job} job */
export function announce(before, job) {
  const ended = job.ended && before && !before.ended;
  const caught = needsAttention(job) && before && !needsAttention(before);
  if (!ended && !caught) return;
  waiting.push({ name: job.name || "A job", word: status(job).toLowerCase() });
  timer ||= setTimeout(say, PAUSE);
}

function say() {
  const words = waiting.length <= 2
    ? waiting.map(({ name, word }) => `${name}: ${word}.`)
    : [...new Set(waiting.map(({ word }) => word))].map((each) => {
        const count = waiting.filter(({ word }) => word === each).length;
        return `${count} ${count === 1 ? "job" : "jobs"} ${each}.`;
      });
  byId("announcer").textContent = words.join(" ");
  waiting = [];
  timer = 0;
}
