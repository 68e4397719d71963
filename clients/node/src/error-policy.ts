/** What an error means for whoever sent the report or call. */

import { MESSAGE_BYTES } from "./batch.js";
import { type Call, encode } from "./calls.js";
import { type Code, failed, type HeadwayError } from "./errors.js";

/** What to do about an error. */
export enum Verdict {
  /** The server wants no more of this job. */
  Gone,
  /** The same would be refused again. */
  Refused,
  /** The same will do, later. */
  Later,
  /** Nothing is known: the connection or what is behind it is at fault. */
  Away,
}

const GONE = new Set(["JOB_ENDED", "STALE_ATTEMPT", "JOB_NOT_FOUND", "JOB_ID_AMBIGUOUS"]);
const REFUSED = new Set<Code>(["INVALID_ARGUMENT", "ALREADY_EXISTS", "NOT_FOUND", "FAILED_PRECONDITION", "ABORTED"]);

/** Only what a Headway server says, with a reason, can end something: a proxy's 404 ends nothing. */
export function judge(error: HeadwayError): Verdict {
  if (GONE.has(error.reason)) return Verdict.Gone;
  // It was well-formed when it was sent.
  if (!error.reason || error.reason === "MALFORMED_MESSAGE") return Verdict.Away;
  if (REFUSED.has(error.code)) return Verdict.Refused;
  return error.code === "RESOURCE_EXHAUSTED" ? Verdict.Later : Verdict.Away;
}

/** Whether the caller has no right to create a job, as far as can be seen. */
export function keepsOut(error: HeadwayError): boolean {
  return error.reason !== "" && (error.code === "UNAUTHENTICATED" || error.code === "PERMISSION_DENIED");
}

/** Why a call is not even sent, if it is not: too large, or made of what no message can hold. */
export function unsendable(call: Call): HeadwayError | undefined {
  try {
    return encode(call).length > MESSAGE_BYTES ? tooLarge() : undefined;
  } catch (fault) {
    return failed("INVALID_ARGUMENT", String(fault), { reason: "INVALID_REQUEST" });
  }
}

/** For what is not even sent. */
export function tooLarge(): HeadwayError {
  return failed("INVALID_ARGUMENT", "It is larger than a message may be.", { reason: "INVALID_REQUEST" });
}
