"""A Tercel server for the session, on ports of its own, over the repository in $TERCEL_REPOSITORY."""

import os
import re
import subprocess
import time

import pytest

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")


class Served:
    def __init__(self, output):
        self.http = re.search(r"^serving .* at http://(\S+)$", output, re.M).group(1)
        self.grpc = re.search(r"^gRPC at (\S+)$", output, re.M).group(1)
        self.tfs_http = re.search(r"^TensorFlow Serving REST at http://(\S+)$", output, re.M).group(1)
        self.tfs_grpc = re.search(r"^TensorFlow Serving gRPC at (\S+)$", output, re.M).group(1)


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    log = tmp_path_factory.mktemp("tercel") / "log"
    with open(log, "wb") as out:
        server = subprocess.Popen(
            [
                "node", "dist/cli/main.js", "serve",
                "--models", os.environ["TERCEL_REPOSITORY"],
                "--http-port", "0", "--grpc-port", "0", "--tfs-http-port", "0", "--tfs-grpc-port", "0",
                "--model-control", "explicit", "--load-model", "*", "--allow-shared-memory",
            ],
            cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.time() + 60
        while "\ngRPC at" not in log.read_text():
            assert server.poll() is None and time.time() < deadline, log.read_text()
            time.sleep(0.05)
        yield Served(log.read_text())
    finally:
        server.terminate()
        server.wait(20)
    assert server.returncode == 0, log.read_text()
