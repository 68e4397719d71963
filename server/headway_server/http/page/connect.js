// Calls to the server: the Connect protocol with JSON, over fetch. This module does not know jobs.

/**
 * The server and the caller. The session is sent in the body and the token in a header; neither is in a URL.
 * @typedef {{server: string, session: string, token: string}} Caller `server` ends in a slash.
 */

const SERVICE = "headway.v1.JobService";
const CALL_TIMEOUT = 10_000; // ms
const END_OF_STREAM = 2;
const HEAD = 5; // bytes before each message of a stream: flags, and the length as a big-endian uint32

/** The code for each HTTP status of a reply that comes from a proxy and not from the server. */
const CODES = /** @type {Record<number, string>} */ ({
  400: "internal",
  401: "unauthenticated",
  403: "permission_denied",
  404: "unimplemented",
  429: "unavailable",
  502: "unavailable",
  503: "unavailable",
  504: "unavailable",
});

/** A call that was refused, or did not reach the server. */
export class CallError extends Error {
  /**
   * @param {string} code a code of the Connect protocol: "not_found", "unavailable", …
   * @param {string} message a sentence for people
   * @param {string} reason a name of headway.v1.ErrorReason, or "" if the server did not say
   * @param {number} retryAfter ms that the server asks to wait, or 0
   */
  constructor(code, message, reason = "", retryAfter = 0) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.retryAfter = retryAfter;
  }
}

/**
 * Makes a unary call. Throws CallError.
 * @param {Caller} caller
 * @param {string} method "GetJob", …
 * @param {Record<string, unknown>} request without the session
 * @returns {Promise<any>}
 */
export async function call(caller, method, request) {
  const response = await send(caller, method, "application/json", JSON.stringify(body(caller, request)), {
    "Connect-Timeout-Ms": String(CALL_TIMEOUT),
  }, AbortSignal.timeout(CALL_TIMEOUT));
  if (!response.ok) throw await refusal(response);
  try {
    return await response.json();
  } catch {
    throw new CallError("unavailable", "The reply was cut off.");
  }
}

/**
 * The messages of a stream, until the server ends it without an error. Throws CallError, also if the connection is lost or the
 * stream is aborted.
 * @param {Caller} caller
 * @param {string} method "WatchJobs", …
 * @param {Record<string, unknown>} request without the session
 * @param {AbortSignal} signal ends it
 * @param {(response: Response) => void} opened called once the server has answered
 * @returns {AsyncGenerator<any, void>}
 */
export async function* stream(caller, method, request, signal, opened) {
  const message = new TextEncoder().encode(JSON.stringify(body(caller, request)));
  const envelope = new Uint8Array(HEAD + message.length);
  new DataView(envelope.buffer).setUint32(1, message.length);
  envelope.set(message, HEAD);
  const response = await send(caller, method, "application/connect+json", envelope, {}, signal);
  if (!response.ok || !response.body) throw await refusal(response);
  opened(response);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let held = new Uint8Array(0);
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new CallError("unavailable", "The connection was lost.");
      held = held.length ? joined(held, value) : value;
      let at = 0;
      while (held.length - at >= HEAD) {
        const end = at + HEAD + new DataView(held.buffer, held.byteOffset + at + 1).getUint32(0);
        if (end > held.length) break;
        const answer = JSON.parse(decoder.decode(held.subarray(at + HEAD, end)));
        if (held[at] & END_OF_STREAM) {
          if (answer.error) throw asError(answer.error, "unknown");
          return;
        }
        yield answer;
        at = end;
      }
      held = held.subarray(at);
    }
  } catch (error) {
    throw error instanceof CallError ? error : new CallError("unavailable", "The connection was lost.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** @param {Caller} caller @param {Record<string, unknown>} request */
function body(caller, request) {
  return { sessionId: caller.session, ...request };
}

/**
 * @param {Caller} caller @param {string} method @param {string} type @param {BodyInit} content
 * @param {Record<string, string>} headers @param {AbortSignal} signal
 */
async function send(caller, method, type, content, headers, signal) {
  try {
    return await fetch(`${caller.server}${SERVICE}/${method}`, {
      method: "POST",
      headers: {
        "Content-Type": type,
        "Connect-Protocol-Version": "1",
        ...(caller.token ? { Authorization: `Bearer ${caller.token}` } : {}),
        ...headers,
      },
      body: content,
      signal,
      cache: "no-store",
      referrerPolicy: "no-referrer",
      redirect: "error",
    });
  } catch {
    throw new CallError("unavailable", "The server does not answer.");
  }
}

/** @param {Response} response */
async function refusal(response) {
  const code = CODES[response.status] ?? "unknown";
  try {
    return asError(await response.json(), code);
  } catch {
    return new CallError(code, `The server answered with status ${response.status}.`);
  }
}

/** @param {any} error as the Connect protocol writes it @param {string} otherwise the code if it has none */
function asError(error, otherwise) {
  let reason = "";
  let retryAfter = 0;
  for (const { type, debug } of error.details ?? []) {
    if (type === "google.rpc.ErrorInfo") reason = debug?.reason ?? "";
    if (type === "google.rpc.RetryInfo") retryAfter = Number.parseFloat(debug?.retryDelay ?? "0") * 1000;
  }
  return new CallError(error.code ?? otherwise, error.message || "The server gave no reason.", reason, retryAfter);
}

/** @param {Uint8Array} first @param {Uint8Array} second */
function joined(first, second) {
  const whole = new Uint8Array(first.length + second.length);
  whole.set(first);
  whole.set(second, first.length);
  return whole;
}
