/** How a worker comes by a job that may have come some way already. */

import { setTimeout } from "node:timers/promises";
import type { CallOptions, Wire } from "./calls.js";
import { HeadwayError } from "./errors.js";
import type { Job } from "./gen/headway/v1/job.js";
import { type CreateJobRequest, StartJobRequest, JobServiceService as service } from "./gen/headway/v1/job_service.js";
import { judge, Verdict } from "./verdict.js";

/** How long (ms) a new job waits for a server that neither answers nor refuses the connection. */
export const CREATE_PATIENCE = 1_000;

/** How long (ms) a job waits likewise which another one's worker may have begun: without the answer all that work would be
 * done again. */
export const FIND_TIMEOUT = 5_000;

const FIRST_PAUSE = 100;

/** Creates the job, or takes over the one with its key. At once, as its worker must know how far the job has come before
 * it begins. */
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
      // It ended just now.
      if (error.reason === "JOB_ENDED") continue;
      // A server that is overloaded is asked again.
      const pause = Math.max(error.retryAfter ?? 0, FIRST_PAUSE);
      if (judge(error) !== Verdict.Later || performance.now() + pause >= end) throw error;
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
