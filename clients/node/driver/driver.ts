/** The driver of this client for the conformance suite: clients/conformance/README.md. */

import { createInterface } from "node:readline";
import {
  type Client,
  type Code,
  connect,
  HeadwayError,
  type Job,
  JobCancelled,
  type JobView,
  type Json,
  type ListOptions,
  type Meter,
} from "@headway/client";

/** The arguments of an operation. */
interface Arguments extends Omit<ListOptions, "signal" | "pageSize"> {
  job: string;
  of: string;
  part?: string;
  value: number & string;
  times?: number;
  by?: number;
  items: number;
  stop_before?: number;
  counter: string;
  record: string;
  message?: string;
  code?: Code;
  variables: { [name: string]: Json };
  results?: Json;
  how: "done" | "error" | "cancelled";
  timeout: number;
  reason?: string;
  grace?: number;
  names?: string[];
  page_size?: number;
  exit_timeout?: number;
  call_timeout?: number;
  token?: string;
  target?: string;
  size?: number;
  unit?: string;
  heartbeat_timeout?: number;
  stall_timeout?: number;
  retention?: number;
  pending?: boolean;
  job_id?: string;
  continues?: string;
  key?: string;
}

const ms = (seconds: number) => seconds * 1000;
const optional = (seconds: number | undefined) => (seconds === undefined ? undefined : ms(seconds));

let client: Client;
const jobs = new Map<string, Job>();

function job(name: string): Job {
  const found = jobs.get(name);
  if (!found) throw new Error(`there is no job ${name}`);
  return found;
}

function meter({ job: name, part }: Arguments): Meter {
  return part ? job(name).part(part) : job(name);
}

function repeat(times: number | undefined, action: (index: number) => void): void {
  for (let index = 0; index < (times ?? 1); index += 1) action(index);
}

function view(name: string): object {
  const { id, name: title, invoker, status, progress, size, unit, message, attempt, results, signal } = job(name);
  const about = { id, name: title, invoker, status, progress, size, unit, message, attempt };
  return { ...about, results: results ?? null, cancelled: signal.aborted };
}

function keep(name: string, found: Job): object {
  jobs.set(name, found);
  return view(name);
}

function state({ errorCount, continuedBy, ...rest }: JobView): object {
  return { ...rest, error_count: errorCount, continued_by: continuedBy };
}

/** Waits until the signal is aborted, at most so many seconds. Returns its reason. */
async function aborted(signal: AbortSignal, timeout: number): Promise<unknown> {
  if (!signal.aborted) {
    await new Promise<unknown>((resolve) => {
      const timer = setTimeout(resolve, ms(timeout));
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve(undefined);
      });
    });
  }
  return signal.reason;
}

const operations: { [op: string]: (about: Arguments) => unknown } = {
  connect({ exit_timeout, call_timeout, token, target }) {
    client = connect({ exitTimeout: optional(exit_timeout), callTimeout: optional(call_timeout), token, target });
  },
  close: () => client.close(),
  async create(about) {
    const { session, invoker, size, unit, labels, pending, continues, key, job_id: jobId } = about;
    const options = {
      ...{ session, invoker, size, unit, labels, pending, continues, key, jobId },
      heartbeatTimeout: optional(about.heartbeat_timeout),
      stallTimeout: optional(about.stall_timeout),
      retention: optional(about.retention),
    };
    return keep(about.job, await client.create(about.name, options));
  },
  async resume({ job: name, of, session }) {
    return keep(name, await client.resume(of, { session }));
  },
  async fetch({ job: name, of, session }) {
    const found = await client.fetch(of, { session });
    return found && keep(name, found);
  },
  view: ({ job: name }) => view(name),
  async refresh({ job: name }) {
    await job(name).refresh();
    return view(name);
  },
  progress(about) {
    const part = meter(about);
    repeat(about.times, (index) => {
      part.progress = about.value + index;
    });
  },
  advance(about) {
    const part = meter(about);
    repeat(about.times, () => part.advance(about.by));
  },
  async track({ job: name, items, stop_before }) {
    let seen = 0;
    try {
      for await (const number of job(name).track(Array.from({ length: items }, (_, index) => index + 1))) {
        seen += 1;
        if (number === stop_before) break;
      }
    } catch (error) {
      if (!(error instanceof JobCancelled)) throw error;
    }
    return seen;
  },
  count(about) {
    repeat(about.times, () => meter(about).count(about.counter, about.by));
  },
  record_error(about) {
    repeat(about.times, () => meter(about).recordError(about.record, about.message, about.code));
  },
  set({ job: name, variables }) {
    job(name).set(variables);
  },
  checkpoint(about) {
    meter(about).checkpoint(about.variables);
  },
  message({ job: name, value }) {
    job(name).message = value;
  },
  size({ job: name, value }) {
    job(name).size = value;
  },
  name({ job: name, value }) {
    job(name).name = value;
  },
  invoker({ job: name, value }) {
    job(name).invoker = value;
  },
  finish: ({ job: name, results }) => job(name).finish(results),
  fail: ({ job: name, message, code }) => job(name).fail(message, code),
  async leave({ job: name, how, message }) {
    const work = job(name).run(({ signal }) => {
      if (how === "error") throw new Error(message);
      if (how === "cancelled") signal.throwIfAborted();
    });
    await work.catch(() => {});
  },
  flush: ({ job: name, timeout }) => job(name).flush(ms(timeout)),
  get: ({ job: name, name: key }) => job(name).get(key ?? ""),
  async wait_cancelled({ job: name, timeout }) {
    const cancelling = (await aborted(job(name).signal, timeout)) as JobCancelled | undefined;
    return cancelling && { reason: cancelling.reason, deadline: cancelling.deadline?.toISOString() ?? null };
  },
  async wait_stopped({ job: name, timeout }) {
    const error = (await aborted(job(name).stopSignal, timeout)) as HeadwayError | undefined;
    return error && { reason: error.reason };
  },
  async cancel({ of, session, reason, grace }) {
    return state(await client.cancel(of, { session, reason, grace: optional(grace) }));
  },
  clear: ({ of, session }) => client.clear(of, { session }),
  read: async ({ of, session }) => state(await client.get(of, { session })),
  async list({ session, statuses, name, invoker, labels, stalled, page_size: pageSize }) {
    const filters = { session, statuses, name, invoker, labels, stalled, pageSize };
    const found: object[] = [];
    for await (const one of client.list(filters)) found.push(state(one));
    return found;
  },
  results: ({ of, session }) => client.results(of, { session }),
  variables: ({ of, session, names }) => client.variables(of, names, { session }),
  record_errors: ({ of, session }) => client.recordErrors(of, { session }),
  async watch({ of, session, timeout }) {
    const seen: unknown[] = [];
    for await (const { revision, status, progress } of client.watch(of, { session, timeout: ms(timeout) })) {
      seen.push([revision, status, progress]);
    }
    return seen;
  },
  wait: async ({ of, session, timeout }) => state(await client.wait(of, { session, timeout: ms(timeout) })),
  flush_spool: () => client.flushSpool(),
};

async function answer(request: Arguments & { id: number; op: string }): Promise<object> {
  const { id, op } = request;
  try {
    const operation = operations[op];
    return operation ? { id, value: (await operation(request)) ?? null } : { id, unsupported: `there is no ${op}` };
  } catch (error) {
    if (!(error instanceof HeadwayError)) throw error;
    const { code, reason, message, retryAfter } = error;
    const about = { code, reason, message, fields: error.fields.map(({ field }) => field) };
    return { id, error: retryAfter === undefined ? about : { ...about, retry_after: retryAfter / 1000 } };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))));
}
