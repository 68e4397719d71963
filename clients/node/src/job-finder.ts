/** How a worker gets a job that may have been started before. */

import { setTimeout } from "node:timers/promises";
import type { CallOptions, Wire } from "./calls.js";
import { ErrorPolicy, policyFor } from "./error-policy.js";
import { HeadwayError } from "./errors.js";
import type { Job } from "./gen/headway/v1/job.js";
import { type CreateJobRequest, StartJobRequest, JobServiceService as service } from "./gen/headway/v1/job_service.js";

/** Bounds how long (ms) a new job waits for a server that neither answers nor refuses the connection. */
export const CREATE_TIMEOUT = 1_000;

/**
 * Bounds the wait (ms) for a job that another worker may have begun. Without the answer this worker would do all that
 * work again.
 */
export const FIND_TIMEOUT = 5_000;

const FIRST_RETRY_DELAY = 100;

/**
 * Creates the job, or takes over the one with its key. It waits for the answer, since the worker must know the job's
 * progress before it begins.
 */
export async function findOrCreate(wire: Wire, request: CreateJobRequest, options: CallOptions): Promise<Job> {
  const limits = { ...options, timeout: Math.min(options.timeout ?? FIND_TIMEOUT, FIND_TIMEOUT) };
  const end = performance.now() + limits.timeout;
  for (;;) {
    try {
      const state = await wire.unary(service.createJob, request, limits);
      if (request.pending || state.id === request.jobId) return state;
      return await takeOver(wire, request.sessionId, state.id, limits);
    } catch (error) {
      if (!(error instanceof HeadwayError)) throw error;
      // It has ended just now.
      if (error.reason === "JOB_ENDED") continue;
      // An overloaded server is asked again.
      const pause = Math.max(error.retryAfter ?? 0, FIRST_RETRY_DELAY);
      if (policyFor(error) !== ErrorPolicy.Retry || performance.now() + pause >= end) throw error;
      await setTimeout(pause);
    }
  }
}

export async function takeOver(wire: Wire, sessionId: string, jobId: string, options: CallOptions): Promise<Job> {
  const request = StartJobRequest.fromPartial({ sessionId, jobId, takeOver: true });
  return await wire.unary(service.startJob, request, options);
}

export function hasReason(error: unknown, ...reasons: string[]): boolean {
  return error instanceof HeadwayError && reasons.includes(error.reason);
}
