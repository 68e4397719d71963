/**
 * Keeps on disk what could not be delivered: one file for each job of each process.
 *
 * The folder is HEADWAY_SPOOL, else headway/spool in the user's state folder ($XDG_STATE_HOME or ~/.local/state); an
 * empty HEADWAY_SPOOL turns the spool off. A file contains session ids, which are secrets: only its user can read it
 * (0600, in a folder of 0700). It is neither encrypted nor safe from root. There are at most 100 files, of at most 8
 * MiB each.
 *
 * Node has no file locks. Two processes may send the same file; it still counts once. A file that was written again
 * meanwhile is not removed.
 */

import fs from "node:fs";
import { homedir } from "node:os";
import path from "node:path";
import { crc32 } from "node:zlib";
import { CODECS, encode, type SpoolRequest } from "./calls.js";
import { uuid7 } from "./ids.js";
import type { Target } from "./target.js";

const MAX_FILES = 100;
const MAX_FILE_BYTES = 8 * 1024 * 1024;
const FILE_OVERHEAD = 4096;
const VERSION = 1;
const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = fs.constants;

/**
 * What one job has left to send, in order, and to which server. Reports keep their sequences, so that a report that did
 * arrive does not count twice.
 */
export interface SpoolRecord {
  address: string;
  tls: boolean;
  jobId: string;
  name: string;
  requests: SpoolRequest[];
}

/** Gives JSON of at most 8 MiB. If there is no room, it drops record errors, the last ones first. */
export function toFile({ address, tls, jobId, name, requests }: SpoolRecord): string {
  const encoded = requests.map((request) => [request.kind, base64(encode(request))] as const);
  let size = encoded.reduce((sum, [, text]) => sum + text.length + 32, 0);
  for (let at = requests.length - 1; at >= 0 && size > MAX_FILE_BYTES - FILE_OVERHEAD; at -= 1) {
    const request = requests[at];
    if (request?.kind !== "ReportProgressRequest") continue;
    const short = base64(encode({ kind: request.kind, message: { ...request.message, recordErrors: [] } }));
    size -= (encoded[at]?.[1].length ?? 0) - short.length;
    encoded[at] = [request.kind, short];
  }
  return JSON.stringify({ version: VERSION, target: address, tls, job: jobId, name, requests: encoded });
}

/** Error if `toFile` did not make this text, or if it has another version. */
export function fromFile(text: string): SpoolRecord {
  const content = parse(text);
  if (content.version !== VERSION) throw new Error(`it is of version ${content.version}`);
  try {
    const requests = (content.requests as [SpoolRequest["kind"], string][]).map(
      ([kind, data]) => ({ kind, message: CODECS[kind].decode(Buffer.from(data, "base64")) }) as SpoolRequest,
    );
    const { target, tls, job, name } = content;
    return { address: String(target), tls: Boolean(tls), jobId: String(job), name: String(name), requests };
  } catch (error) {
    throw new Error(`it is damaged: ${(error as Error).name}`);
  }
}

/** A file of the spool that this process has claimed, until `remove`, `refuse` or `release`. */
export class SpoolFile {
  static readonly #claimed = new Set<string>();
  readonly path: string;
  readonly #mark: string;

  private constructor(file: string, about: fs.Stats) {
    this.path = file;
    this.#mark = markOf(about);
    SpoolFile.#claimed.add(file);
  }

  /** Writes the whole file, or nothing. */
  static write(file: string, record: SpoolRecord): SpoolFile {
    const draft = file.replace(/\.json$/, `.${process.pid}.tmp`);
    fs.rmSync(draft, { force: true });
    const handle = fs.openSync(draft, O_WRONLY | O_CREAT | O_EXCL, 0o600);
    let about: fs.Stats;
    try {
      fs.writeFileSync(handle, toFile(record));
      fs.fsyncSync(handle);
      about = fs.fstatSync(handle);
      fs.renameSync(draft, file);
    } catch (error) {
      fs.rmSync(draft, { force: true });
      throw error;
    } finally {
      fs.closeSync(handle);
    }
    sync(path.dirname(file));
    return new SpoolFile(file, about);
  }

  /** Claims the file and reads it; undefined if it is gone, claimed already, or belongs to another user. */
  static claim(file: string): { file: SpoolFile; text: string } | undefined {
    if (SpoolFile.#claimed.has(file)) return undefined;
    let handle: number | undefined;
    try {
      handle = fs.openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      const about = fs.fstatSync(handle);
      if (!about.isFile() || about.uid !== userId(about.uid)) return undefined;
      return { text: fs.readFileSync(handle, "utf8"), file: new SpoolFile(file, about) };
    } catch {
      return undefined;
    } finally {
      if (handle !== undefined) fs.closeSync(handle);
    }
  }

  /** Everything in it has arrived. */
  remove(): void {
    quietly(() => {
      if (this.#unchanged()) fs.unlinkSync(this.path);
    });
    this.release();
  }

  /** The server will never accept it. The file stays beside the others, for people to look at. Returns its new path. */
  refuse(): string {
    const refused = this.path.replace(/\.json$/, ".refused");
    quietly(() => {
      if (!this.#unchanged()) return;
      fs.renameSync(this.path, refused);
      const place = path.dirname(this.path);
      const old = fs.readdirSync(place).filter((name) => name.endsWith(".refused"));
      for (const name of old.sort().slice(0, -MAX_FILES)) fs.rmSync(path.join(place, name), { force: true });
    });
    this.release();
    return refused;
  }

  /** Leaves the file to the next process. */
  release(): void {
    SpoolFile.#claimed.delete(this.path);
  }

  /** Another process may have written it again: then there is more to send. */
  #unchanged(): boolean {
    return markOf(fs.statSync(this.path)) === this.#mark;
  }
}

/** Where the files are, whether the folder exists or not; undefined = no spool. */
export function folder(): string | undefined {
  const given = process.env.HEADWAY_SPOOL;
  if (given !== undefined) return given || undefined;
  const state = process.env.XDG_STATE_HOME || stateOf(home());
  return state && path.join(state, "headway", "spool");
}

function home(): string | undefined {
  try {
    return homedir();
  } catch {
    // A user that the system does not know has no home, as in some containers.
    return undefined;
  }
}

function stateOf(place: string | undefined): string | undefined {
  return place && path.join(place, ".local", "state");
}

/** The files that wait for this server, oldest first; only those of one job if an id is given. */
export function waitingFiles(target: Target, jobId?: string): string[] {
  const place = folder();
  if (place === undefined) return [];
  const begin = `${serverKey(target.address, target.tls)}-`;
  const end = jobId ? `-${fileNameId(jobId)}.json` : ".json";
  try {
    const names = fs.readdirSync(place).filter((name) => name.startsWith(begin) && name.endsWith(end));
    return names.sort().map((name) => path.join(place, name));
  } catch {
    return [];
  }
}

/** The job's id in the file's name. */
export function jobInName(file: string): string {
  return path.basename(file, ".json").split("-").at(-1) ?? "";
}

/**
 * Saves this record, in place of the file `before` if there was one. Error if the spool is full or turned off, or if
 * others can read its folder.
 */
export function write(record: SpoolRecord, before?: SpoolFile): SpoolFile {
  if (before) {
    return SpoolFile.write(before.path, record);
  }
  const place = folder();
  if (place === undefined) throw new Error("HEADWAY_SPOOL is empty, or there is no home for it");
  fs.mkdirSync(place, { mode: 0o700, recursive: true });
  const about = fs.statSync(place);
  if (about.uid !== userId(about.uid)) throw new Error(`${place} belongs to another user`);
  // The folder existed before, perhaps with other files in it. Do not change its mode. On Windows a mode says nothing.
  if (process.geteuid && about.mode & 0o077) {
    throw new Error(`${place} is open to others: chmod 700 it, or name another folder in HEADWAY_SPOOL`);
  }
  if (fs.readdirSync(place).filter((name) => name.endsWith(".json")).length >= MAX_FILES) {
    throw new Error(`${place} has ${MAX_FILES} files already`);
  }
  const name = `${serverKey(record.address, record.tls)}-${uuid7()}-${fileNameId(record.jobId)}.json`;
  return SpoolFile.write(path.join(place, name), record);
}

// Part of the name, so that the names alone tell whether there is something for a server. All clients write "True" and
// "False" here.
function serverKey(address: string, tls: boolean): string {
  return crc32(`${address} ${tls ? "True" : "False"}`)
    .toString(16)
    .padStart(8, "0");
}

// The worker chooses the id, and only the server checks it.
function fileNameId(jobId: string): string {
  return /^[\p{L}\p{N}]{1,64}$/u.test(jobId) ? jobId : "odd";
}

// The file system soon gives the inode's number to another file.
function markOf({ ino, mtimeMs }: fs.Stats): string {
  return `${ino} ${mtimeMs}`;
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64");
}

function parse(text: string): { [key: string]: unknown } {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    throw new Error("it is damaged: it is not JSON");
  }
}

// Windows has no user ids: there every file counts as the user's own.
function userId(otherwise: number): number {
  return process.geteuid?.() ?? otherwise;
}

function sync(place: string): void {
  quietly(() => {
    const handle = fs.openSync(place, O_RDONLY);
    try {
      fs.fsyncSync(handle);
    } finally {
      fs.closeSync(handle);
    }
  });
}

function quietly(action: () => void): void {
  try {
    action();
  } catch {
    // A failure only leaves something untidy.
  }
}
