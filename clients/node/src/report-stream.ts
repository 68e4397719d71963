/** One open StreamProgress call. */

import type { ClientDuplexStream } from "@grpc/grpc-js";
import type { Wire } from "./calls.js";
import { fromGrpc, type HeadwayError } from "./errors.js";
import type { StreamProgressResponse } from "./gen/headway/v1/job_service.js";

const CLOSE_TIMEOUT = 1_000;

/** Receives what arrives on a stream. */
export interface Listener {
  answered(stream: ReportStream, response: StreamProgressResponse): void;
  /** The stream is over; no error if the server ended it normally. */
  ended(stream: ReportStream, error: HeadwayError | undefined): void;
}

/** Sends requests and passes each response on, until it is closed. */
export class ReportStream {
  sent = 0;
  readonly #call: ClientDuplexStream<Uint8Array, StreamProgressResponse>;

  constructor(wire: Wire, listener: Listener) {
    this.#call = wire.reports();
    this.#call.on("data", (response: StreamProgressResponse) => listener.answered(this, response));
    this.#call.on("error", (error) => listener.ended(this, fromGrpc(error)));
    this.#call.on("end", () => listener.ended(this, undefined));
  }

  send(request: Uint8Array): void {
    this.sent += 1;
    this.#call.write(request);
  }

  /** Ends the call at once. */
  close(): void {
    this.#call.cancel();
  }

  /** Ends the call normally. Everything is acknowledged. */
  part(): void {
    this.#call.end();
    setTimeout(() => this.#call.cancel(), CLOSE_TIMEOUT).unref();
  }
}
