/**
 * What could not be delivered, on disk until it is: one file for each job of each process.
 *
 * The folder is HEADWAY_SPOOL, else headway/spool in the user's state folder ($XDG_STATE_HOME or ~/.local/state); an
 * empty HEADWAY_SPOOL turns it off. A file holds session ids, which are secrets: it is readable by its user alone (0600,
 * in a folder of 0700), and neither encrypted nor safe from root. There are at most 100 files, of at most 8 MiB each.
 *
 * Node has no locks for files. Two processes may send the same file, which counts once; what has been written anew
 * meanwhile is not removed.
 */

import fs from "node:fs";
import { homedir } from "node:os";
import path from "node:path";
import { crc32 } from "node:zlib";
import { CODECS, encode, type Word } from "./calls.js";
import { uuid7 } from "./ids.js";
import type { Target } from "./target.js";

const FILES = 100;
const BYTES = 8 * 1024 * 1024;
const ROOM = 4096;
const VERSION = 1;
const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = fs.constants;

/**
 * What one job has left to say, in order, and to whom. Reports have the sequences that they had, so that what did arrive
 * is not counted twice.
 */
export interface Words {
  address: string;
  tls: boolean;
  jobId: string;
  name: string;
  words: Word[];
}

/** As JSON of at most 8 MiB. What has no room are record errors, the last ones first. */
export function toFile({ address, tls, jobId, name, words }: Words): string {
  const requests = words.map((word) => [word.kind, base64(encode(word))] as const);
  let size = requests.reduce((sum, [, text]) => sum + text.length + 32, 0);
  for (let at = words.length - 1; at >= 0 && size > BYTES - ROOM; at -= 1) {
    const word = words[at];
    if (word?.kind !== "ReportProgressRequest") continue;
    const short = base64(encode({ kind: word.kind, message: { ...word.message, recordErrors: [] } }));
    size -= (requests[at]?.[1].length ?? 0) - short.length;
    requests[at] = [word.kind, short];
  }
  return JSON.stringify({ version: VERSION, target: address, tls, job: jobId, name, requests });
}

/** Error if this is not what `toFile` makes, or not of this version. */
export function fromFile(text: string): Words {
  const letter = parse(text);
  if (letter.version !== VERSION) throw new Error(`it is of version ${letter.version}`);
  try {
    const words = (letter.requests as [Word["kind"], string][]).map(
      ([kind, data]) => ({ kind, message: CODECS[kind].decode(Buffer.from(data, "base64")) }) as Word,
    );
    const { target, tls, job, name } = letter;
    return { address: String(target), tls: Boolean(tls), jobId: String(job), name: String(name), words };
  } catch (error) {
    throw new Error(`it is damaged: ${(error as Error).name}`);
  }
}

/** A file of the spool in the hands of this process, until `remove`, `refuse` or `release`. */
export class Letter {
  static readonly #inHand = new Set<string>();
  readonly path: string;
  readonly #mark: string;

  private constructor(file: string, about: fs.Stats) {
    this.path = file;
    this.#mark = markOf(about);
    Letter.#inHand.add(file);
  }

  /** Puts the file there as a whole, or not at all. */
  static write(file: string, words: Words): Letter {
    const draft = file.replace(/\.json$/, `.${process.pid}.tmp`);
    fs.rmSync(draft, { force: true });
    const handle = fs.openSync(draft, O_WRONLY | O_CREAT | O_EXCL, 0o600);
    let about: fs.Stats;
    try {
      fs.writeFileSync(handle, toFile(words));
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
    return new Letter(file, about);
  }

  /** Takes the file in hand, and what is in it; undefined if it is gone, in hand already, or another user's. */
  static claim(file: string): { letter: Letter; text: string } | undefined {
    if (Letter.#inHand.has(file)) return undefined;
    let handle: number | undefined;
    try {
      handle = fs.openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
      const about = fs.fstatSync(handle);
      if (!about.isFile() || about.uid !== userId(about.uid)) return undefined;
      return { text: fs.readFileSync(handle, "utf8"), letter: new Letter(file, about) };
    } catch {
      return undefined;
    } finally {
      if (handle !== undefined) fs.closeSync(handle);
    }
  }

  /** All of it has arrived. */
  remove(): void {
    quietly(() => {
      if (this.#unchanged()) fs.unlinkSync(this.path);
    });
    this.release();
  }

  /** The server will never take it: it stays beside, for people to look at. Where it is now. */
  refuse(): string {
    const refused = this.path.replace(/\.json$/, ".refused");
    quietly(() => {
      if (!this.#unchanged()) return;
      fs.renameSync(this.path, refused);
      const place = path.dirname(this.path);
      const old = fs.readdirSync(place).filter((name) => name.endsWith(".refused"));
      for (const name of old.sort().slice(0, -FILES)) fs.rmSync(path.join(place, name), { force: true });
    });
    this.release();
    return refused;
  }

  /** Leaves the file to whoever takes it up next. */
  release(): void {
    Letter.#inHand.delete(this.path);
  }

  /** It may have been written anew by another process: then there is more to send. */
  #unchanged(): boolean {
    return markOf(fs.statSync(this.path)) === this.#mark;
  }
}

/** Where the files are, whether it exists or not; undefined if there shall be none. */
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
    // A user whom the system does not know has none, as in some containers.
    return undefined;
  }
}

function stateOf(place: string | undefined): string | undefined {
  return place && path.join(place, ".local", "state");
}

/** The files that wait for this server, oldest first; of that job alone, if one is given. */
export function letters(target: Target, jobId?: string): string[] {
  const place = folder();
  if (place === undefined) return [];
  const begin = `${mark(target.address, target.tls)}-`;
  const end = jobId ? `-${plain(jobId)}.json` : ".json";
  try {
    const names = fs.readdirSync(place).filter((name) => name.startsWith(begin) && name.endsWith(end));
    return names.sort().map((name) => path.join(place, name));
  } catch {
    return [];
  }
}

/** Whose letter it is, as its name says. */
export function jobIn(file: string): string {
  return path.basename(file, ".json").split("-").at(-1) ?? "";
}

/**
 * Writes these words down, in place of those `before` if there were some. Error if the spool is full or switched off,
 * or if its folder is not the user's alone.
 */
export function write(words: Words, before?: Letter): Letter {
  if (before) {
    return Letter.write(before.path, words);
  }
  const place = folder();
  if (place === undefined) throw new Error("HEADWAY_SPOOL is empty, or there is no home for it");
  fs.mkdirSync(place, { mode: 0o700, recursive: true });
  const about = fs.statSync(place);
  if (about.uid !== userId(about.uid)) throw new Error(`${place} belongs to another user`);
  // It was there before, perhaps with other things in it: its mode is not ours to change. On Windows it says nothing.
  if (process.geteuid && about.mode & 0o077) {
    throw new Error(`${place} is open to others: chmod 700 it, or name another folder in HEADWAY_SPOOL`);
  }
  if (fs.readdirSync(place).filter((name) => name.endsWith(".json")).length >= FILES) {
    throw new Error(`${place} has ${FILES} files already`);
  }
  const name = `${mark(words.address, words.tls)}-${uuid7()}-${plain(words.jobId)}.json`;
  return Letter.write(path.join(place, name), words);
}

// In the name, so that a look at the folder tells whether there is something for a server. "True" and "False" are as
// all clients write them.
function mark(address: string, tls: boolean): string {
  return crc32(`${address} ${tls ? "True" : "False"}`)
    .toString(16)
    .padStart(8, "0");
}

// The worker chooses it, and only the server says whether it is one.
function plain(jobId: string): string {
  return /^[\p{L}\p{N}]{1,64}$/u.test(jobId) ? jobId : "odd";
}

// The number of an inode is soon given to another file.
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

// Windows knows no user ids: there a file's owner is as good as any.
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
    // It is a matter of tidiness alone.
  }
}
