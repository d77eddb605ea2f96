"""`mh-edge quantize` as it is typed: what it prints, the object of --json, and its exit codes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from mh_edge.artifact import Artifact, manifest_path
from tests.cli.conftest import Run, run

__all__ = ["run"]  # a fixture

Runner = Callable[..., Run]


@pytest.fixture
def source(exported: Mapping[str, Artifact], tmp_path: Path) -> Path:
    found = exported["onnx"].path
    shutil.copy(manifest_path(found), tmp_path)
    return Path(shutil.copy(found, tmp_path))


@pytest.fixture
def data(samples: dict[str, np.ndarray], tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, **samples, labels=np.arange(64) % 4)
    return path


def test_the_report(run: Runner, source: Path, data: Path) -> None:
    done = run("quantize", source, "--scheme", "int8", "--calibration", data, "--evaluation", data, "--explain")
    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    by_word = {line[0]: line for line in lines if line}
    assert by_word["size"][-1].startswith("×0.")
    assert by_word["latency,"][-4].startswith("×")
    assert "points" in by_word["accuracy"]
    assert "measured on the evaluation data data.npz, 64 samples" in done.out
    assert "of its time" in done.out or "times its time" in done.out
    assert f"written: {source.with_name('small.int8.onnx')}" in done.out
    assert "range seen" in done.out
    assert "one operation with its scores, mask and softmax inside" in done.out
    shown = run("inspect", source.with_name("small.int8.onnx")).out
    assert "int8: accuracy" in shown


def test_a_gate_that_is_not_passed_is_exit_code_5_with_the_figures(run: Runner, source: Path, data: Path) -> None:
    command = ("quantize", source, "--scheme", "int8", "--calibration", data, "--evaluation", data, "--no-timing")
    done = run(*command, "--max-drop", "100dB")
    assert done.code == 5
    assert "nothing was written" in done.out
    assert "--scheme auto" in done.out
    assert "signal to noise" in done.out
    found = run(*command, "--max-drop", "100dB", "--json")
    assert found.code == 5
    assert found.json["passed"] is False
    assert found.json["artifact"] is None
    assert found.json["gate"] == {"kind": "db", "limit": 100.0}
    assert not source.with_name("small.int8.onnx").exists()
    assert run(*command, "--max-drop", "10dB", "--json").json["passed"] is True


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--scheme", "int8"], 3, "needs calibration data"),
        ([], 2, "neither a scheme nor a recipe"),
        (["--scheme", "int9"], 2, "no scheme 'int9'"),
        (["--scheme", "int8", "--calibration", "missing.npz"], 3, "missing.npz"),
        (["--scheme", "int8-dynamic", "--evaluation", "missing:feeds"], 3, "missing"),
        (["--scheme", "fp16", "--max-drop", "much", "--evaluation", "data.npz"], 2, "'much'"),
        (["--scheme", "fp16", "--block-size", "32", "--integer-io"], 2, "takes no --integer-io"),
        (["--recipe", "missing.json"], 3, "missing.json"),
        (["--recipe", "data.npz"], 3, "holds no recipe"),
    ],
)
def test_bad_input_is_a_sentence(
    run: Runner, source: Path, data: Path, words: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    before = sorted(data.parent.iterdir())
    done = run("quantize", source.name, *words)
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err
    assert sorted(data.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("model.keras", b"PK", 2, "mh-edge export model.keras"),
        ("missing.onnx", None, 3, "there is no file"),
        ("empty.tflite", b"", 3, "is empty"),
        ("noise.onnx", b"\x00\x01 noise", 3, "not an ONNX"),
        ("noise.tflite", b"\x00\x00\x00\x00TFL3 noise", 3, "noise.tflite"),
        ("text.txt", b"text", 3, "neither an .onnx nor a .tflite"),
    ],
)
def test_what_is_no_artifact_is_refused(
    run: Runner, tmp_path: Path, name: str, content: bytes | None, code: int, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    done = run("quantize", path, "--scheme", "int8-dynamic")
    assert done.code == code
    assert message in done.err.replace(str(tmp_path) + "/", "")


def test_a_missing_package_is_exit_code_6_with_the_line_that_installs_it(
    run: Runner, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    done = run("quantize", source, "--scheme", "int8-dynamic", "--no-timing")
    assert done.code == 6
    assert 'pip install "mh-edge[quantize,cpu]"' in done.err


def test_damaged_files_are_refused_or_quantized_never_a_crash(
    run: Runner, exported: Mapping[str, Artifact], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for kind, artifact in exported.items():
        content = artifact.path.read_bytes()
        for number in range(12):
            damaged = bytearray(content[: rng.integers(100, len(content))] if number % 2 else content)
            for at in rng.integers(0, len(damaged), 8):
                damaged[at] = rng.integers(256)
            path = tmp_path / f"{number}.{kind}"
            path.write_bytes(damaged)
            done = run("quantize", path, "--scheme", "int8-dynamic", "--no-timing")
            assert done.code in (0, 3, 4), (number, kind, done.err)
