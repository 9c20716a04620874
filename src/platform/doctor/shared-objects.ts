// Which shared objects an ELF file needs, and where the system's loader would find them.
//
// Format: the System V gABI, chapters 4 and 5; search order: ld.so(8).
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import path from 'node:path';

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const DT_NULL = 0n;
const DT_NEEDED = 1n;
const DT_STRTAB = 5n;
const DT_STRSZ = 10n;
const DT_RPATH = 15n;
const DT_RUNPATH = 29n;
/** More is no table of names. */
const MAX_NAMES_BYTES = 16 << 20;

export interface Needs {
  /** Names, as libcudart.so.12. */
  needed: string[];
  /** Where the file says that they may lie. */
  folders: string[];
}

/**
 * What a shared object needs.
 *
 * @throws Error when the file cannot be read, or is no 64-bit little-endian ELF file
 */
export function readNeeds(file: string): Needs {
  const fd = openSync(file, 'r');
  try {
    const read = (at: number, bytes: number): Buffer => {
      const buffer = Buffer.alloc(bytes);
      if (readSync(fd, buffer, 0, bytes, at) !== bytes) throw new Error(`${file} is cut short`);
      return buffer;
    };
    const header = read(0, 64);
    if (header.readUInt32BE(0) !== 0x7f454c46 || header[4] !== 2 || header[5] !== 1) {
      throw new Error(`${file} is no 64-bit ELF file`);
    }
    const entrySize = header.readUInt16LE(54);
    const count = header.readUInt16LE(56);
    const table = read(Number(header.readBigUInt64LE(32)), entrySize * count);
    const segments = Array.from({ length: count }, (_, i) => {
      const at = i * entrySize;
      return {
        type: table.readUInt32LE(at),
        offset: Number(table.readBigUInt64LE(at + 8)),
        address: Number(table.readBigUInt64LE(at + 16)),
        bytes: Number(table.readBigUInt64LE(at + 32)),
      };
    });
    const dynamic = segments.find(({ type }) => type === PT_DYNAMIC);
    if (!dynamic) return { needed: [], folders: [] };
    const entries: { tag: bigint; value: number }[] = [];
    const list = read(dynamic.offset, dynamic.bytes);
    for (let at = 0; at + 16 <= list.length; at += 16) {
      const tag = list.readBigInt64LE(at);
      if (tag === DT_NULL) break;
      entries.push({ tag, value: Number(list.readBigUInt64LE(at + 8)) });
    }
    const valueOf = (wanted: bigint): number =>
      entries.find(({ tag }) => tag === wanted)?.value ?? 0;
    const address = valueOf(DT_STRTAB);
    const bytes = valueOf(DT_STRSZ);
    const home = segments.find(
      (s) => s.type === PT_LOAD && s.address <= address && address < s.address + s.bytes,
    );
    if (!home || bytes > MAX_NAMES_BYTES) throw new Error(`${file} has no table of names`);
    const names = read(home.offset + address - home.address, bytes);
    const texts = (wanted: bigint): string[] =>
      entries
        .filter(({ tag }) => tag === wanted)
        .map(({ value }) =>
          names.toString('utf8', value, Math.max(value, names.indexOf(0, value))),
        );
    const own = path.dirname(file);
    const folders = [...texts(DT_RUNPATH), ...texts(DT_RPATH)]
      .flatMap((list) => list.split(':'))
      .filter((folder) => folder !== '')
      .map((folder) => folder.replace(/\$\{?ORIGIN\}?/g, own));
    return { needed: texts(DT_NEEDED), folders };
  } finally {
    closeSync(fd);
  }
}

/** Where the loader's cache has libraries, by name. */
function readCache(): Map<string, string> {
  const known = new Map<string, string>();
  for (const program of ['ldconfig', '/sbin/ldconfig', '/usr/sbin/ldconfig']) {
    try {
      const text = execFileSync(program, ['-p'], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      for (const [, name, file] of text.matchAll(/^\s*(\S+) \(.*\) => (\S+)$/gm)) {
        if (!known.has(name!)) known.set(name!, file!);
      }
      break;
    } catch {
      // Systems without it, as those of musl, have the usual folders.
    }
  }
  return known;
}

const USUAL_FOLDERS = ['/lib64', '/usr/lib64', '/lib', '/usr/lib', '/usr/local/lib'];

/** Finds libraries as the loader of a process that starts now would. */
export class LibrarySearch {
  readonly #cache = readCache();
  readonly #folders: string[];

  /** @param searchPath LD_LIBRARY_PATH */
  constructor(searchPath = process.env['LD_LIBRARY_PATH'] ?? '') {
    this.#folders = searchPath.split(':').filter((folder) => folder !== '');
  }

  /** The file of a library's name; undefined where there is none. */
  find(name: string, ownFolders: readonly string[] = []): string | undefined {
    if (name.includes('/')) return existsSync(name) ? name : undefined;
    for (const folder of [...this.#folders, ...ownFolders]) {
      const file = path.join(folder, name);
      if (existsSync(file)) return file;
    }
    const cached = this.#cache.get(name);
    if (cached && existsSync(cached)) return cached;
    return USUAL_FOLDERS.map((folder) => path.join(folder, name)).find(existsSync);
  }

  /**
   * The names that a file needs, and what it needs needs, that are nowhere.
   *
   * @throws as readNeeds(), for the file itself
   */
  missing(file: string): string[] {
    const missing = new Set<string>();
    const seen = new Set<string>();
    const look = (at: string, isFirst: boolean): void => {
      if (seen.has(at)) return;
      seen.add(at);
      let needs: Needs;
      try {
        needs = readNeeds(at);
      } catch (error) {
        if (isFirst) throw error;
        return; // a linker script, perhaps
      }
      for (const name of needs.needed) {
        const found = this.find(name, needs.folders);
        if (found) look(found, false);
        else missing.add(name);
      }
    };
    look(file, true);
    return [...missing];
  }
}
