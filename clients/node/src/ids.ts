/** Names and moments that a worker can choose without asking anybody. */

import { randomBytes } from "node:crypto";

/** A number between the two, so that many clients do not come back at the same moment. */
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

/** Microseconds of the wall clock, as finely as it can be told; never behind it, as `performance` is after a sleep. */
export function microseconds(): number {
  return Math.max(Math.floor((performance.timeOrigin + performance.now()) * 1000), Date.now() * 1000);
}
