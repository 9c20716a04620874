"""tercel/client against a server that is not ours: KServe's."""

import os
import socket
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")

SCRIPT = """
import { Client } from './dist/client/index.js';
const url = process.argv[1];
for (const binary of [true, false]) {
  const client = new Client(url, { binary, retries: 200, timeoutMs: 60_000 });
  while (!(await client.modelReady('plus_one').catch(() => false))) await new Promise((r) => setTimeout(r, 100));
  const x = { dtype: 'float32', shape: [2, 2], data: Float32Array.of(1, 2.5, -3, 4) };
  const { y } = await client.infer('plus_one', { x }, { id: 'a' });
  if (y.data.join() !== '2,3.5,-2,5' || y.shape.join() !== '2,2') throw new Error(JSON.stringify(y));
  if (!(await client.live()) || !(await client.ready())) throw new Error('health');
  const wrong = await client.infer('nobody', { x }).catch((error) => error);
  if (wrong.status !== 404) throw wrong;
  await client.close();
}
console.log('well');
"""


def test_kserve_server(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = open(tmp_path / "log", "wb")
    server = subprocess.Popen(
        [sys.executable, os.path.join(os.path.dirname(__file__), "kserve_server.py"), str(port)], stdout=log, stderr=log
    )
    try:
        done = subprocess.run(
            ["node", "--input-type=module", "-e", SCRIPT, f"http://127.0.0.1:{port}"],
            cwd=ROOT, capture_output=True, text=True, timeout=90,
        )
        assert done.stdout.strip() == "well", done.stderr + (tmp_path / "log").read_text()
    finally:
        server.terminate()
        server.wait(20)
