// Texts for people that describe jobs. Callers insert them as text, never as markup.

/** @typedef {import("./jobs.js").Job} Job */

const SECOND = 1000;
const EACH = /** @type {[number, string][]} */ ([[1, "s"], [60, "min"], [3600, "h"]]);
/** Up to which length (s) an estimate is rounded to which steps (s). Finer steps would flicker. */
const STEPS = [[20, 1], [100, 5], [600, 10], [6000, 60], [360_000, 300]];
/** A worker is late after this time (ms), if it is also longer than LATE times the usual interval of its reports. */
const SILENT_AFTER = 5000;
const LATE = 3;
const BYTES = ["bytes", "kB", "MB", "GB", "TB", "PB"];

const WORDS = {
  PENDING: "Pending",
  RUNNING: "Running",
  LOST: "Lost",
  COMPLETED: "Completed",
  FAILED: "Failed",
  CANCELLED: "Cancelled",
};

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const digits = /** @type {Record<number, Intl.NumberFormat>} */ ({});
const dateAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const hourAndMinute = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const dayAndTime = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const yearAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const dayAndYear = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const timeOfDay = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** 1,234,567 · 12 · 1.2 · 0.012: only significant digits. @param {number} value */
export function number(value) {
  if (Number.isInteger(value) || Math.abs(value) >= 10) return whole.format(value);
  return Math.abs(value) >= 1 ? tenths.format(value) : significant(value, 2);
}

/** 42 s · 10 min 17 s · 2 h 3 min · 5 d @param {number} length ms */
export function span(length) {
  const seconds = Math.round(Math.max(length, 0) / SECOND);
  if (seconds < 100) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 100) return both(minutes, "min", seconds % 60, "s");
  const hours = Math.floor(minutes / 60);
  return hours < 100 ? both(hours, "h", minutes % 60, "min") : `${Math.floor(hours / 24)} d`;
}

/** Date and time in the reader's time zone. @param {number} time */
export function moment(time) {
  return dateAndTime.format(time);
}

/** Time of day in the reader's time zone. @param {number} time */
export function clock(time) {
  return timeOfDay.format(time);
}

/** Today · Yesterday · Friday 27 November, in the reader's time zone. @param {number} time @param {number} now */
export function dayName(time, now) {
  const begin = startOfDay(time);
  if (begin === startOfDay(now)) return "Today";
  if (begin === startOfDay(now, -1)) return "Yesterday";
  return (sameYear(time, now) ? day : dayAndYear).format(time);
}

/** Midnight before that time in the reader's time zone, plus some days. @param {number} time @param {number} [days] */
export function startOfDay(time, days = 0) {
  const date = new Date(time);
  // Counts days and not hours: a day can have 23 or 25 hours.
  return new Date(date.getFullYear(), date.getMonth(), date.getDate() + days).getTime();
}

/**
 * 14:03 to 14:13 · since 14:03 · created 14:03: with the day, unless it is this one.
 * @param {Job} job @param {number} day a time of it
 */
export function times(job, day) {
  const begin = job.startTime || job.createTime;
  if (!job.ended) return `${job.startTime ? "since" : "created"} ${shortTime(begin, day)}`;
  if (startOfDay(begin) !== startOfDay(job.endTime)) return `${shortTime(begin, 0)} to ${shortTime(job.endTime, 0)}`;
  const [from, to] = [hourAndMinute.format(begin), hourAndMinute.format(job.endTime)];
  return from === to ? shortTime(begin, day) : `${shortTime(begin, day)} to ${to}`;
}

/** @param {number} time @param {number} known a time of the day that need not be told; 0: none */
function shortTime(time, known) {
  if (startOfDay(time) === startOfDay(known)) return hourAndMinute.format(time);
  return (!known || sameYear(time, known) ? dayAndTime : yearAndTime).format(time);
}

/** @param {number} time @param {number} now */
function sameYear(time, now) {
  return new Date(time).getFullYear() === new Date(now).getFullYear();
}

/** The fraction that is done; null if it is not known. It can exceed 1. @param {Job} job */
export function share(job) {
  if (job.size) return job.progress / job.size;
  return job.status === "COMPLETED" ? 1 : null;
}

/** 25 % @param {Job} job */
export function percent(job) {
  return job.size ? `${whole.format(Math.floor((job.progress * 100) / job.size))} %` : "";
}

/** 50 of 200 records · 3.40 of 10.2 GB · 25 % @param {Job} job */
export function count(job) {
  // A job without progress and size has no count.
  if (!job.size && !job.progress && !job.unit) return "";
  return amounts(job, job.size ? [job.progress, job.size] : [job.progress]);
}

/** One amount of what the job counts: 50 records @param {Job} job @param {number} value */
export function amount(job, value) {
  return amounts(job, [value]);
}

/** @param {Job} job @param {number[]} values */
function amounts(job, values) {
  if (job.unit === "%") return `${number(values[0])} %`;
  if (job.unit === "bytes") {
    const power = scale(Math.max(...values));
    return `${values.map((value) => short(value / 1000 ** power)).join(" of ")} ${BYTES[power]}`;
  }
  return `${values.map(number).join(" of ")} ${job.unit}`.trimEnd();
}

/** 120 records/s: the present pace, or the average if the job has ended or has no size; "" if it is not known. @param {Job} job */
export function rate(job) {
  if (job.unit === "%" || !(job.ended || moves(job))) return "";
  let pace = job.estimate?.rate ?? 0;
  if (job.ended || !job.estimate) {
    const end = job.ended ? job.endTime : job.lastProgressTime;
    const length = job.startTime ? (end - job.startTime) / SECOND : 0;
    pace = length >= 1 ? job.progress / length : 0;
  }
  if (pace <= 0) return "";
  if (job.unit === "bytes") {
    const power = scale(pace);
    return `${short(pace / 1000 ** power)} ${BYTES[power]}/s`;
  }
  const [per, name] = EACH.find(([each]) => pace * each >= 1) ?? EACH[2];
  return `${number(pace * per)} ${job.unit || "units"}/${name}`;
}

/**
 * 40 to 50 s left; "" without an estimate, or once it has proved wrong. While no progress arrives, the lower bound falls
 * with time; the upper bound stays once progress is overdue.
 * @param {Job} job @param {number} now
 */
export function remaining(job, now) {
  const range = remainingRange(job, now);
  if (!range) return "";
  const [soonest, latest] = [rough(range.low, Math.floor), rough(range.high, Math.ceil)];
  if (soonest === latest) return `${latest} left`;
  if (soonest === "0 s") return `up to ${latest} left`;
  const [first, unit, ...more] = soonest.split(" ");
  return `${!more.length && latest.endsWith(` ${unit}`) ? first : soonest} to ${latest} left`;
}

/** The same in ms, null where there is none. @param {Job} job @param {number} now */
export function remainingRange(job, now) {
  if (!job.estimate || !moves(job)) return null;
  const { rate: pace, low, high, asOf } = job.estimate;
  const passed = Math.max(now - asOf, 0);
  if (passed > high) return null;
  const due = pace > 0 ? SECOND / pace : 0;
  return { low: Math.max(low - passed, 0), high: Math.max(high - Math.min(passed, due), 0) };
}

/** running 3 min 5 s · took 3 min 5 s; "" before the start @param {Job} job @param {number} now */
export function duration(job, now) {
  if (!job.startTime) return "";
  if (!job.ended) return `running ${span(now - job.startTime)}`;
  const length = job.endTime - job.startTime;
  return `took ${length < SECOND ? "under 1 s" : span(length)}`;
}

/** 3 record errors; "" for none @param {Job} job */
export function errorCount(job) {
  return job.errorCount ? `${number(job.errorCount)} record error${job.errorCount === 1 ? "" : "s"}` : "";
}

/** added 412 · updated 88 @param {Job} job */
export function counters(job) {
  return Object.entries(job.counters).sort().map(([name, value]) => `${name} ${number(value)}`).join(" · ");
}

/** The word for the state. @param {Job} job */
export function status(job) {
  if (job.stalled) return "Stalled";
  if (job.cancellation && job.status === "RUNNING") return "Cancelling";
  return statusWord(job.status);
}

/** @param {import("./jobs.js").Status} name */
export function statusWord(name) {
  return WORDS[name] ?? name;
}

/** The warnings: lost, stalled, about to be cancelled. @param {Job} job @param {number} now */
export function warnings(job, now) {
  const found = [];
  if (job.status === "LOST") found.push(`no contact for ${span(now - job.lastContactTime)}`);
  if (job.stalled) found.push(`no progress for ${span(now - (job.lastProgressTime || job.startTime))}`);
  if (job.cancellation && !job.ended) {
    const { deadline, reason } = job.cancellation;
    found.push(`to be cancelled within ${span(deadline - now)}${reason ? `: ${reason}` : ""}`);
  }
  return found;
}

/**
 * no report for 30 s, if the worker is late; "" otherwise.
 * @param {Job} job @param {number} now @param {number} usual ms between its reports, as far as this page has seen any
 */
export function silence(job, now, usual) {
  if (job.status !== "RUNNING" || !job.lastContactTime) return "";
  const length = now - job.lastContactTime;
  return length > Math.max(SILENT_AFTER, LATE * usual) ? `no report for ${span(length)}` : "";
}

/** The reason of the end, if the job failed or was cancelled. @param {Job} job */
export function ending(job) {
  return job.error ? job.error.message || `code ${job.error.code}` : "";
}

/** Whether a worker is active, as far as the server knows. @param {Job} job */
export function moves(job) {
  return job.status === "RUNNING" && !job.stalled;
}

/** @param {number} length ms @param {(_: number) => number} round */
function rough(length, round) {
  const seconds = length / SECOND;
  const step = STEPS.find(([most]) => seconds < most)?.[1] ?? 86_400;
  return span(round(seconds / step) * step * SECOND);
}

/** @param {number} large @param {string} unit @param {number} small @param {string} part */
function both(large, unit, small, part) {
  return small ? `${large} ${unit} ${small} ${part}` : `${large} ${unit}`;
}

/** The power of 1000 that so many bytes are told in. @param {number} value */
function scale(value) {
  return value >= 1 ? Math.min(Math.floor(Math.log10(value) / 3), BYTES.length - 1) : 0;
}

/** Three digits: 3.40, 34.0, 340. @param {number} value */
function short(value) {
  return Number.isInteger(value) ? whole.format(value) : significant(value, 3);
}

/** @param {number} value @param {number} count */
function significant(value, count) {
  digits[count] ??= new Intl.NumberFormat(undefined, { minimumSignificantDigits: count, maximumSignificantDigits: count });
  return digits[count].format(value);
}
