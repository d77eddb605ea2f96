"""`mh-edge bundle` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mh_edge.bundling.platform import PLATFORMS, platform
from mh_edge.cli import main


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = main(["bundle", *map(str, args)])
    return code, *capsys.readouterr()


def test_what_was_bundled_and_what_to_do_next(
    squares: tuple[Path, Path], plain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "mine.npz", x=np.arange(4, dtype="float32"))
    code, out, err = run(
        capsys, squares[0], "--platform", plain, "-o", tmp_path / "kit.zip", "--feeds", tmp_path / "mine.npz"
    )
    assert (code, err) == (0, "")
    assert "models/square.onnx" in out
    assert "right on cpu" in out
    assert "no manifest says that it was proven" in out
    assert "Copy it." in out

    code, out, _ = run(capsys, squares[0], "--platform", plain, "-o", tmp_path / "kit", "--json")
    found = json.loads(out)
    assert (code, found["command"], found["platform"]) == (0, "bundle", plain)
    assert found["artifacts"][0]["worst"]["share"] <= 1


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["square.onnx", "--platform", "toaster", "-o", "kit"], 2, "'toaster' is not known"),
        (["square.onnx", "--platform", "plain", "-o", "kit", "--platform-option", "x"], 2, "'x' is not KEY=VALUE"),
        (["square.onnx", "--platform", "plain", "-o", "kit", "--platform-option", "x=1"], 2, "has no option 'x'"),
        (["square.keras", "--platform", "plain", "-o", "kit"], 3, "mh-edge export MODEL"),
        (["none.onnx", "--platform", "plain", "-o", "kit"], 3, "none.onnx"),
        (["square.onnx", "--platform", "plain", "-o", "kit", "--feeds", "none.npz"], 3, "none.npz"),
        (["square.onnx", "--platform", "plain", "-o", "square.tflite"], 2, "is a file"),
        (["square.onnx", "--platform", "mcu", "-o", "kit"], 4, "takes .tflite files"),
    ],
)
@pytest.mark.usefixtures("squares", "plain")
def test_bad_input_is_a_sentence_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("square.keras").write_bytes(b"PK")
    found, out, err = run(capsys, *args)
    assert (found, out) == (code, "")
    assert said in err
    assert not (tmp_path / "kit").exists()


def test_help_names_every_platform(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--help")
    for name in PLATFORMS:
        assert name in out
        for option in platform(name).takes:
            assert option in out.partition(f"{name}:")[2].partition(";")[0]
