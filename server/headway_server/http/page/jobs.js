// A job in this page: the server's JSON, with numbers as numbers and times in milliseconds.

/** @typedef {"PENDING" | "RUNNING" | "LOST" | "COMPLETED" | "FAILED" | "CANCELLED"} Status */

/**
 * @typedef {object} Job Times are milliseconds since 1970 as the server's clock has them, 0 if not set; spans are ms.
 * @property {string} id
 * @property {string} name
 * @property {string} invoker
 * @property {string} unit
 * @property {string} message
 * @property {Status} status
 * @property {number} size 0 = not known
 * @property {number} progress
 * @property {boolean} stalled
 * @property {boolean} ended
 * @property {Record<string, string>} labels
 * @property {Record<string, number>} parts
 * @property {Record<string, number>} counters
 * @property {number} errorCount
 * @property {{code: number, message: string, trace: string[]} | null} error trace: lines of a traceback, the innermost last
 * @property {{reason: string, deadline: number, seen: boolean} | null} cancellation
 * @property {number} createTime
 * @property {number} startTime
 * @property {number} endTime
 * @property {number} lastContactTime
 * @property {number} lastProgressTime
 * @property {number} heartbeatTimeout
 * @property {number} stallTimeout
 * @property {number} retention
 * @property {{rate: number, low: number, high: number, asOf: number} | null} estimate rate in units a second
 * @property {number} attempt
 * @property {string} key
 * @property {string} continues the id of a job, or ""
 * @property {string} continuedBy
 * @property {{status: Status, time: number, reason: string}[]} history
 * @property {string} revision
 */

/**
 * A job from the protobuf JSON mapping, where fields of their default value may be missing and int64 are texts.
 * @param {any} raw
 * @returns {Job}
 */
export function readJob(raw) {
  const status = readStatus(raw.status);
  return {
    id: raw.id,
    name: raw.name ?? "",
    invoker: raw.invoker ?? "",
    unit: raw.unit ?? "",
    message: raw.message ?? "",
    status,
    size: Number(raw.size ?? 0),
    progress: Number(raw.progress ?? 0),
    stalled: raw.stalled ?? false,
    ended: status === "COMPLETED" || status === "FAILED" || status === "CANCELLED",
    labels: raw.labels ?? {},
    parts: numbers(raw.parts),
    counters: numbers(raw.counters),
    errorCount: Number(raw.errorCount ?? 0),
    error: raw.error ? { code: raw.error.code ?? 0, message: raw.error.message ?? "", trace: trace(raw.error) } : null,
    cancellation: raw.cancellation?.requested
      ? {
          reason: raw.cancellation.reason ?? "",
          deadline: time(raw.cancellation.deadline),
          seen: raw.cancellation.seen ?? false,
        }
      : null,
    createTime: time(raw.createTime),
    startTime: time(raw.startTime),
    endTime: time(raw.endTime),
    lastContactTime: time(raw.lastContactTime),
    lastProgressTime: time(raw.lastProgressTime),
    heartbeatTimeout: span(raw.heartbeatTimeout),
    stallTimeout: span(raw.stallTimeout),
    retention: span(raw.retention),
    estimate: raw.estimate
      ? {
          rate: Number(raw.estimate.rate ?? 0),
          low: span(raw.estimate.remainingLow),
          high: span(raw.estimate.remainingHigh),
          asOf: time(raw.estimate.asOf),
        }
      : null,
    attempt: raw.attempt ?? 0,
    key: raw.key ?? "",
    continues: raw.continues ?? "",
    continuedBy: raw.continuedBy ?? "",
    history: (raw.history ?? []).map((/** @type {any} */ change) => ({
      status: readStatus(change.status),
      time: time(change.time),
      reason: change.reason ?? "",
    })),
    revision: String(raw.revision ?? "0"),
  };
}

/** The newest time in a job. The server's clock is not behind it. @param {Job} job */
export function newest(job) {
  return Math.max(job.createTime, job.lastContactTime, job.lastProgressTime, job.endTime);
}

/** Whether the job needs attention. @param {Job} job */
export function needsAttention(job) {
  return job.status === "LOST" || job.stalled;
}

/** @param {string | undefined} name @returns {Status} */
function readStatus(name) {
  return /** @type {Status} */ ((name ?? "").replace("JOB_STATUS_", ""));
}

/** The traceback that a client sent with an error. @param {any} error @returns {string[]} */
function trace(error) {
  const info = (error.details ?? []).find((/** @type {any} */ each) => each["@type"]?.endsWith("/google.rpc.DebugInfo"));
  const entries = info?.stackEntries?.length ? info.stackEntries : [info?.detail ?? ""];
  return entries.join("\n").split("\n").filter((/** @type {string} */ line) => line.trim());
}

/** With its microseconds: jobs that are created together keep their order. @param {string | undefined} text */
function time(text) {
  if (!text) return 0;
  const fraction = text.match(/\.\d+/)?.[0] ?? "";
  return Date.parse(text.replace(fraction, "")) + Number(fraction || 0) * 1000;
}

/** @param {string | undefined} text "3.5s" */
function span(text) {
  return text ? Number.parseFloat(text) * 1000 : 0;
}

/** @param {Record<string, string> | undefined} texts @returns {Record<string, number>} */
function numbers(texts) {
  return Object.fromEntries(Object.entries(texts ?? {}).map(([name, amount]) => [name, Number(amount)]));
}
