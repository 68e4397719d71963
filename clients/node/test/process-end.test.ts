import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import type { SpoolRequest } from "#dist/calls.js";
import { fromFile } from "#dist/spool.js";

/** Runs a worker of a server that does not exist. Returns the spool's content, and the status. */
function leftBy(ending: string): { requests: SpoolRequest[]; kinds: string[]; status: number | null; notes: string } {
  const place = fs.mkdtempSync(path.join(tmpdir(), "headway-"));
  const script = `
    import { connect } from "@headway/client";
    const job = await connect({ target: "127.0.0.1:9", session: "s", exitTimeout: 50 }).create("x");
    job.progress = 3;
    ${ending}`;
  const env = { ...process.env, HEADWAY_SPOOL: place };
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { env });
  const files = fs.readdirSync(place).map((name) => fromFile(fs.readFileSync(path.join(place, name), "utf8")));
  fs.rmSync(place, { recursive: true });
  const requests = files.flatMap((file) => file.requests);
  return { requests, kinds: requests.map(({ kind }) => kind), status, notes: String(stderr) };
}

const started = ["CreateJobRequest", "ReportProgressRequest"];

test("a process that just ends leaves what it could not deliver", () => {
  const { kinds, status, notes } = leftBy("");
  assert.deepEqual([kinds, status], [started, 0]);
  assert.match(notes, /has not answered in time/);
});

test("so does one that calls process.exit, and keeps its status", () => {
  const { kinds, status } = leftBy("job.finish({ a: 1 }); process.exit(3);");
  assert.deepEqual([kinds, status], [[...started, "FinishJobRequest"], 3]);
});

test("so does one that ends by an error", () => {
  const { kinds, status } = leftBy("throw new Error('mine');");
  assert.deepEqual([kinds, status], [started, 1]);
});

test("a block that is left without an end fails its job", () => {
  const { kinds, status } = leftBy("await job[Symbol.asyncDispose]();");
  assert.deepEqual([kinds, status], [[...started, "FailJobRequest"], 0]);
});

test("a code that is none, or OK, is UNKNOWN", () => {
  for (const code of ['"OK"', '"NOPE"', "1"]) {
    const end = leftBy(`await job.fail("x", ${code});`).requests.at(-1);
    assert.ok(end?.kind === "FailJobRequest");
    assert.equal(end.message.error?.code, 2);
  }
});
