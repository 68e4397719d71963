/**
 * Tracks long-running jobs with a Headway server. A worker reports its progress with a few lines.
 *
 * @packageDocumentation
 */

export type { CallOptions } from "./calls.js";
export { type Change, Client, type ConnectOptions, connect } from "./client.js";
export type { Logger } from "./connection-state.js";
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
export type { JobView, RecordFault, Status } from "./job-view.js";
export { Meter } from "./meter.js";
export type { CreateOptions, FollowOptions, ListOptions, Options } from "./requests.js";
export type { Delivery } from "./spool-sender.js";
export type { TrackOptions } from "./track.js";
export type { Json } from "./values.js";
