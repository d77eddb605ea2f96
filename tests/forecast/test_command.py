"""`mh-edge inspect --delegates` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from forecast import files

MAIN = """
import sys
from mh_edge.cli import main
code = main()
assert not {"tensorflow", "keras"} & set(sys.modules), "a forecast needs neither"
sys.exit(code)
"""


def inspect(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", MAIN, "inspect", str(path), *options]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_the_json_object(tmp_path: Path) -> None:
    path = files.attention(tmp_path / "m.onnx")
    done = inspect(path, "--delegates", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout)  # and nothing else is there
    assert list(data["delegates"]) == ["nnapi", "coreml", "coreml-neuralnetwork", "xnnpack", "qnn"]
    (blocker,) = data["delegates"]["coreml"]["blockers"]
    assert blocker == {
        "op": "Attention", "count": 1, "reason": "CoreML's mlprogram has no such operation",
        "fix": "export --runtime plugins",
    }  # fmt: skip
    assert {data["delegates"]["coreml"][key] for key in ("nodes", "total", "partitions")} == {2, 3}
    assert set(data["not_for_delegates"]) == {"litert-gpu"}
    assert "delegates" not in json.loads(inspect(path, "--json").stdout)


def test_the_table_says_that_it_is_a_forecast(tmp_path: Path) -> None:
    done = inspect(files.dense(tmp_path / "m.onnx", "batch"), "--delegates")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Forecast, not measured" in done.stdout
    assert "MatMul×2, Relu, Softmax: free size" in done.stdout
    assert "deprecated since Android 15" in done.stdout
    assert "takes .tflite files" in done.stdout


@pytest.mark.parametrize(("content", "kind"), [(b"", "input"), (b"PK\x03\x04 a zip archive", "input")])
def test_bad_files(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    done = inspect(path, "--delegates", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["kind"]) == (3, kind)
