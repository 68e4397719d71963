/** What an error means for the report or call that failed. */

import { MAX_MESSAGE_BYTES } from "./batch.js";
import { type Call, encode } from "./calls.js";
import { type Code, failed, type HeadwayError } from "./errors.js";

/** What to do about an error. */
export enum ErrorPolicy {
  /** The server accepts no more of this job. */
  Stop,
  /** The server would refuse the same request again. Leave it out. */
  Drop,
  /** The same request can succeed later. */
  Retry,
  /** Nothing is known about the request: the connection, or what is behind it, is at fault. Reconnect and repeat. */
  Reconnect,
}

const STOP_REASONS = new Set(["JOB_ENDED", "STALE_ATTEMPT", "JOB_NOT_FOUND", "JOB_ID_AMBIGUOUS"]);
const DROP_CODES = new Set<Code>(["INVALID_ARGUMENT", "ALREADY_EXISTS", "NOT_FOUND", "FAILED_PRECONDITION", "ABORTED"]);

/** Trusts only errors that a Headway server sends, with a reason. A proxy's 404 must not end a job. */
export function policyFor(error: HeadwayError): ErrorPolicy {
  if (STOP_REASONS.has(error.reason)) return ErrorPolicy.Stop;
  // The message was well-formed when it was sent, so the connection is at fault.
  if (!error.reason || error.reason === "MALFORMED_MESSAGE") return ErrorPolicy.Reconnect;
  if (DROP_CODES.has(error.code)) return ErrorPolicy.Drop;
  return error.code === "RESOURCE_EXHAUSTED" ? ErrorPolicy.Retry : ErrorPolicy.Reconnect;
}

/** Whether the caller apparently has no right to create a job. */
export function deniesAccess(error: HeadwayError): boolean {
  return error.reason !== "" && (error.code === "UNAUTHENTICATED" || error.code === "PERMISSION_DENIED");
}

/** Why a call cannot be sent, if it cannot: it is too large, or contains what no message can hold. */
export function unsendable(call: Call): HeadwayError | undefined {
  try {
    return encode(call).length > MAX_MESSAGE_BYTES ? tooLarge() : undefined;
  } catch (fault) {
    return failed("INVALID_ARGUMENT", String(fault), { reason: "INVALID_REQUEST" });
  }
}

/** The error of a message that is too large to send. */
export function tooLarge(): HeadwayError {
  return failed("INVALID_ARGUMENT", "It is larger than a message may be.", { reason: "INVALID_REQUEST" });
}
