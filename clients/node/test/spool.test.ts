import assert from "node:assert/strict";
import fs from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import type { Word } from "#dist/calls.js";
import { CreateJobRequest, FinishJobRequest, ReportProgressRequest } from "#dist/gen/headway/v1/job_service.js";
import { Postman } from "#dist/postman.js";
import { folder, fromFile, Letter, letters, toFile, type Words, write } from "#dist/spool.js";
import { Target } from "#dist/target.js";

const jobId = "0190b5a1c8d07b2a9c3e5f60718293a4";
const target = new Target("127.0.0.1:50051");
let place: string;

function words(...list: Word[]): Words {
  return { address: target.address, tls: target.tls, jobId, name: "Import", words: list };
}

const create: Word = {
  kind: "CreateJobRequest",
  message: CreateJobRequest.fromPartial({ sessionId: "s", jobId, heartbeatTimeout: { seconds: 60n, nanos: 0 } }),
};
const report: Word = {
  kind: "ReportProgressRequest",
  message: ReportProgressRequest.fromPartial({ sessionId: "s", jobId, progress: 2n ** 60n, sequence: 7n }),
};
const finish: Word = {
  kind: "FinishJobRequest",
  message: FinishJobRequest.fromPartial({ sessionId: "s", jobId, results: { a: [null, 1, "x"] } }),
};

beforeEach(() => {
  place = path.join(fs.mkdtempSync(path.join(tmpdir(), "headway-")), "spool");
  process.env.HEADWAY_SPOOL = place;
});

afterEach(() => fs.rmSync(path.dirname(place), { recursive: true }));

test("what is written can be read, by its user alone", () => {
  const letter = write(words(create, report, finish));
  assert.deepEqual(fromFile(fs.readFileSync(letter.path, "utf8")), words(create, report, finish));
  assert.equal(fs.statSync(letter.path).mode & 0o777, 0o600);
  assert.equal(fs.statSync(place).mode & 0o777, 0o700);
  // The checksum of "127.0.0.1:50051 False", as every client writes it.
  assert.match(path.basename(letter.path), new RegExp(`^1e37332c-[0-9a-f]{32}-${jobId}\\.json$`));
  assert.deepEqual(fs.readdirSync(place), [path.basename(letter.path)]);
});

test("a folder that is not the user's alone keeps its mode, and gets nothing", () => {
  fs.mkdirSync(place);
  fs.chmodSync(place, 0o755);
  assert.throws(() => write(words(finish)), /is open to others: chmod 700 it/);
  assert.equal(fs.statSync(place).mode & 0o777, 0o755);
  assert.deepEqual(fs.readdirSync(place), []);
});

test("letters are found by their server and job, and are in one pair of hands", () => {
  const letter = write(words(finish));
  assert.deepEqual(letters(target), [letter.path]);
  assert.deepEqual(letters(target, jobId), [letter.path]);
  assert.deepEqual(letters(target, "0".repeat(32)), []);
  assert.deepEqual(letters(new Target("https://127.0.0.1:50051")), []);
  assert.equal(Letter.claim(letter.path), undefined);
  letter.release();
  assert.ok(Letter.claim(letter.path)?.text.includes("FinishJobRequest"));
});

test("what was written anew meanwhile is not removed", () => {
  const old = write(words(create));
  const fresh = write(words(create, finish), old);
  old.remove();
  assert.ok(fs.existsSync(fresh.path));
  fresh.remove();
  assert.ok(!fs.existsSync(fresh.path));
});

test("what is refused stays beside", () => {
  const refused = write(words(finish)).refuse();
  assert.deepEqual(fs.readdirSync(place), [path.basename(refused)]);
  assert.deepEqual(letters(target), []);
});

test("what was written anew meanwhile is not put aside", () => {
  const old = write(words(create));
  const fresh = write(words(create, finish), old);
  old.refuse();
  assert.ok(fs.existsSync(fresh.path));
});

test("what cannot be taken in hand keeps later letters of its job back, and no others", async () => {
  const held = write(words(create));
  const later = write(words(finish));
  const other = write({ ...words(finish), jobId: "0".repeat(32) });
  for (const letter of [later, other]) {
    letter.release();
    fs.writeFileSync(letter.path, "{");
  }
  const postman = new Postman(target, { warn() {}, info() {} });
  assert.deepEqual(await postman.deliver(), { sent: 0, refused: 1, waiting: 2 });
  held.release();
  assert.ok(fs.existsSync(later.path));
});

test("a symbolic link is no letter", () => {
  const letter = write(words(finish));
  const link = letter.path.replace(jobId, "0".repeat(32));
  fs.symlinkSync(letter.path, link);
  assert.equal(Letter.claim(link), undefined);
});

test("a large letter loses record errors, and nothing else", () => {
  const recordErrors = Array.from({ length: 1000 }, () => ({ record: "r", code: "", message: "x".repeat(1000) }));
  const heavy = (): Word => ({
    kind: "ReportProgressRequest",
    message: ReportProgressRequest.fromPartial({ jobId, progress: 1n, recordErrors }),
  });
  const text = toFile(words(...Array.from({ length: 10 }, heavy), finish));
  assert.ok(text.length <= 8 * 1024 * 1024);
  const left = fromFile(text).words;
  assert.equal(left.length, 11);
  assert.ok(left.every(({ kind, message }) => kind === "FinishJobRequest" || "progress" in message));
});

test("damaged and strange files are told from good ones", () => {
  assert.throws(() => fromFile("{"), /damaged/);
  assert.throws(() => fromFile('{"version": 2}'), /version 2/);
  assert.throws(() => fromFile('{"version": 1, "requests": [["What", ""]]}'), /damaged/);
});

test("an empty HEADWAY_SPOOL turns it off, and a full one takes no more", () => {
  for (let index = 0; index < 100; index += 1) write(words(finish));
  assert.throws(() => write(words(finish)), /100 files/);
  process.env.HEADWAY_SPOOL = "";
  assert.equal(folder(), undefined);
  assert.throws(() => write(words(finish)), /empty/);
});
