/** What a caller of Headway can catch. Reports never throw: these come from creating and reading jobs. */

import { type ServiceError, status } from "@grpc/grpc-js";
import { BadRequest, ErrorInfo, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

/** The name of a google.rpc.Code: "NOT_FOUND", "UNAVAILABLE", … */
export type Code = keyof typeof status;

/** An invalid field of a request: its path, and what it must be. */
export interface FieldFault {
  readonly field: string;
  readonly description: string;
}

/** The details of a `HeadwayError` besides its code and message. */
export interface ErrorDetails {
  reason?: string;
  fields?: readonly FieldFault[];
  retryAfter?: number | undefined;
}

/** A call that the server refused, or that did not reach it. */
export class HeadwayError extends Error {
  override name = "HeadwayError";
  /** The name of the google.rpc.Code. */
  readonly code: Code;
  /** A name of headway.v1.ErrorReason, such as `JOB_ENDED`; empty if the error does not come from a Headway server. */
  readonly reason: string;
  /** The invalid fields. */
  readonly fields: readonly FieldFault[];
  /** Milliseconds that the server asks to wait before the next try, if it does. */
  readonly retryAfter: number | undefined;

  constructor(code: Code, message: string, details: ErrorDetails = {}) {
    super(message || code);
    this.code = code;
    this.reason = details.reason ?? "";
    this.fields = details.fields ?? [];
    this.retryAfter = details.retryAfter;
  }
}

/** There is no such job in this session. */
export class NotFoundError extends HeadwayError {
  override name = "NotFoundError";
}

/** The request is malformed; `fields` says where. */
export class InvalidError extends HeadwayError {
  override name = "InvalidError";
}

/**
 * The job's state does not allow this call: it has ended, is not started, or belongs to another worker. See `reason`.
 */
export class StateError extends HeadwayError {
  override name = "StateError";
}

/** The server, or its database, does not answer. Try again later. */
export class UnavailableError extends HeadwayError {
  override name = "UnavailableError";
}

/** A cancellation request: the `reason` of `job.signal`. Do not catch it; the job ends CANCELLED. */
export class JobCancelled extends Error {
  override name = "JobCancelled";
  /** The reason given with the request. */
  readonly reason: string;
  /** When the server ends the job itself, if that is known. */
  readonly deadline: Date | undefined;

  constructor(reason = "", deadline?: Date) {
    super(reason || "the job is cancelled");
    this.reason = reason;
    this.deadline = deadline;
  }
}

const KINDS: Partial<Record<Code, typeof HeadwayError>> = {
  NOT_FOUND: NotFoundError,
  INVALID_ARGUMENT: InvalidError,
  FAILED_PRECONDITION: StateError,
  UNAVAILABLE: UnavailableError,
};

/** The error class for a code. */
export function failed(code: Code, message: string, details: ErrorDetails = {}): HeadwayError {
  return new (KINDS[code] ?? HeadwayError)(code, message, details);
}

/** For calls that cannot be sent: no session, a malformed target. */
export function invalid(message: string): HeadwayError {
  return failed("INVALID_ARGUMENT", message);
}

/** The name of a code's number. */
export function codeName(code: number): Code {
  return (status[code] as Code | undefined) ?? "UNKNOWN";
}

/** Decodes a google.rpc.Status with its details, as far as they can be read. */
export function fromStatus(answer: Status): HeadwayError {
  const details: ErrorDetails = {};
  for (const { typeUrl, value } of answer.details) {
    const kind = typeUrl.slice(typeUrl.lastIndexOf("/") + 1);
    try {
      if (kind === "google.rpc.ErrorInfo") {
        const info = ErrorInfo.decode(value);
        if (info.domain === "headway") details.reason = info.reason;
      } else if (kind === "google.rpc.BadRequest") {
        details.fields = BadRequest.decode(value).fieldViolations.map(({ field, description }) => ({
          field,
          description,
        }));
      } else if (kind === "google.rpc.RetryInfo") {
        const delay = RetryInfo.decode(value).retryDelay;
        if (delay) details.retryAfter = Number(delay.seconds) * 1000 + delay.nanos / 1e6;
      }
    } catch {
      // Unreadable details are left out.
    }
  }
  return failed(codeName(answer.code), answer.message, details);
}

/** Decodes the error of a gRPC call. */
export function fromGrpc(error: unknown): HeadwayError {
  if (error instanceof HeadwayError) return error;
  const fault = error as Partial<ServiceError>;
  if (typeof fault?.code !== "number") return failed("UNKNOWN", String(error));
  for (const value of fault.metadata?.get("grpc-status-details-bin") ?? []) {
    try {
      const answer = Status.decode(value as Buffer);
      if (answer.code === fault.code) return fromStatus(answer);
    } catch {
      // Then the code and the text must suffice.
    }
  }
  return failed(codeName(fault.code), fault.details ?? "");
}
