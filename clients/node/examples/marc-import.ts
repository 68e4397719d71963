/** Imports a file of MARC 21 records into a catalogue in memory: `marc-import [--rate RECORDS_A_SECOND] FILE`. */

import { basename } from "node:path";
import { setTimeout } from "node:timers/promises";
import { parseArgs } from "node:util";
import { connect, type Job } from "@headway/client";
import { check, records } from "./marc.js";

const CHECKPOINT = 1000;

const { values, positionals } = parseArgs({ options: { rate: { type: "string" } }, allowPositionals: true });
const [file] = positionals;
if (file === undefined) {
  console.error("usage: marc-import [--rate RECORDS_A_SECOND] FILE");
  process.exit(2);
}
const rate = values.rate === undefined ? Number.POSITIVE_INFINITY : Number(values.rate);

const catalogue = new Map<string, Buffer>();
const counts = { added: 0, updated: 0, skipped: 0, failed: 0 };
let seconds = 0;

let size = 0;
for await (const _ of records(file)) size += 1;

await using client = connect();
const job = await client.create("Import MARC records", { size, unit: "records" });
try {
  await job.run(importAll);
} catch (error) {
  if (!job.signal.aborted) throw error;
}
console.log(JSON.stringify({ ...counts, seconds }));

async function importAll({ signal }: Job): Promise<void> {
  const start = performance.now();
  let done = 0;
  try {
    for await (const { bytes, offset } of job.track(records(file as string), { signal })) {
      await due((done / rate) * 1000 - (performance.now() - start), signal);
      importOne(bytes, offset);
      done += 1;
      if (done % CHECKPOINT === 0) job.checkpoint({ records: done });
    }
  } finally {
    seconds = Math.round(performance.now() - start) / 1000;
  }
  job.results = counts;
}

function importOne(bytes: Buffer, offset: number): void {
  const found = check(bytes);
  if ("code" in found) {
    counts.failed += 1;
    job.recordError(found.controlNumber || `${basename(file as string)}, byte ${offset}`, found.message, found.code);
    return;
  }
  const before = catalogue.get(found.controlNumber);
  const what = before === undefined ? "added" : before.equals(found.bytes) ? "skipped" : "updated";
  catalogue.set(found.controlNumber, found.bytes);
  counts[what] += 1;
  job.count(what);
}

/** Waits until a record's time has come. */
async function due(wait: number, signal: AbortSignal): Promise<void> {
  if (wait > 0) await setTimeout(wait, undefined, { signal });
}
