import assert from "node:assert/strict";
import { test } from "node:test";
import { amount, asSize, clean, describe, toJson, whole } from "#dist/values.js";

test("texts are cut by characters, and hold neither U+0000 nor half characters", () => {
  assert.equal(clean("𝄞𝄞𝄞", 2), "𝄞𝄞");
  assert.equal(clean("abc", 2), "ab");
  assert.equal(clean("a\0b\ud800"), "a\ufffdb\ufffd");
  assert.equal(clean(Object.create(null)), "[object Object]");
});

test("what is no amount is passed over, and no size is not known", () => {
  for (const strange of [Number.NaN, Number.POSITIVE_INFINITY, "twelve", undefined]) {
    assert.equal(amount(strange, 7), 7);
    assert.equal(asSize(strange), 0);
  }
  assert.deepEqual(
    [1.5, "12", 3n].map((value) => amount(value, 7)),
    [1.5, 12, 3],
  );
  assert.deepEqual([null, -1, 3.7, 5n].map(asSize), [0, 0, 3.7, 5]);
  assert.deepEqual([3.7, 2 ** 64, 2n ** 64n, -1].map(whole), [3n, 2n ** 63n - 1n, 2n ** 63n - 1n, -1n]);
});

test("any value becomes JSON, and nothing throws", () => {
  const circle: { self?: unknown } = {};
  circle.self = circle;
  const bad = {
    get fault(): never {
      throw new Error("no");
    },
  };
  const revoked = Proxy.revocable({}, {});
  revoked.revoke();
  assert.equal(toJson(revoked.proxy), "?");
  assert.deepEqual(toJson(circle), { self: "[object Object]" });
  assert.deepEqual(toJson(bad), "[object Object]");
  assert.deepEqual(toJson([undefined, Number.NaN, 2n ** 60n, 5n, new Date(0)]), [
    null,
    "NaN",
    "1152921504606846976",
    5,
    "1970-01-01T00:00:00.000Z",
  ]);
  assert.deepEqual(toJson(new Map([["a", new Set([1])]])), { a: [1] });
  assert.deepEqual(toJson({ left: undefined, error: new TypeError("x") }), { error: "TypeError: x" });
  assert.deepEqual(Object.keys(toJson(JSON.parse('{"__proto__": 1}')) as object), ["__proto__"]);
});

test("errors as text", () => {
  assert.equal(describe(new TypeError("x")), "TypeError: x");
  assert.equal(describe(new RangeError()), "RangeError");
  assert.equal(describe("plain"), "plain");
});
