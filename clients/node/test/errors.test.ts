import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { Metadata } from "@grpc/grpc-js";
import { connect, InvalidError } from "@headway/client";
import { ConnectionState } from "#dist/connection-state.js";
import { ErrorPolicy, policyFor } from "#dist/error-policy.js";
import { failed, fromGrpc, StateError } from "#dist/errors.js";
import { BadRequest, ErrorInfo, RetryInfo } from "#dist/gen/google/rpc/error_details.js";
import { Status } from "#dist/gen/google/rpc/status.js";
import { Target } from "#dist/target.js";

function answer(code: number, statusCode = code): unknown {
  const any = (name: string, bytes: Uint8Array) => ({
    typeUrl: `type.googleapis.com/google.rpc.${name}`,
    value: Buffer.from(bytes),
  });
  const details = [
    any("ErrorInfo", ErrorInfo.encode(ErrorInfo.fromPartial({ domain: "headway", reason: "JOB_ENDED" })).finish()),
    any("RetryInfo", RetryInfo.encode({ retryDelay: { seconds: 1n, nanos: 500_000_000 } }).finish()),
    any(
      "BadRequest",
      BadRequest.encode(
        BadRequest.fromPartial({ fieldViolations: [{ field: "name", description: "too long" }] }),
      ).finish(),
    ),
    any("ErrorInfo", Buffer.from([255])),
  ];
  const metadata = new Metadata();
  const bytes = Status.encode({ code: statusCode, message: "It has ended.", details }).finish();
  metadata.set("grpc-status-details-bin", Buffer.from(bytes));
  return Object.assign(new Error("grpc"), { code, details: "plain", metadata });
}

test("an error has the code, reason, fields and delay that the server gave", () => {
  const error = fromGrpc(answer(9));
  assert.ok(error instanceof StateError);
  assert.deepEqual([error.code, error.reason, error.retryAfter], ["FAILED_PRECONDITION", "JOB_ENDED", 1500]);
  assert.deepEqual(error.fields, [{ field: "name", description: "too long" }]);
  assert.equal(error.message, "It has ended.");
});

test("details of another code are not believed", () => {
  const error = fromGrpc(answer(14, 9));
  assert.deepEqual([error.code, error.reason, error.message], ["UNAVAILABLE", "", "plain"]);
});

test("only what a Headway server says ends something", () => {
  assert.equal(policyFor(failed("NOT_FOUND", "")), ErrorPolicy.Reconnect);
  assert.equal(policyFor(failed("NOT_FOUND", "", { reason: "JOB_NOT_FOUND" })), ErrorPolicy.Stop);
  assert.equal(policyFor(failed("INVALID_ARGUMENT", "", { reason: "INVALID_REQUEST" })), ErrorPolicy.Drop);
  assert.equal(policyFor(failed("INVALID_ARGUMENT", "", { reason: "MALFORMED_MESSAGE" })), ErrorPolicy.Reconnect);
  assert.equal(policyFor(failed("RESOURCE_EXHAUSTED", "", { reason: "OVERLOADED" })), ErrorPolicy.Retry);
  assert.equal(policyFor(failed("RESOURCE_EXHAUSTED", "")), ErrorPolicy.Reconnect);
});

test("an outage is one warning, at the second failed try, and its end one message", () => {
  const said: string[] = [];
  const connectionState = new ConnectionState("here:1", {
    warn: (text) => said.push(text),
    info: (text) => said.push(text),
  });
  const error = failed("UNAVAILABLE", "gone\nfor good");
  for (let now = 0; now < 100_000; now = connectionState.retryAt) connectionState.failed(error, now);
  connectionState.answered();
  connectionState.failed(error, 0);
  connectionState.answered();
  assert.deepEqual(said, [
    "headway: here:1 does not answer (gone for good); the work goes on",
    "headway: here:1 answers again",
  ]);
});

test("targets", () => {
  assert.deepEqual([new Target("a:1").address, new Target("a:1").tls], ["a:1", false]);
  assert.deepEqual([new Target("https://[::1]:443/").address, new Target("https://a:1").tls], ["[::1]:443", true]);
  for (const wrong of ["a", "a:0", "a:70000", "ftp://a:1", "a:1/x"])
    assert.throws(() => new Target(wrong), InvalidError);
  assert.throws(() => new Target("http://a:1", undefined, "ca.pem"), InvalidError);
  assert.throws(() => connect({ target: "a:1", token: "sesame\n" }), /^InvalidError: (?!.*sesame)/);
  assert.throws(() => connect({ target: "a:1", ca: "/nowhere/ca.pem" }), InvalidError);
});

test("without a session the error says what to do, and nothing shows one", async () => {
  delete process.env.HEADWAY_SESSION;
  await assert.rejects(connect().create(), /HEADWAY_SESSION/);
  const secrets = { session: "my-secret", token: "my-token" };
  const client = connect({ ...secrets, target: "127.0.0.1:9", exitTimeout: 0, logger: { warn() {}, info() {} } });
  process.env.HEADWAY_SPOOL = "";
  const job = await client.create("x");
  assert.doesNotMatch(inspect([client, job], { depth: 9 }) + JSON.stringify([client, job]), /my-/);
  await client.close();
  await assert.rejects(client.create(), /closed/);
});
