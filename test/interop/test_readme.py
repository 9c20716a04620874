"""The README's curl examples, as they stand there."""

import json
import os
import re
import subprocess

import pytest

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as readme:
    TEXT = readme.read()
EXAMPLES = re.findall(r"```sh\n((?:(?!```).)*curl .*?)```\s*(?:```json\n(.*?)```)?", TEXT, re.S)


def test_there_are_some():
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("command, expected", EXAMPLES)
def test_curl(served, command, expected):
    command = command.replace("127.0.0.1:8000", served.http)
    answer = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=ROOT, capture_output=True, check=True).stdout
    parsed = json.loads(answer)
    assert "error" not in parsed, answer
    if expected.rstrip().endswith("..."):
        shown = expected.rstrip().removesuffix("...").rstrip().removesuffix(",")
        assert answer.decode().startswith(shown), answer
    elif expected:
        assert parsed == json.loads(expected)
