// The machine that figures are of.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import os from 'node:os';
import { stats } from '../runtime/runtime.js';
import { version } from '../version.js';

/** What of a processor's features matters to kernels. */
const SIMD =
  /^(sse4_1|sse4_2|avx|avx2|fma|f16c|avx512\w*|avx_vnni|amx_\w+|asimd|asimdhp|asimddp|sve2?|i8mm|bf16)$/;

export interface Machine {
  /** Of what does not change while the machine stays the same: same id, same hardware and libraries. */
  id: string;
  cpu: {
    model: string;
    /** That this process may use, and that there are. */
    available: number;
    logical: number;
    /** 0 where the system does not say. */
    physical: number;
    mhz: number;
    simd: string[];
    /** As in "L2 1024K"; one processor's. */
    caches: string[];
    governor: string | null;
  };
  memoryBytes: number;
  gpus: { name: string; driver: string; memoryBytes: number }[];
  os: { platform: string; release: string; arch: string; hypervisor: boolean };
  /** Null where nothing is limited. */
  container: { cpus: number | null; memoryBytes: number | null };
  libraries: { tercel: string; node: string; v8: string; onnxruntime: string | null };
}

function text(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return undefined;
  }
}

/** The NVIDIA GPUs that the driver's own tool names. */
export function gpus(): Machine['gpus'] {
  // Under WSL there is another device instead.
  const isThere = existsSync('/proc/driver/nvidia') || existsSync('/dev/dxg');
  if (process.platform === 'linux' && !isThere) return [];
  try {
    const listed = execFileSync(
      'nvidia-smi',
      ['--query-gpu=name,driver_version,memory.total', '--format=csv,noheader,nounits'],
      { encoding: 'utf8', timeout: 5000, stdio: ['ignore', 'pipe', 'ignore'] },
    );
    return listed
      .trim()
      .split('\n')
      .map((line) => line.split(',').map((part) => part.trim()))
      .map(([name = '', driver = '', mib = '0']) => ({
        name,
        driver,
        memoryBytes: Number(mib) * 2 ** 20,
      }));
  } catch {
    return [];
  }
}

function caches(): string[] {
  const folder = '/sys/devices/system/cpu/cpu0/cache';
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.startsWith('index'))
    .sort()
    .map((name) => {
      const kind = text(`${folder}/${name}/type`);
      const letter = kind === 'Data' ? 'd' : kind === 'Instruction' ? 'i' : '';
      return `L${text(`${folder}/${name}/level`)}${letter} ${text(`${folder}/${name}/size`)}`;
    });
}

function container(): Machine['container'] {
  const [quota, period] = (text('/sys/fs/cgroup/cpu.max') ?? 'max').split(' ');
  const memory = text('/sys/fs/cgroup/memory.max') ?? 'max';
  return {
    cpus: quota === 'max' || !period ? null : Number(quota) / Number(period),
    memoryBytes: memory === 'max' ? null : Number(memory),
  };
}

/** Describes the machine, and the libraries that the process has opened by now. */
export function describeMachine(): Machine {
  const cpuinfo = text('/proc/cpuinfo') ?? '';
  const features = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? '';
  const cores = new Set(
    [...cpuinfo.matchAll(/^physical id\s*:\s*(\d+)[\s\S]*?^core id\s*:\s*(\d+)/gm)].map(
      ([, socket, core]) => `${socket}:${core}`,
    ),
  );
  const processors = os.cpus();
  const described: Omit<Machine, 'id'> = {
    cpu: {
      model: processors[0]?.model.trim() ?? 'unknown',
      available: os.availableParallelism(),
      logical: processors.length,
      physical: cores.size,
      mhz: processors[0]?.speed ?? 0,
      simd: features.split(' ').filter((feature) => SIMD.test(feature)),
      caches: caches(),
      governor: text('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor') ?? null,
    },
    memoryBytes: os.totalmem(),
    gpus: gpus(),
    os: {
      platform: os.platform(),
      release: os.release(),
      arch: os.arch(),
      hypervisor: / hypervisor( |$)/.test(features),
    },
    container: container(),
    libraries: {
      tercel: version,
      node: process.versions.node,
      v8: process.versions.v8,
      onnxruntime: stats().library?.version ?? null,
    },
  };
  const { cpu, memoryBytes, gpus: devices, os: system, container: limits } = described;
  // Not the clock, which moves, nor the libraries, which are what may be compared.
  const hardware = { ...cpu, mhz: 0, memoryBytes, devices, system, limits };
  const id = createHash('sha256').update(JSON.stringify(hardware)).digest('hex').slice(0, 12);
  return { id, ...described };
}

/** One line for people. */
export function machineLine({
  cpu,
  memoryBytes,
  gpus: devices,
  libraries,
  os: system,
}: Machine): string {
  return [
    `${cpu.model}, ${cpu.available} processor${cpu.available === 1 ? '' : 's'}`,
    `${(memoryBytes / 2 ** 30).toFixed(0)} GiB`,
    ...devices.map(({ name }) => name),
    `${system.platform} ${system.release}`,
    `ONNX Runtime ${libraries.onnxruntime ?? '?'}, Node ${libraries.node}, Tercel ${libraries.tercel}`,
  ].join('; ');
}
