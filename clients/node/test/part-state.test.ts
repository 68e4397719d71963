import assert from "node:assert/strict";
import { test } from "node:test";
import { failed } from "#dist/errors.js";
import { Meter } from "#dist/meter.js";
import { Reporter } from "#dist/report.js";
import { Tally } from "#dist/tally.js";
import { Track, trackSync } from "#dist/track.js";

const about = { session: "s", jobId: "0".repeat(32), attempt: 2 };
const invalidField = (field: string) => failed("INVALID_ARGUMENT", "", { fields: [{ field, description: "" }] });
const everything = 1024 * 1024;

test("a checkpoint has the progress and counters of its moment, what follows comes later", () => {
  const tally = new Tally("", 3);
  tally.done = 5;
  tally.count("added", 2);
  tally.recordError("r1", "", "");
  tally.merge({ offset: 5 }, true);
  tally.done = 9;
  tally.count("added", 1);
  tally.recordError("r2", "", "");
  const first = tally.sample(everything);
  assert.deepEqual([first.progress, first.counters.get("added"), first.variables], [5, 2, { offset: 5 }]);
  assert.deepEqual([first.errors.map((error) => error.record), first.more], [["r1"], true]);
  const second = tally.sample(everything);
  assert.deepEqual([second.progress, second.counters.get("added"), second.variables], [9, 3, undefined]);
  assert.deepEqual([second.errors.map((error) => error.record), second.more], [["r2"], false]);
});

test("of many record errors the first and the last 500 keep their texts, and all are counted", () => {
  const tally = new Tally("");
  for (let index = 0; index < 1200; index += 1) tally.recordError(`r${index}`, "m", "C");
  const first = tally.sample(everything);
  const second = tally.sample(everything);
  const records = [...first.errors, ...second.errors].map((error) => error.record);
  assert.equal(records.length, 1200);
  assert.deepEqual([first.pressing, second.pressing], [true, false]);
  assert.deepEqual([records[499], records[500], records[699], records[700]], ["r499", "?", "?", "r700"]);
});

test("record errors that need more room than a report has come in several", () => {
  const tally = new Tally("");
  for (let index = 0; index < 10; index += 1) tally.recordError("r", "x".repeat(1000), "");
  assert.ok(tally.sample(3000).errors.length < 5);
});

test("a report is the same until it is settled, and its sequence grows", () => {
  const tally = new Tally("p");
  const reporter = new Reporter(tally);
  tally.done = 1;
  const first = reporter.report(about, true);
  tally.done = 2;
  assert.equal(reporter.report(about, true), first);
  reporter.settle();
  const second = reporter.report(about, true);
  assert.ok(first && second);
  assert.equal(second.message.sequence, first.message.sequence + 1n);
  assert.ok(first.message.sequence > BigInt(Date.now()) * 1000n - 60_000_000n);
  assert.deepEqual([first.message.part, first.message.attempt, second.message.progress], ["p", 2, 2n]);
});

test("sequences go on above those of a later clock", () => {
  const tally = new Tally("");
  const reporter = new Reporter(tally);
  // In nanoseconds, as another worker may count: more than a number of JavaScript has room for.
  const later = BigInt(Date.now() + 3_600_000) * 1_000_000n + 1n;
  for (const last of [later, 0n, 2n ** 63n - 1n]) reporter.numberAbove(last);
  tally.done = 1;
  assert.equal(reporter.report(about, true)?.message.sequence, later + 1n);
});

test("counters are sent as what they have grown by, and nothing is said twice", () => {
  const tally = new Tally("");
  const reporter = new Reporter(tally, 0n, 7n);
  tally.size = 7;
  tally.count("__proto__", 2);
  assert.equal(reporter.report(about, true)?.message.counters.get("__proto__"), 2n);
  reporter.settle();
  assert.equal(reporter.report(about, true), undefined);
  tally.count("__proto__", -3);
  assert.equal(reporter.report(about, true)?.message.counters.get("__proto__"), -3n);
});

test("counters are at most 64, under names that the server takes, and none is lost", () => {
  const tally = new Tally("");
  tally.count(`${"a".repeat(128)}1`, 2);
  tally.count(`${"a".repeat(128)}2`, 3);
  tally.count("good", 1);
  tally.count("good", Number.NaN);
  for (let index = 0; index < 70; index += 1) tally.count(`c${index}`, 1);
  const { counters } = tally.sample(everything);
  assert.deepEqual([counters.get("a".repeat(128)), counters.get("good"), counters.size], [5, 1, 64]);
});

test("one slip does not undo what was counted", () => {
  const tally = new Tally("");
  const meter = Reflect.construct(Meter, [tally]) as Meter;
  meter.advance(3);
  meter.advance(Number.NaN);
  meter.advance("2" as unknown as number);
  assert.equal(meter.progress, 5);
});

test("a refused report goes out again without its variables, under a new sequence", () => {
  const tally = new Tally("");
  const reporter = new Reporter(tally);
  tally.done = 4;
  tally.merge({ bad: "x" }, false);
  const report = reporter.report(about, true);
  assert.ok(report);
  const { sequence } = report.message;
  reporter.refused(invalidField("variables"));
  const again = reporter.report(about, true);
  assert.deepEqual([again?.message.variables, again?.message.progress], [undefined, 4n]);
  assert.ok(again && again.message.sequence > sequence);
  reporter.refused(invalidField("variables"));
  assert.equal(reporter.report(about, true), undefined);
});

test("a refused report loses only what is at fault", () => {
  const tally = new Tally("");
  const reporter = new Reporter(tally);
  tally.done = 4;
  for (const name of ["a", "b", "c"]) tally.count(name, 1);
  tally.merge({ x: 1 }, false);
  reporter.report(about, true);
  const left = (field: string) => {
    reporter.refused(invalidField(field));
    const message = reporter.report(about, false)?.message;
    return message && [message.progress, [...message.counters.keys()], message.variables];
  };
  assert.deepEqual(left("counters[a]"), [4n, ["b", "c"], { x: 1 }]);
  assert.deepEqual(left("counters"), [4n, [], { x: 1 }]);
  assert.deepEqual(left("progress"), [undefined, [], { x: 1 }]);
  assert.deepEqual(left("progress"), [undefined, [], undefined]);
  assert.equal(left("part"), undefined);
});

test("what is no number is 0, what is too large the largest", () => {
  const tally = new Tally("", 1);
  const reporter = new Reporter(tally, 1n);
  tally.done = Number.NaN;
  assert.equal(reporter.report(about, true)?.message.progress, 0n);
  reporter.settle();
  tally.done = 1e30;
  assert.equal(reporter.report(about, true)?.message.progress, 2n ** 63n - 1n);
});

test("an item is counted once the next is asked for, not if the loop is left in it", async () => {
  const tally = new Tally("");
  for (const item of trackSync(tally, [1, 2, 3], {})) if (item === 3) break;
  assert.equal(tally.done, 2);
  let closed = false;
  async function* source() {
    try {
      yield* [1, 2, 3];
    } finally {
      closed = true;
    }
  }
  for await (const item of new Track(tally, source(), {})) if (item === 2) break;
  assert.deepEqual([tally.done, closed], [3, true]);
  for await (const item of new Track(tally, [Promise.resolve(1)], {})) assert.equal(item, 1);
  assert.equal(tally.done, 4);
  const letters: string[] = [];
  for await (const letter of new Track(tally, "ab", {})) letters.push(letter);
  assert.deepEqual([letters, tally.done], [["a", "b"], 6]);
  const failing = new Track(tally, [Promise.reject(new Error("no"))], {});
  await assert.rejects(failing.next(), /no/);
  await failing.next();
  assert.equal(tally.done, 6);
});

test("an aborted signal ends a tracked loop before the next item", async () => {
  const tally = new Tally("");
  const wish = new AbortController();
  const loop = async () => {
    for await (const _ of new Track(tally, [1, 2, 3], { signal: wish.signal })) wish.abort(new Error("enough"));
  };
  await assert.rejects(loop, /enough/);
  assert.equal(tally.done, 1);
});

test("a tracked loop that never waits leaves the event loop its turn", async () => {
  let turns = 0;
  const timer = setInterval(() => {
    turns += 1;
  }, 1);
  const end = performance.now() + 10_000;
  function* busy() {
    while (turns === 0 && performance.now() < end) yield 1;
  }
  for await (const _ of new Track(new Tally(""), busy(), {}));
  clearInterval(timer);
  assert.ok(turns > 0);
});

test("the length of what is tracked is passed on, if it can be told", () => {
  const sizes: number[] = [];
  const tally = new Tally("");
  const expect = (size: number) => sizes.push(size);
  const meter = Reflect.construct(Meter, [tally, expect]) as Meter;
  meter.trackSync([1, 2]);
  meter.trackSync(new Set([1]));
  meter.trackSync("ab".matchAll(/./g));
  assert.deepEqual(sizes, [2, 1]);
});
