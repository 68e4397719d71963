// The page: the session, the view, and one drawing for all changes since the last one.

import { announce } from "./announce.js";
import { caller, forget, fromAddress, fromTab, keep, shortened } from "./caller.js";
import { Clock } from "./clock.js";
import { call } from "./connect.js";
import { byId, mark, say } from "./dom.js";
import { Feed } from "./feed.js";
import { showFirstJob } from "./first.js";
import { JobPage } from "./job.js";
import { newest } from "./jobs.js";
import { List } from "./list.js";
import { Seen } from "./seen.js";
import { askToSwitch } from "./switch.js";
import { clock as timeOfDay, percent } from "./text.js";

/** @typedef {import("./jobs.js").Job} Job */
/** @typedef {import("./connect.js").Caller} Caller */
/** @typedef {import("./caller.js").Link} Link */

/** A restart of the server takes less time than this (ms), so the banner does not mention it. */
const BANNER_DELAY = 1500;
const TICK = 1000;

/** @type {Map<string, Job>} */
const jobs = new Map();
/** @type {Map<string, Seen>} */
const seen = new Map();
/** The ids of jobs that changed since the last drawing. @type {Set<string>} */
const changed = new Set();
const clock = new Clock();
const list = new List(jobs, seen, draw);

/** @type {Caller | null} */
let who = null;
/** @type {Feed | null} */
let feed = null;
/** @type {JobPage | null} */
let page = null;
let drawing = false;
/** Whether the server has accepted this caller. */
let wasConnected = false;
/** Whether all jobs have arrived: then an empty list means that there are no jobs. */
let complete = false;
/** Since when the server does not answer; 0 while it answers. */
let unreachableSince = 0;
/** The job that was shown before: the focus returns to its row. */
let last = "";
/** The job that was requested and does not exist. */
let missing = "";

/** Draws again in the next animation frame. */
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const now = clock.now();
    list.update(changed, now);
    if (page) {
      const job = jobs.get(page.id);
      if (job && changed.has(page.id)) page.show(job, seen.get(page.id), now);
      const gone = byId("job-gone");
      gone.hidden = Boolean(job) || missing !== page.id;
      // The focused element has been removed.
      if (!gone.hidden && document.activeElement === document.body) byId("job-gone-title").focus();
    }
    changed.clear();
    title();
    empty();
  });
}

function title() {
  const job = page && jobs.get(page.id);
  const running = [...jobs.values()].filter((each) => each.status === "RUNNING").length;
  const shown = job ? [job.ended ? "" : percent(job), job.name || job.id] : [running ? `${running} running` : ""];
  const words = page && !job && missing === page.id ? ["Job not found"] : shown;
  const whole = [...words, "Headway"].filter(Boolean).join(" · ");
  if (document.title !== whole) document.title = whole;
}

function empty() {
  const shown = complete && jobs.size === 0;
  byId("empty").hidden = !shown;
  // There is nothing to search or sort.
  byId("toolbar").hidden = shown;
  showFirstJob(shown && who && who.session !== "-" ? who.session : "");
}

/** Asks whether there are any jobs, because a watch of an empty session sends nothing. @param {Caller} known */
async function findAnyJob(known) {
  try {
    const { jobs: found = [] } = await call(known, "ListJobs", { pageSize: 1 });
    if (who !== known || found.length) return;
    complete = true;
    draw();
  } catch {
    // The watch reports the error.
  }
}

/** Shows a session. @param {Caller} known @param {boolean} [typed] whether the reader has just typed it */
function enter(known, typed = false) {
  who = known;
  keep(known);
  feed?.close();
  page?.close();
  page = null;
  clear();
  wasConnected = false;
  findAnyJob(known);
  feed = new Feed(known, {
    job(job) {
      clock.atLeast(newest(job));
      announce(jobs.get(job.id), job);
      jobs.set(job.id, job);
      let points = seen.get(job.id);
      if (!points) seen.set(job.id, (points = new Seen()));
      points.add(job);
      changed.add(job.id);
      draw();
    },
    removed(id) {
      jobs.delete(id);
      seen.delete(id);
      changed.add(id);
      showMissing(known, id);
      draw();
    },
    anew: clear,
    interrupted(silent) {
      for (const each of seen.values()) each.lose(clock.now() - silent);
    },
    opened(response) {
      clock.set(response);
    },
    live() {
      clock.go();
      for (const each of seen.values()) each.find(clock.now());
      complete = wasConnected = true;
      draw();
      unreachableSince = 0;
      connection("Live");
      if (page && !jobs.has(page.id)) findJob(known, page.id);
    },
    unreachable(error) {
      clock.stop();
      unreachableSince ||= performance.now();
      const why = error.reason ? error.message : "The server does not answer.";
      setTimeout(() => {
        if (!unreachableSince || performance.now() - unreachableSince < BANNER_DELAY) return;
        const asOf = wasConnected ? ` This is as of ${timeOfDay(clock.now())}.` : "";
        connection("Trying again…", `${why}${asOf} Trying again…`);
      }, BANNER_DELAY);
    },
    refused(error) {
      leave(error.reason === "CREDENTIALS_INVALID" && known.token ? explainInvalidToken(typed) : error.message);
    },
  });
  byId("all-sessions").hidden = known.session !== "-";
  showSession(false);
  document.body.dataset.view = "inside";
  connection("Connecting…");
  route();
}

/**
 * Follows a link. Somebody else may have made it. A tab that shows a session asks before it shows another one: otherwise
 * the reader could mistake foreign jobs for their own.
 * @param {Link} link
 */
function follow({ caller: wanted, job }) {
  const go = () => {
    if (job) history.replaceState(null, "", `#/job/${job}`);
    enter(wanted);
  };
  const present = who ?? fromTab();
  if (!present || (present.session === wanted.session && present.token === wanted.token)) return go();
  if (!who) enter(present);
  else if (page) history.replaceState(null, "", `#/job/${page.id}`);
  askToSwitch(go);
}

/** The reason why a token is refused, and what to do. Each start of the server creates another token. @param {boolean} typed */
function explainInvalidToken(typed) {
  const fault = typed
    ? "The server does not know this token."
    : wasConnected
      ? "The server was started again."
      : "This link is from an earlier start of the server.";
  const where = "Open the link that “headway serve” printed when it last started, or read the token in the file that it named.";
  return `${fault} Each start makes a new admin token. ${where}`;
}

/** @param {boolean} whole */
function showSession(whole) {
  const session = who && who.session !== "-" ? who.session : "";
  const button = byId("whose");
  button.hidden = !session;
  mark(button, "aria-expanded", String(whole));
  say(button, session && `Session ${whole ? session : shortened(session)}`);
}

/** @param {string} word @param {string} [banner] */
function connection(word, banner = "") {
  say(byId("connection"), word);
  mark(byId("connection"), "data-live", word === "Live" ? "" : null);
  say(byId("banner"), banner);
  mark(document.body, "data-unreachable", banner ? "" : null);
}

function clear() {
  for (const id of jobs.keys()) changed.add(id);
  jobs.clear();
  complete = false;
  draw();
}

/** @param {string} why */
function leave(why = "") {
  feed?.close();
  feed = who = null;
  page?.close();
  page = null;
  forget();
  clear();
  seen.clear();
  wasConnected = false;
  unreachableSince = 0;
  showSession(false);
  say(byId("enter-error"), why);
  document.body.dataset.view = "outside";
  if (!why) history.replaceState(null, "", location.pathname);
  byId("session").focus();
}

/** Shows what the address names: the list or a job. */
function route() {
  const link = fromAddress();
  if (link) return follow(link);
  if (!who) return;
  const [, id = ""] = location.hash.match(/^#\/job\/(.+)$/) ?? [];
  if (page?.id === id) return;
  page?.close();
  page = null;
  byId("job-gone").hidden = true;
  byId("list-view").hidden = Boolean(id);
  byId("job-view").hidden = !id;
  if (id) {
    page = new JobPage(who, id);
    const job = jobs.get(id);
    if (job) page.show(job, seen.get(id), clock.now());
    else findJob(who, id);
    page.focus();
    scrollTo(0, 0);
  } else if (last) {
    list.focus(last);
  }
  last = id;
  title();
}

/** Asks for a job that has not arrived yet: it may still arrive, or not exist. @param {Caller} known @param {string} id */
async function findJob(known, id) {
  try {
    await call(known, "GetJob", { jobId: id });
  } catch (error) {
    const { code } = /** @type {import("./connect.js").CallError} */ (error);
    if ((code === "not_found" || code === "invalid_argument") && !jobs.has(id)) showMissing(known, id);
  }
}

/** Shows that there is no such job, and nothing else: an empty page replaces the old one. @param {Caller} known @param {string} id */
function showMissing(known, id) {
  if (page?.id === id) {
    missing = id;
    page.close();
    page = new JobPage(known, id);
  }
  draw();
}

setInterval(() => {
  if (document.hidden || unreachableSince) return;
  const now = clock.now();
  if (page) page.tick(seen.get(page.id), now);
  else list.tick(now);
}, TICK);

byId("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const [session, token] = ["session", "token"].map((id) => /** @type {HTMLInputElement} */ (byId(id)));
  const known = caller(session.value.trim(), token.value.trim());
  session.value = token.value = "";
  if (!known.session) return;
  enter(known, true);
  if (!page) list.focus("");
});
byId("whose").addEventListener("click", () => showSession(byId("whose").getAttribute("aria-expanded") !== "true"));
byId("leave").addEventListener("click", () => leave());
addEventListener("hashchange", route);

const link = fromAddress();
const known = fromTab();
if (link) follow(link);
else if (known) enter(known);
else document.body.dataset.view = "outside";
