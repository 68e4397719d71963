/** Measures what an update costs its worker: clients/conformance/README.md. */

import { createRequire } from "node:module";
import { Writable } from "node:stream";
import { connect } from "@headway/client";
import { SingleBar } from "cli-progress";

const REPEATS = 7;
const AT_LEAST = 100;

type Measured = (times: number) => void | Promise<void>;

/** Nanoseconds for one of them. */
async function measure(work: Measured): Promise<number> {
  let times = 1000;
  let took = 0;
  // The warm-up finds how many fill the time.
  while (took < AT_LEAST) {
    times *= 2;
    took = await time(work, times);
  }
  times = Math.ceil((times * AT_LEAST * 1.2) / took);
  const repeats: number[] = [];
  while (repeats.length < REPEATS) {
    const milliseconds = await time(work, times);
    if (milliseconds < AT_LEAST) times = Math.ceil(times * 1.5);
    else repeats.push((milliseconds * 1e6) / times);
  }
  return repeats.sort((one, other) => one - other)[Math.floor(REPEATS / 2)] ?? Number.NaN;
}

async function time(work: Measured, times: number): Promise<number> {
  const start = performance.now();
  await work(times);
  return performance.now() - start;
}

async function show(about: { what: string; of?: string }, work: Measured): Promise<void> {
  console.log(JSON.stringify({ ...about, ns: Math.round((await measure(work)) * 10) / 10 }));
}

function* numbers(end: number): Generator<number> {
  for (let index = 0; index < end; index += 1) yield index;
}

const client = connect({ session: "bench", exitTimeout: 0, logger: { warn() {}, info() {} } });
const job = await client.create("Bench");

await show({ what: "set progress" }, (times) => {
  for (let done = 1; done <= times; done += 1) job.progress = done;
});
await show({ what: "advance" }, (times) => {
  for (let done = 1; done <= times; done += 1) job.advance();
});
await show({ what: "track" }, (times) => {
  for (const _ of job.trackSync(numbers(times)));
});
await show({ what: "track asynchronously" }, async (times) => {
  for await (const _ of job.track(numbers(times)));
});
await show({ what: "count" }, (times) => {
  for (let done = 1; done <= times; done += 1) job.count("added");
});

// A terminal that shows nothing: this measures the bar, not the terminal.
const terminal = Object.assign(new Writable({ write: (_chunk, _encoding, done) => done() }), {
  isTTY: true,
  columns: 80,
});
const bar = new SingleBar({ stream: terminal });
bar.start(1e9, 0);
const { version } = createRequire(import.meta.url)("cli-progress/package.json");
await show({ what: "set progress", of: `cli-progress ${version}` }, (times) => {
  for (let done = 1; done <= times; done += 1) bar.update(done);
});
bar.stop();

process.env.HEADWAY_SPOOL = "";
await client.close();
