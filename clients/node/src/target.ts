/** Where the server is, and how to open a gRPC channel to it. */

import { readFileSync } from "node:fs";
import { type ChannelCredentials, type ClientOptions, credentials } from "@grpc/grpc-js";
import { invalid } from "./errors.js";

const DEFAULT = "127.0.0.1:50051";
const ADDRESS = /^(?:(https?):\/\/)?(\[[0-9A-Fa-f:.%]+\]|[^\s:/[\]@]+):(\d{1,5})\/?$/;

// Calls that have no second effect when repeated.
const REPEATABLE = ["GetJob", "ListJobs", "GetVariables", "GetResults", "ListRecordErrors"];

/** A server's address, and the options to connect to it. */
export class Target {
  /** `host:port`. */
  readonly address: string;
  /** Whether the connection is encrypted. */
  readonly tls: boolean;
  readonly #token: string | undefined;
  readonly #ca: string | undefined;

  /**
   * Takes the given values, else HEADWAY_TARGET, HEADWAY_TOKEN and HEADWAY_CA, else 127.0.0.1:50051. InvalidError if
   * the target or the token is malformed.
   */
  constructor(target?: string, token?: string, ca?: string) {
    const text = target || process.env.HEADWAY_TARGET || DEFAULT;
    const authorities = ca || process.env.HEADWAY_CA || undefined;
    const [, scheme, host, port] = ADDRESS.exec(text) ?? [];
    if (!host || Number(port) < 1 || Number(port) > 65535) {
      throw invalid(
        `The target must be host:port or https://host:port, such as ${DEFAULT}; not ${JSON.stringify(text)}.`,
      );
    }
    if (scheme === "http" && authorities) {
      throw invalid("The target says http:// (plain text), but there is a CA file: write https://, or drop it.");
    }
    this.address = `${host}:${Number(port)}`;
    this.tls = scheme === "https" || authorities !== undefined;
    this.#token = token || process.env.HEADWAY_TOKEN || undefined;
    // The error of gRPC for a header that it cannot send would show the token.
    if (this.#token && !/^[ -~]+$/.test(this.#token)) {
      throw invalid("The token must be of printable ASCII characters; perhaps there is a line break at its end.");
    }
    this.#ca = authorities;
  }

  /** The value of the `authorization` header; undefined without a token. */
  get authorization(): string | undefined {
    return this.#token && `Bearer ${this.#token}`;
  }

  /** The name that gRPC resolves. */
  get uri(): string {
    return `dns:${this.address}`;
  }

  /** The channel's side of TLS. InvalidError if the CA file cannot be read. */
  credentials(): ChannelCredentials {
    if (!this.tls) return credentials.createInsecure();
    if (this.#ca === undefined) return credentials.createSsl();
    try {
      return credentials.createSsl(readFileSync(this.#ca));
    } catch (error) {
      const why = (error as NodeJS.ErrnoException).code ?? "it is no certificate";
      throw invalid(`The CA file ${JSON.stringify(this.#ca)} cannot be used: ${why}.`);
    }
  }
}

/** `retry`: reads are tried up to 5 times, within about 3 s, while the server is UNAVAILABLE. */
export function channelOptions(retry: boolean): ClientOptions {
  const always: ClientOptions = {
    "grpc.max_receive_message_length": 8 * 1024 * 1024,
    // The server allows a ping every 10 s.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 0,
    // gRPC waits up to two minutes between connection attempts, much longer than a restart takes.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
    // Closing this client's connection must really close it, even if other clients are connected to that server.
    "grpc.use_local_subchannel_pool": 1,
  };
  if (!retry) return { ...always, "grpc.enable_retries": 0 };
  return {
    ...always,
    "grpc.service_config": JSON.stringify({
      methodConfig: [
        {
          name: REPEATABLE.map((method) => ({ service: "headway.v1.JobService", method })),
          retryPolicy: {
            maxAttempts: 5,
            initialBackoff: "0.1s",
            maxBackoff: "2s",
            backoffMultiplier: 2.5,
            retryableStatusCodes: ["UNAVAILABLE"],
          },
        },
      ],
    }),
  };
}
