import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import fs from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type sendUnaryData,
} from "@grpc/grpc-js";
import { type Client, type ConnectOptions, connect, InvalidError } from "@headway/client";
import type { Call } from "#dist/calls.js";
import { ErrorPolicy, policyFor, unsendable } from "#dist/error-policy.js";
import { Job as JobMessage, JobStatus } from "#dist/gen/headway/v1/job.js";
import {
  FailJobRequest,
  type ReportProgressRequest,
  type StreamProgressRequest,
  StreamProgressResponse,
  JobServiceService as service,
} from "#dist/gen/headway/v1/job_service.js";
import { JobState, PendingCall } from "#dist/job-state.js";
import { SpoolFile, waitingFiles } from "#dist/spool.js";
import { Target } from "#dist/target.js";

const id = "0190b5a1c8d07b2a9c3e5f60718293a4";
const silent = { warn() {}, info() {} };
process.env.HEADWAY_SPOOL = "";

/** A client of a server that does not exist. */
function away(options: ConnectOptions = {}): Client {
  return connect({ target: "127.0.0.1:9", session: "s", exitTimeout: 0, logger: silent, ...options });
}

/** A server with one job, and the reports that it received. */
async function serve(
  state: JobMessage,
): Promise<{ target: string; reports: ReportProgressRequest[]; ended: string[]; stop(): void }> {
  const reports: ReportProgressRequest[] = [];
  const ended: string[] = [];
  const server = new Server();
  server.addService(service, {
    getJob: (_: unknown, answer: sendUnaryData<JobMessage>) => answer(null, state),
    createJob: (_: unknown, answer: sendUnaryData<JobMessage>) => answer(null, state),
    failJob(call: ServerUnaryCall<FailJobRequest, JobMessage>, answer: sendUnaryData<JobMessage>) {
      ended.push(call.request.error?.message ?? "");
      answer(null, state);
    },
    streamProgress(call: ServerDuplexStream<StreamProgressRequest, StreamProgressResponse>) {
      let acked = 0;
      call.on("data", (request: StreamProgressRequest) => {
        reports.push(...request.reports);
        acked += 1;
        call.write(StreamProgressResponse.fromPartial({ acked }));
      });
      call.on("end", () => call.end());
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    const bound = (error: Error | null, found: number) => (error ? reject(error) : resolve(found));
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), bound);
  });
  return { target: `127.0.0.1:${port}`, reports, ended, stop: () => server.forceShutdown() };
}

test("a logger that throws harms neither the process nor the reports", async () => {
  const events = new EventEmitter();
  const said = once(events, "said");
  const warn = () => {
    events.emit("said");
    throw new Error("the logger is broken");
  };
  const client = away({ logger: { warn, info: warn } });
  const job = await client.create("x");
  // The second failed try is logged. A waiting caller makes it come soon.
  const flushed = job.flush(500);
  await said;
  assert.equal(await flushed, false);
  await client.close();
});

test("what no message can hold is refused by itself, and is no outage", () => {
  const error = { code: 0.5, message: "", details: [] };
  const call: Call = { kind: "FailJobRequest", message: FailJobRequest.fromPartial({ jobId: id, error }) };
  const fault = unsendable(call);
  assert.ok(fault);
  assert.equal(policyFor(fault), ErrorPolicy.Drop);
});

test("a span that is none is refused before anything is sent", async () => {
  for (const heartbeatTimeout of [Number.NaN, Number.POSITIVE_INFINITY, 1e30]) {
    await assert.rejects(away().create("x", { heartbeatTimeout }), InvalidError);
  }
});

test("what a closed client has saved can be sent by the next, in the same process too", async () => {
  const place = fs.mkdtempSync(path.join(tmpdir(), "headway-"));
  process.env.HEADWAY_SPOOL = place;
  try {
    const client = away();
    await (await client.create("x")).finish();
    await client.close();
    const [file] = waitingFiles(new Target("127.0.0.1:9"));
    assert.ok(file && SpoolFile.claim(file));
  } finally {
    process.env.HEADWAY_SPOOL = "";
    fs.rmSync(place, { recursive: true });
  }
});

test("a watch ends with its client, and what is said later is a warning", async () => {
  const said: string[] = [];
  const client = away({ logger: { warn: (text) => said.push(text), info() {} } });
  const job = await client.create("x");
  const events = new EventEmitter();
  const broken = once(events, "broken");
  const watching = client.watch(id, { onBroken: () => events.emit("broken") }).next();
  await broken;
  await client.close();
  await assert.rejects(watching, /closed/);
  await job.finish();
  assert.match(said.at(-1) ?? "", /after its client was closed/);
});

test("a fetched job is released at the end of its block, and not ended", async () => {
  const server = await serve(JobMessage.fromPartial({ id, status: JobStatus.RUNNING, attempt: 1 }));
  const client = connect({ target: server.target, session: "s", logger: silent });
  const job = await client.fetch(id);
  job?.part("a").advance(3);
  await job?.[Symbol.asyncDispose]();
  assert.deepEqual(
    server.reports.map(({ part, progress }) => [part, progress]),
    [["a", 3n]],
  );
  await client.close();
  server.stop();
});

test("reports of a job that was PENDING flow once it is known to run", async () => {
  const state = JobMessage.fromPartial({ id, status: JobStatus.PENDING });
  const server = await serve(state);
  const client = connect({ target: server.target, session: "s", logger: silent });
  const job = await client.fetch(id);
  job?.part("a").advance(3);
  await job?.flush();
  assert.equal(server.reports.length, 0);
  state.status = JobStatus.RUNNING;
  await job?.refresh();
  await job?.flush();
  assert.equal(server.reports[0]?.progress, 3n);
  await client.close();
  server.stop();
});

test("reports after a failed flush are left", () => {
  const jobState = new JobState("s", JobMessage.fromPartial({ id }), { heartbeat: 0, started: true });
  jobState.partState.done = 1;
  jobState.addCall(new PendingCall({ afterReports: true }));
  assert.equal([...jobState.reports(0)].length, 1);
  jobState.partState.done = 2;
  const left = jobState.undelivered().map(({ message }) => "progress" in message && message.progress);
  assert.deepEqual(left, [1n, 2n]);
});

test("a job that waits for another is not ended with its creator's block", async () => {
  const server = await serve(JobMessage.fromPartial({ id, status: JobStatus.PENDING }));
  const client = connect({ target: server.target, session: "s", exitTimeout: 0, logger: silent });
  const job = await client.create("x", { jobId: id, pending: true });
  await job[Symbol.asyncDispose]();
  assert.deepEqual(server.ended, []);
  await client.close();
  server.stop();
});

test("many may listen to a job's signal", async () => {
  const warnings: Error[] = [];
  const note = (warning: Error) => warnings.push(warning);
  process.on("warning", note);
  const client = away();
  const { signal } = await client.create("x");
  for (let index = 0; index < 20; index += 1) signal.addEventListener("abort", () => {});
  await client.close();
  process.off("warning", note);
  assert.deepEqual(warnings, []);
});
