/**
 * Tracks long-running jobs with a Headway server. A worker reports with a few lines, and never suffers from its tracker.
 *
 * @packageDocumentation
 */

export type { CallOptions } from "./calls.js";
export { type Change, Client, type ConnectOptions, connect } from "./client.js";
export type { Logger } from "./contact.js";
export {
  type Code,
  type ErrorDetails,
  type FieldFault,
  HeadwayError,
  InvalidError,
  JobCancelled,
  NotFoundError,
  StateError,
  UnavailableError,
} from "./errors.js";
export { Job } from "./job.js";
export { Meter } from "./meter.js";
export type { Delivery } from "./postman.js";
export type { CreateOptions, FollowOptions, ListOptions, Options } from "./requests.js";
export type { JobState, RecordFault, Status } from "./state.js";
export type { TrackOptions } from "./track.js";
export type { Json } from "./values.js";
