// Where the process's memory is: an account that adds up to what the system says is resident.
//
// /proc/self/smaps gives every mapping and how much of it is resident; who owns a mapping follows from
// where it lies: the arena says where its slabs are, files have names, V8 says how much its heap holds, the
// C library how much of the rest its heap does. What then is left is called unexplained.
import { readFileSync } from 'node:fs';
import v8 from 'node:v8';
import { native } from '../../native.js';

/** Bytes resident, by owner; they add up to `rss`. */
export interface MemoryAccount {
  rss: number;
  /** Slabs of Tercel's arena: activations, scratch, inputs and outputs. */
  arena: number;
  /** Allocated from the C library's heap: weights, the library's graph and prepacked weights, JS buffers. */
  heap: number;
  /** Free in that heap, and not given back: its fragmentation. */
  heapFree: number;
  /** V8's heap: JS objects and code. */
  js: number;
  /** Threads' stacks. */
  stacks: number;
  /** Pages of files and libraries: ONNX Runtime, Node, a model mapped from its file. */
  files: number;
  /** System V and POSIX shared memory. */
  shared: number;
  unexplained: number;
}

/** What the owners say themselves, besides. */
export interface MemoryDetail {
  arena: {
    reserved: number;
    leased: number;
    peak: number;
    freePages: number;
    largestFree: number;
    /** Of free memory, what is not in one piece: 0 is one piece. */
    fragmentation: number;
    classes: { objectBytes: number; freeObjects: number; spans: number }[];
  };
  heap: { used: number; free: number; mapped: number } | null;
  js: { used: number; total: number; external: number; arrayBuffers: number };
}

interface Mapping {
  start: number;
  end: number;
  permissions: string;
  inode: number;
  path: string;
  rss: number;
}

/** The mappings of /proc/self/smaps. */
export function readMappings(text: string): Mapping[] {
  const mappings: Mapping[] = [];
  for (const line of text.split('\n')) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)\s*(.*)$/.exec(line);
    if (head) {
      const [, start, end, permissions, inode, path] = head;
      mappings.push({
        start: parseInt(start!, 16),
        end: parseInt(end!, 16),
        permissions: permissions!,
        inode: Number(inode),
        path: path!,
        rss: 0,
      });
    } else {
      const rss = /^Rss:\s+(\d+) kB/.exec(line);
      if (rss) mappings.at(-1)!.rss = Number(rss[1]) * 1024;
    }
  }
  return mappings;
}

const STACK_BYTES = 64 * 1024;

/**
 * The account now. Undefined where the system has no /proc/self/smaps.
 */
export function accountMemory(): MemoryAccount | undefined {
  let text: string;
  try {
    text = readFileSync('/proc/self/smaps', 'utf8');
  } catch {
    return undefined;
  }
  const slabs = native.arenaUse()?.slabs ?? [];
  const isSlab = ({ start, end }: Mapping): boolean => {
    for (let i = 0; i < slabs.length; i += 2) {
      if (start < slabs[i]! + slabs[i + 1]! && end > slabs[i]!) return true;
    }
    return false;
  };
  const account: MemoryAccount = {
    rss: 0,
    arena: 0,
    heap: 0,
    heapFree: 0,
    js: 0,
    stacks: 0,
    files: 0,
    shared: 0,
    unexplained: 0,
  };
  let anonymous = 0;
  let breakHeap = 0;
  const mappings = readMappings(text);
  mappings.forEach((mapping, i) => {
    const { rss, path, inode, start, end } = mapping;
    account.rss += rss;
    const before = mappings[i - 1];
    if (isSlab(mapping)) account.arena += rss;
    else if (path.startsWith('/dev/shm') || path.startsWith('/SYSV')) account.shared += rss;
    else if (inode !== 0 || path === '[vdso]' || path === '[vvar]') account.files += rss;
    else if (path === '[stack]') account.stacks += rss;
    else if (path === '[heap]') breakHeap += rss;
    else if (
      // A thread's stack has a guard page below it.
      before?.permissions.startsWith('---') &&
      before.end === start &&
      before.end - before.start <= STACK_BYTES &&
      end - start >= 2 * STACK_BYTES &&
      before.end - before.start >= 4096
    ) {
      account.stacks += rss;
    } else anonymous += rss;
  });
  // Of what has no name, V8's heap and the C library's are known by their size.
  const js = Math.min(anonymous, v8.getHeapStatistics().total_physical_size);
  account.js = js;
  anonymous -= js;
  const malloc = native.mallocUse();
  if (malloc) {
    const left = breakHeap + anonymous;
    account.heap = Math.min(left, malloc.usedBytes + malloc.mappedBytes);
    // Pages that hold nothing but free memory need not be resident: no more than are.
    account.heapFree = Math.min(left - account.heap, malloc.freeBytes);
    account.unexplained = left - account.heap - account.heapFree;
  } else {
    account.heap = breakHeap;
    account.unexplained = anonymous;
  }
  return account;
}

export function detailMemory(): MemoryDetail {
  const use = native.arenaUse();
  const arena = (native.stats()['arena'] ?? {}) as {
    reservedBytes?: number;
    leasedBytes?: number;
    peakLeasedBytes?: number;
  };
  const malloc = native.mallocUse();
  const { heapUsed, heapTotal, external, arrayBuffers } = process.memoryUsage();
  return {
    arena: {
      reserved: arena.reservedBytes ?? 0,
      leased: arena.leasedBytes ?? 0,
      peak: arena.peakLeasedBytes ?? 0,
      freePages: use?.freePageBytes ?? 0,
      largestFree: use?.largestFreeBytes ?? 0,
      fragmentation: use?.freePageBytes ? 1 - use.largestFreeBytes / use.freePageBytes : 0,
      classes: (use?.classes ?? []).filter(({ spans }) => spans > 0),
    },
    heap: malloc
      ? { used: malloc.usedBytes, free: malloc.freeBytes, mapped: malloc.mappedBytes }
      : null,
    js: { used: heapUsed, total: heapTotal, external, arrayBuffers },
  };
}
