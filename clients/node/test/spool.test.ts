import assert from "node:assert/strict";
import fs from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import type { SpoolRequest } from "#dist/calls.js";
import { CreateJobRequest, FinishJobRequest, ReportProgressRequest } from "#dist/gen/headway/v1/job_service.js";
import { folder, fromFile, SpoolFile, type SpoolRecord, toFile, waitingFiles, write } from "#dist/spool.js";
import { SpoolSender } from "#dist/spool-sender.js";
import { Target } from "#dist/target.js";

const jobId = "0190b5a1c8d07b2a9c3e5f60718293a4";
const target = new Target("127.0.0.1:50051");
let place: string;

function record(...list: SpoolRequest[]): SpoolRecord {
  return { address: target.address, tls: target.tls, jobId, name: "Import", requests: list };
}

const create: SpoolRequest = {
  kind: "CreateJobRequest",
  message: CreateJobRequest.fromPartial({ sessionId: "s", jobId, heartbeatTimeout: { seconds: 60n, nanos: 0 } }),
};
const report: SpoolRequest = {
  kind: "ReportProgressRequest",
  message: ReportProgressRequest.fromPartial({ sessionId: "s", jobId, progress: 2n ** 60n, sequence: 7n }),
};
const finish: SpoolRequest = {
  kind: "FinishJobRequest",
  message: FinishJobRequest.fromPartial({ sessionId: "s", jobId, results: { a: [null, 1, "x"] } }),
};

beforeEach(() => {
  place = path.join(fs.mkdtempSync(path.join(tmpdir(), "headway-")), "spool");
  process.env.HEADWAY_SPOOL = place;
});

afterEach(() => fs.rmSync(path.dirname(place), { recursive: true }));

test("what is written can be read, by its user only", () => {
  const file = write(record(create, report, finish));
  assert.deepEqual(fromFile(fs.readFileSync(file.path, "utf8")), record(create, report, finish));
  assert.equal(fs.statSync(file.path).mode & 0o777, 0o600);
  assert.equal(fs.statSync(place).mode & 0o777, 0o700);
  // The checksum of "127.0.0.1:50051 False", as every client writes it.
  assert.match(path.basename(file.path), new RegExp(`^1e37332c-[0-9a-f]{32}-${jobId}\\.json$`));
  assert.deepEqual(fs.readdirSync(place), [path.basename(file.path)]);
});

test("a folder that is not the user's alone keeps its mode, and gets nothing", () => {
  fs.mkdirSync(place);
  fs.chmodSync(place, 0o755);
  assert.throws(() => write(record(finish)), /is open to others: chmod 700 it/);
  assert.equal(fs.statSync(place).mode & 0o777, 0o755);
  assert.deepEqual(fs.readdirSync(place), []);
});

test("spool files are found by their server and job, and are claimed once", () => {
  const file = write(record(finish));
  assert.deepEqual(waitingFiles(target), [file.path]);
  assert.deepEqual(waitingFiles(target, jobId), [file.path]);
  assert.deepEqual(waitingFiles(target, "0".repeat(32)), []);
  assert.deepEqual(waitingFiles(new Target("https://127.0.0.1:50051")), []);
  assert.equal(SpoolFile.claim(file.path), undefined);
  file.release();
  assert.ok(SpoolFile.claim(file.path)?.text.includes("FinishJobRequest"));
});

test("a file that was written again meanwhile is not removed", () => {
  const old = write(record(create));
  const fresh = write(record(create, finish), old);
  old.remove();
  assert.ok(fs.existsSync(fresh.path));
  fresh.remove();
  assert.ok(!fs.existsSync(fresh.path));
});

test("what is refused stays beside", () => {
  const refused = write(record(finish)).refuse();
  assert.deepEqual(fs.readdirSync(place), [path.basename(refused)]);
  assert.deepEqual(waitingFiles(target), []);
});

test("a file that was written again meanwhile is not set aside", () => {
  const old = write(record(create));
  const fresh = write(record(create, finish), old);
  old.refuse();
  assert.ok(fs.existsSync(fresh.path));
});

test("a file that cannot be claimed holds back later files of its job, and no others", async () => {
  const held = write(record(create));
  const later = write(record(finish));
  const other = write({ ...record(finish), jobId: "0".repeat(32) });
  for (const file of [later, other]) {
    file.release();
    fs.writeFileSync(file.path, "{");
  }
  const spoolSender = new SpoolSender(target, { warn() {}, info() {} });
  assert.deepEqual(await spoolSender.deliver(), { sent: 0, refused: 1, waiting: 2 });
  held.release();
  assert.ok(fs.existsSync(later.path));
});

test("a symbolic link is no spool file", () => {
  const file = write(record(finish));
  const link = file.path.replace(jobId, "0".repeat(32));
  fs.symlinkSync(file.path, link);
  assert.equal(SpoolFile.claim(link), undefined);
});

test("a large spool file loses record errors, and nothing else", () => {
  const recordErrors = Array.from({ length: 1000 }, () => ({ record: "r", code: "", message: "x".repeat(1000) }));
  const heavy = (): SpoolRequest => ({
    kind: "ReportProgressRequest",
    message: ReportProgressRequest.fromPartial({ jobId, progress: 1n, recordErrors }),
  });
  const text = toFile(record(...Array.from({ length: 10 }, heavy), finish));
  assert.ok(text.length <= 8 * 1024 * 1024);
  const left = fromFile(text).requests;
  assert.equal(left.length, 11);
  assert.ok(left.every(({ kind, message }) => kind === "FinishJobRequest" || "progress" in message));
});

test("damaged and strange files are told from good ones", () => {
  assert.throws(() => fromFile("{"), /damaged/);
  assert.throws(() => fromFile('{"version": 2}'), /version 2/);
  assert.throws(() => fromFile('{"version": 1, "requests": [["What", ""]]}'), /damaged/);
});

test("an empty HEADWAY_SPOOL turns it off, and a full one takes no more", () => {
  for (let index = 0; index < 100; index += 1) write(record(finish));
  assert.throws(() => write(record(finish)), /100 files/);
  process.env.HEADWAY_SPOOL = "";
  assert.equal(folder(), undefined);
  assert.throws(() => write(record(finish)), /empty/);
});
