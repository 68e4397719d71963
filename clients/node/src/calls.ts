/** The RPCs as promises, and the requests that a job can leave for later. */

import { Client, type ClientDuplexStream, type ClientReadableStream, Metadata } from "@grpc/grpc-js";
import { failed, fromGrpc } from "./errors.js";
import type { Job } from "./gen/headway/v1/job.js";
import {
  CreateJobRequest,
  FailJobRequest,
  FinishJobRequest,
  ReportProgressRequest,
  StartJobRequest,
  type StreamProgressResponse,
  JobServiceService as service,
  UpdateJobRequest,
} from "./gen/headway/v1/job_service.js";
import { channelOptions, type Target } from "./target.js";

/** A call that a job still has to make, other than its reports. */
export type Call =
  | { kind: "CreateJobRequest"; message: CreateJobRequest }
  | { kind: "StartJobRequest"; message: StartJobRequest }
  | { kind: "UpdateJobRequest"; message: UpdateJobRequest }
  | { kind: "FinishJobRequest"; message: FinishJobRequest }
  | { kind: "FailJobRequest"; message: FailJobRequest };

/** A call, or a report. */
export type SpoolRequest = Call | { kind: "ReportProgressRequest"; message: ReportProgressRequest };

/** How the messages of each kind are written and read. */
export const CODECS = {
  CreateJobRequest,
  StartJobRequest,
  UpdateJobRequest,
  ReportProgressRequest,
  FinishJobRequest,
  FailJobRequest,
} as const;

/** A request as bytes. */
export function encode(request: SpoolRequest): Uint8Array {
  const codec = CODECS[request.kind] as { encode(message: unknown): { finish(): Uint8Array } };
  return codec.encode(request.message).finish();
}

/** Whether this ends the job. */
export function isEnd(
  request: SpoolRequest,
): request is Extract<SpoolRequest, { kind: "FinishJobRequest" | "FailJobRequest" }> {
  return request.kind === "FinishJobRequest" || request.kind === "FailJobRequest";
}

/** How long a call may take, and what aborts it. */
export interface CallOptions {
  /** Milliseconds. */
  timeout?: number | undefined;
  signal?: AbortSignal | undefined;
}

interface Method<Q, A> {
  path: string;
  requestSerialize: (value: Q) => Buffer;
  responseDeserialize: (value: Buffer) => A;
}

// A longer timer would fire at once.
const MAX_TIMER = 2 ** 31 - 1;

/** A channel to the server. Nothing is sent before the first call. */
export class Wire {
  readonly #client: Client;
  readonly #metadata = new Metadata();
  readonly #open = new Set<{ cancel(): void }>();

  constructor(target: Target, options: { retry: boolean }) {
    this.#client = new Client(target.uri, target.credentials(), channelOptions(options.retry));
    if (target.authorization) this.#metadata.set("authorization", target.authorization);
  }

  /** Aborts all calls and closes the connection. */
  close(): void {
    for (const call of this.#open) call.cancel();
    this.#client.close();
  }

  /** HeadwayError, or the signal's reason. */
  unary<Q, A>(method: Method<Q, A>, request: Q, { timeout, signal }: CallOptions): Promise<A> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const abort = () => call.cancel();
      const call = this.#client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        this.#metadata,
        deadline(timeout),
        (error, answer) => {
          this.#open.delete(call);
          signal?.removeEventListener("abort", abort);
          if (signal?.aborted) reject(signal.reason);
          else if (error) reject(fromGrpc(error));
          else if (answer === undefined) reject(failed("UNKNOWN", "an answer without a message"));
          else resolve(answer);
        },
      );
      this.#open.add(call);
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  /** Responses until the stream ends. HeadwayError, or the signal's reason. */
  async *responses<Q, A>(method: Method<Q, A>, request: Q, { timeout, signal }: CallOptions): AsyncGenerator<A> {
    signal?.throwIfAborted();
    const call: ClientReadableStream<A> = this.#client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      this.#metadata,
      deadline(timeout),
    );
    // Without a listener a late error would end the process.
    call.on("error", () => {});
    const abort = () => call.cancel();
    this.#open.add(call);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      for await (const answer of call) {
        signal?.throwIfAborted();
        yield answer as A;
      }
    } catch (error) {
      signal?.throwIfAborted();
      throw fromGrpc(error);
    } finally {
      this.#open.delete(call);
      signal?.removeEventListener("abort", abort);
      call.cancel();
    }
  }

  /** Opens a stream of reports, whose requests are bytes already. */
  reports(): ClientDuplexStream<Uint8Array, StreamProgressResponse> {
    const { path, responseDeserialize } = service.streamProgress;
    const asTheyAre = (bytes: Uint8Array) => Buffer.from(bytes);
    const call = this.#client.makeBidiStreamRequest(path, asTheyAre, responseDeserialize, this.#metadata, {});
    this.#open.add(call);
    call.on("status", () => this.#open.delete(call));
    return call;
  }

  /** Makes a call of a job; the answer may take `timeout` milliseconds. */
  place(call: Call, options: CallOptions): Promise<Job> {
    switch (call.kind) {
      case "CreateJobRequest":
        return this.unary(service.createJob, call.message, options);
      case "StartJobRequest":
        return this.unary(service.startJob, call.message, options);
      case "UpdateJobRequest":
        return this.unary(service.updateJob, call.message, options);
      case "FinishJobRequest":
        return this.unary(service.finishJob, call.message, options);
      case "FailJobRequest":
        return this.unary(service.failJob, call.message, options);
    }
  }
}

function deadline(timeout: number | undefined): { deadline?: number } {
  return timeout === undefined || timeout > MAX_TIMER ? {} : { deadline: Date.now() + Math.max(timeout, 0) };
}
