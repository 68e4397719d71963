/** Ids and random numbers that a worker can choose on its own. */

import { randomBytes } from "node:crypto";

/** A random number between the two, so that many clients do not retry at the same moment. */
export function chance(low: number, high: number): number {
  return low + (high - low) * Math.random();
}

/** A UUIDv7 (RFC 9562) as 32 lower-case hexadecimal digits: sorts by time to the millisecond. */
export function uuid7(): string {
  const bytes = Buffer.alloc(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  randomBytes(10).copy(bytes, 6);
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x70, 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  return bytes.toString("hex");
}

/**
 * Microseconds of the wall clock, as precise as possible. Unlike `performance`, it is right after the machine has
 * slept.
 */
export function microseconds(): number {
  return Math.max(Math.floor((performance.timeOrigin + performance.now()) * 1000), Date.now() * 1000);
}
