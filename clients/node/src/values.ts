/**
 * Converts texts and JSON values for the server.
 *
 * Nothing here throws: an odd title or result must never make a worker fail.
 */

/** The values of results and variables. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const MAX_DEPTH = 32;
const INT64 = 2n ** 63n - 1n;

/** Makes a text that the server accepts: without U+0000 and lone surrogates, at most `limit` characters. */
export function clean(text: unknown, limit = Number.POSITIVE_INFINITY): string {
  let plain = asText(text);
  if (plain.length > limit) {
    // A character outside the BMP is two units of a string.
    plain = plain.slice(0, limit * 2);
    if (plain.length > limit) plain = Array.from(plain).slice(0, limit).join("");
  }
  return plain.toWellFormed().replaceAll("\0", "\ufffd");
}

/**
 * Converts any value to JSON. What JSON cannot express (functions, NaN, integers beyond 2⁵³, cycles) becomes its text.
 */
export function toJson(value: unknown): Json {
  return convert(value, [], "");
}

/** Converts an object to a JSON object; see `toJson`. */
export function toRecord(values: object): { [key: string]: Json } {
  const json = toJson(values);
  return json !== null && typeof json === "object" && !Array.isArray(json) ? json : {};
}

/** The maximum length of a job's name and of its invoker. */
export const MAX_NAME_LENGTH = 256;

/** A number of units, or `otherwise` for NaN, infinity and texts that are no numbers. */
export function amount<Otherwise>(value: unknown, otherwise: Otherwise): number | Otherwise {
  const number = Number(value);
  return Number.isFinite(number) ? number : otherwise;
}

/** The amount of work: 0 (not known) for invalid and negative numbers. */
export function asSize(value: unknown): number {
  return Math.max(amount(value ?? 0, 0), 0);
}

/** The number as it can be sent, or 0: a worker's mistake must not stop all reports. */
export function whole(value: number | bigint): bigint {
  if (typeof value === "bigint") return clamp(value);
  if (typeof value !== "number" || Number.isNaN(value)) return 0n;
  if (!Number.isFinite(value)) return value > 0 ? INT64 : -INT64;
  return clamp(BigInt(Math.trunc(value)));
}

function clamp(value: bigint): bigint {
  return value > INT64 ? INT64 : value < -INT64 ? -INT64 : value;
}

function asText(value: unknown): string {
  try {
    return typeof value === "string" ? value : String(value);
  } catch {
    // A revoked proxy does not even have a tag.
    return quietly(() => Object.prototype.toString.call(value)) ?? "?";
  }
}

function quietly<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}

function convert(value: unknown, around: object[], key: string): Json {
  switch (typeof value) {
    case "string":
      return clean(value);
    case "boolean":
      return value;
    case "number":
      return Number.isFinite(value) ? value : String(value);
    case "bigint":
      return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
    case "undefined":
      return null;
    case "object":
      if (value === null) return null;
      if (around.length > MAX_DEPTH || around.includes(value)) return clean(value);
      try {
        return convertObject(value, [...around, value], key);
      } catch {
        return clean(value);
      }
    default:
      return clean(value);
  }
}

function convertObject(value: object, around: object[], key: string): Json {
  if ("toJSON" in value && typeof value.toJSON === "function") return convert(value.toJSON(key), around, key);
  if (value instanceof Error) return clean(describe(value));
  if (value instanceof Number || value instanceof String || value instanceof Boolean) {
    return convert(value.valueOf(), around, key);
  }
  if (Array.isArray(value) || value instanceof Set) {
    return Array.from(value as Iterable<unknown>, (item, index) => convert(item, around, String(index)));
  }
  const entries = value instanceof Map ? [...value] : Object.entries(value).filter(([, item]) => item !== undefined);
  // fromEntries makes "__proto__" an ordinary property.
  return Object.fromEntries(entries.map(([name, item]) => [clean(name), convert(item, around, asText(name))]));
}

/** An error, or anything else that was thrown, as the text of a job's error: "TypeError: x is not a function". */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return asText(error);
  const name = error.name || error.constructor.name;
  return error.message ? `${name}: ${error.message}` : name;
}
