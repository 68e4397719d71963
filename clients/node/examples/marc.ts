/** Reads MARC 21 files record by record, and checks each. */

import { createReadStream } from "node:fs";
import { Marc } from "marcjs";

const TERMINATOR = 0x1d;
const LEADER = 24;
const ENTRY = 12;
const RECORD_TYPES = "acdefgijkmoprt";

/** The bytes of a record, and where they are in the file. */
export interface Raw {
  bytes: Buffer;
  offset: number;
}

/** A record that can be imported. */
export interface Biblio {
  controlNumber: string;
  bytes: Buffer;
}

/** Why a record cannot be imported. */
export interface Fault {
  code: "TRUNCATED" | "BAD_STRUCTURE" | "BAD_LEADER" | "NO_CONTROL_NUMBER" | "NO_TITLE";
  message: string;
  controlNumber: string;
}

/**
 * The records of a file, split at the terminator, whatever length they claim, so that a broken record does not damage
 * others.
 */
export async function* records(file: string): AsyncGenerator<Raw> {
  let rest: Buffer = Buffer.alloc(0);
  let offset = 0;
  for await (const block of createReadStream(file, { highWaterMark: 1 << 18 }) as AsyncIterable<Buffer>) {
    const bytes = rest.length > 0 ? Buffer.concat([rest, block]) : block;
    let begin = 0;
    for (let end = bytes.indexOf(TERMINATOR); end >= 0; end = bytes.indexOf(TERMINATOR, begin)) {
      yield { bytes: bytes.subarray(begin, end + 1), offset: offset + begin };
      begin = end + 1;
    }
    rest = bytes.subarray(begin);
    offset += begin;
  }
  if (rest.toString("latin1").trim() !== "") yield { bytes: rest, offset };
}

/** The record, or why it cannot be imported. */
export function check(raw: Buffer): Biblio | Fault {
  const bytes = withoutBlanks(raw);
  if (bytes.at(-1) !== TERMINATOR) return fault("TRUNCATED", "the file ends within the record");
  const misfit = directoryFault(bytes);
  if (misfit) return fault("BAD_STRUCTURE", misfit);
  let fields: string[][];
  try {
    ({ fields } = Marc.parse(bytes, "iso2709"));
  } catch (error) {
    return fault("BAD_STRUCTURE", String(error));
  }
  const controlNumber = (fields.find(([tag]) => tag === "001")?.[1] ?? "").trim();
  const type = String.fromCharCode(bytes[6] ?? 0);
  if (!RECORD_TYPES.includes(type)) {
    return fault("BAD_LEADER", `type of record ${JSON.stringify(type)} is not MARC 21`, controlNumber);
  }
  if (controlNumber === "") return fault("NO_CONTROL_NUMBER", "field 001 is missing or empty");
  const [, , ...title] = fields.find(([tag]) => tag === "245") ?? [];
  if (!title.some((character, index) => index % 2 === 0 && "ab".includes(character) && title[index + 1])) {
    return fault("NO_TITLE", "field 245 is missing or empty", controlNumber);
  }
  return { controlNumber, bytes };
}

function fault(code: Fault["code"], message: string, controlNumber = ""): Fault {
  return { code, message, controlNumber };
}

function withoutBlanks(raw: Buffer): Buffer {
  let begin = 0;
  while (raw[begin] === 0x0a || raw[begin] === 0x0d || raw[begin] === 0x20) begin += 1;
  return raw.subarray(begin);
}

/** How the directory contradicts the record. The library reads it without a check. */
function directoryFault(bytes: Buffer): string | undefined {
  const base = digits(bytes, 12, 17);
  if (!(base > LEADER && base < bytes.length)) return "the base address of the data is not in the record";
  if ((base - 1 - LEADER) % ENTRY !== 0) return "the directory is no whole number of entries";
  for (let at = LEADER; at < base - 1; at += ENTRY) {
    const end = base + digits(bytes, at + 7, at + 12) + digits(bytes, at + 3, at + 7);
    if (!(end <= bytes.length)) return "the directory names a field that is not in the record";
  }
  return undefined;
}

/** The number, NaN if it is none. */
function digits(bytes: Buffer, begin: number, end: number): number {
  let value = 0;
  for (let at = begin; at < end; at += 1) {
    const digit = (bytes[at] ?? 0) - 0x30;
    value = digit >= 0 && digit <= 9 ? value * 10 + digit : Number.NaN;
  }
  return value;
}
