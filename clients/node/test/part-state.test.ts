import assert from "node:assert/strict";
import { test } from "node:test";
import { failed } from "#dist/errors.js";
import { Meter } from "#dist/meter.js";
import { PartState } from "#dist/part-state.js";
import { Reporter } from "#dist/reporter.js";
import { Track, trackSync } from "#dist/track.js";

const about = { session: "s", jobId: "0".repeat(32), attempt: 2 };
const invalidField = (field: string) => failed("INVALID_ARGUMENT", "", { fields: [{ field, description: "" }] });
const everything = 1024 * 1024;

test("a checkpoint has the progress and counters of its moment, what follows comes later", () => {
  const partState = new PartState("", 3);
  partState.done = 5;
  partState.count("added", 2);
  partState.recordError("r1", "", "");
  partState.merge({ offset: 5 }, true);
  partState.done = 9;
  partState.count("added", 1);
  partState.recordError("r2", "", "");
  const first = partState.sample(everything);
  assert.deepEqual([first.progress, first.counters.get("added"), first.variables], [5, 2, { offset: 5 }]);
  assert.deepEqual([first.errors.map((error) => error.record), first.more], [["r1"], true]);
  const second = partState.sample(everything);
  assert.deepEqual([second.progress, second.counters.get("added"), second.variables], [9, 3, undefined]);
  assert.deepEqual([second.errors.map((error) => error.record), second.more], [["r2"], false]);
});

test("of many record errors the first and the last 500 keep their texts, and all are counted", () => {
  const partState = new PartState("");
  for (let index = 0; index < 1200; index += 1) partState.recordError(`r${index}`, "m", "C");
  const first = partState.sample(everything);
  const second = partState.sample(everything);
  const records = [...first.errors, ...second.errors].map((error) => error.record);
  assert.equal(records.length, 1200);
  assert.deepEqual([first.pressing, second.pressing], [true, false]);
  assert.deepEqual([records[499], records[500], records[699], records[700]], ["r499", "?", "?", "r700"]);
});

test("record errors that need more room than a report has come in several", () => {
  const partState = new PartState("");
  for (let index = 0; index < 10; index += 1) partState.recordError("r", "x".repeat(1000), "");
  assert.ok(partState.sample(3000).errors.length < 5);
});

test("a report is the same until it is settled, and its sequence grows", () => {
  const partState = new PartState("p");
  const reporter = new Reporter(partState);
  partState.done = 1;
  const first = reporter.report(about, true);
  partState.done = 2;
  assert.equal(reporter.report(about, true), first);
  reporter.settle();
  const second = reporter.report(about, true);
  assert.ok(first && second);
  assert.equal(second.message.sequence, first.message.sequence + 1n);
  assert.ok(first.message.sequence > BigInt(Date.now()) * 1000n - 60_000_000n);
  assert.deepEqual([first.message.part, first.message.attempt, second.message.progress], ["p", 2, 2n]);
});

test("sequences go on above those of a later clock", () => {
  const partState = new PartState("");
  const reporter = new Reporter(partState);
  // In nanoseconds, as another worker may count: more than a number of JavaScript can hold.
  const later = BigInt(Date.now() + 3_600_000) * 1_000_000n + 1n;
  for (const last of [later, 0n, 2n ** 63n - 1n]) reporter.numberAbove(last);
  partState.done = 1;
  assert.equal(reporter.report(about, true)?.message.sequence, later + 1n);
});

test("counters are sent as what they have grown by, and nothing is said twice", () => {
  const partState = new PartState("");
  const reporter = new Reporter(partState, 0n, 7n);
  partState.size = 7;
  partState.count("__proto__", 2);
  assert.equal(reporter.report(about, true)?.message.counters.get("__proto__"), 2n);
  reporter.settle();
  assert.equal(reporter.report(about, true), undefined);
  partState.count("__proto__", -3);
  assert.equal(reporter.report(about, true)?.message.counters.get("__proto__"), -3n);
});

test("counters are at most 64, under names that the server takes, and none is lost", () => {
  const partState = new PartState("");
  partState.count(`${"a".repeat(128)}1`, 2);
  partState.count(`${"a".repeat(128)}2`, 3);
  partState.count("good", 1);
  partState.count("good", Number.NaN);
  for (let index = 0; index < 70; index += 1) partState.count(`c${index}`, 1);
  const { counters } = partState.sample(everything);
  assert.deepEqual([counters.get("a".repeat(128)), counters.get("good"), counters.size], [5, 1, 64]);
});

test("one slip does not undo what was counted", () => {
  const partState = new PartState("");
  const meter = Reflect.construct(Meter, [partState]) as Meter;
  meter.advance(3);
  meter.advance(Number.NaN);
  meter.advance("2" as unknown as number);
  assert.equal(meter.progress, 5);
});

test("a refused report goes out again without its variables, under a new sequence", () => {
  const partState = new PartState("");
  const reporter = new Reporter(partState);
  partState.done = 4;
  partState.merge({ bad: "x" }, false);
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
  const partState = new PartState("");
  const reporter = new Reporter(partState);
  partState.done = 4;
  for (const name of ["a", "b", "c"]) partState.count(name, 1);
  partState.merge({ x: 1 }, false);
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
  const partState = new PartState("", 1);
  const reporter = new Reporter(partState, 1n);
  partState.done = Number.NaN;
  assert.equal(reporter.report(about, true)?.message.progress, 0n);
  reporter.settle();
  partState.done = 1e30;
  assert.equal(reporter.report(about, true)?.message.progress, 2n ** 63n - 1n);
});

test("an item is counted once the next is asked for, not if the loop is left in it", async () => {
  const partState = new PartState("");
  for (const item of trackSync(partState, [1, 2, 3], {})) if (item === 3) break;
  assert.equal(partState.done, 2);
  let closed = false;
  async function* source() {
    try {
      yield* [1, 2, 3];
    } finally {
      closed = true;
    }
  }
  for await (const item of new Track(partState, source(), {})) if (item === 2) break;
  assert.deepEqual([partState.done, closed], [3, true]);
  for await (const item of new Track(partState, [Promise.resolve(1)], {})) assert.equal(item, 1);
  assert.equal(partState.done, 4);
  const characters: string[] = [];
  for await (const character of new Track(partState, "ab", {})) characters.push(character);
  assert.deepEqual([characters, partState.done], [["a", "b"], 6]);
  const failing = new Track(partState, [Promise.reject(new Error("no"))], {});
  await assert.rejects(failing.next(), /no/);
  await failing.next();
  assert.equal(partState.done, 6);
});

test("an aborted signal ends a tracked loop before the next item", async () => {
  const partState = new PartState("");
  const cancelling = new AbortController();
  const loop = async () => {
    for await (const _ of new Track(partState, [1, 2, 3], { signal: cancelling.signal }))
      cancelling.abort(new Error("enough"));
  };
  await assert.rejects(loop, /enough/);
  assert.equal(partState.done, 1);
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
  for await (const _ of new Track(new PartState(""), busy(), {}));
  clearInterval(timer);
  assert.ok(turns > 0);
});

test("the length of what is tracked is passed on, if it can be told", () => {
  const sizes: number[] = [];
  const partState = new PartState("");
  const expect = (size: number) => sizes.push(size);
  const meter = Reflect.construct(Meter, [partState, expect]) as Meter;
  meter.trackSync([1, 2]);
  meter.trackSync(new Set([1]));
  meter.trackSync("ab".matchAll(/./g));
  assert.deepEqual(sizes, [2, 1]);
});
