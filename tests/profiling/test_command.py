"""`mh-edge profile` as a user types it: what it prints, its exit codes, and that bad input is a sentence."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from program_on_path import environment


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "square.onnx").write_bytes(SQUARE_ONNX)
    (tmp_path / "square.tflite").write_bytes(SQUARE_TFLITE)
    return tmp_path


def run(here: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["mh-edge", "profile", *args],
        cwd=here,
        env=environment(here / "bin") | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_tables_for_people(here: Path) -> None:
    done = run(here, "square.onnx", "square.tflite", "--runs", "100", "--ops")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["file", "device", "p50", "p90", "p99", "ratio", "to", "the", "first", "samples/s"]
    assert lines[2].startswith("square.onnx     cpu")
    assert "all of it" in done.stdout
    assert "the reference" in done.stdout
    assert "Noise: the first row, run twice" in done.stdout
    assert "Mul" in done.stdout


def test_one_object_and_nothing_else(here: Path) -> None:
    done = run(here, "square.onnx", "--runs", "10", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["command"], found["passed"], done.stderr) == ("profile", True, "")


def test_a_device_that_is_not_here_is_exit_6_and_the_others_are_printed(here: Path) -> None:
    done = run(here, "square.onnx", "--device", "cuda", "--device", "cpu", "--runs", "10")
    assert done.returncode == 6
    (failed,) = (line for line in done.stdout.splitlines() if "FAILED" in line)
    assert failed.startswith("square.onnx on cuda: FAILED: ")
    (speed,) = (line for line in done.stdout.splitlines()[:4] if line.startswith("square.onnx"))
    assert " cpu " in speed, "no figure stands beside the name cuda"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["square.onnx", "--device-option", "cuda=1"], "'cuda=1' is not DEVICE.KEY=VALUE"),
        (["square.onnx", "--seconds", "0"], "0.0 is not in the range x>0"),
        (["square.onnx", "--device", "gpu"], "device 'gpu' is not known"),
        (["square.onnx", "--device-option", "cpu.fast=1"], "fast"),
        ([], "Missing argument 'ARTIFACT...'"),
    ],
)
def test_wrong_usage_is_a_sentence(here: Path, args: list[str], message: str) -> None:
    done = run(here, *args)
    assert done.returncode == 2
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
