"""The C++ of the platform ort-mobile, compiled, and run with the library of the wheel."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import graphs
import onnxruntime
import pytest

import mh_edge

HEADERS = Path(sys.prefix, "onnxruntime")
LIBRARY = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")


def compiled(kit: Path, name: str, folder: Path, *options: str) -> Path:
    """kit/name.cc as a program in the folder. The library wants to be called by its soname."""
    (folder / "libonnxruntime.so.1").unlink(missing_ok=True)
    (folder / "libonnxruntime.so.1").symlink_to(LIBRARY)
    line = ["c++", "-std=c++17", *WARNINGS, *options, "-isystem", HEADERS, kit / f"{name}.cc", "-o", folder / name]
    subprocess.run([*map(str, line), str(folder / "libonnxruntime.so.1"), f"-Wl,-rpath,{folder}"], check=True)
    return folder / name


def run(*line: str | Path) -> tuple[int, str]:
    done = subprocess.run([*map(str, line)], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three models."""
    if not (HEADERS / "onnxruntime_cxx_api.h").is_file():
        pytest.skip(f"tests/delegates/ort_headers.sh {HEADERS} brings the headers of ONNX Runtime")
    folder = tmp_path_factory.mktemp("ort_mobile")
    models = [
        graphs.dense(folder / "dense.onnx"),
        graphs.masked(folder / "masked.onnx"),
        graphs.lstm(folder / "lstm.onnx", 1),
    ]
    mh_edge.bundle(models, "ort-mobile", folder / "kit")
    return folder / "kit"


@pytest.fixture(scope="module")
def selftest(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(kit, "selftest", tmp_path_factory.mktemp("programs"))


def test_every_number_is_right(kit: Path, selftest: Path) -> None:
    code, said = run(selftest, kit)
    assert code == 0, said
    lines = said.splitlines()
    assert [line[: line.index(":")] for line in lines[1:]] == [
        f"RIGHT  models/{name}.ort" for name in ("dense", "masked", "lstm")
    ]


@pytest.mark.parametrize("value", [1.5, float("nan"), float("inf")])
def test_a_number_that_is_off_is_wrong(kit: Path, selftest: Path, tmp_path: Path, value: float) -> None:
    changed = tmp_path / "kit"
    shutil.copytree(kit, changed)
    golden = json.loads((kit / "bundle.json").read_text())["artifacts"][0]["golden"]
    ((_, output),) = golden["cases"][0]["outputs"].items()
    content = bytearray((changed / golden["path"]).read_bytes())
    struct.pack_into("<f", content, output["offset"], value)
    (changed / golden["path"]).write_bytes(content)
    code, said = run(selftest, changed)
    assert code == 1
    assert f"WRONG  models/dense.ort, {golden['cases'][0]['name']}: y is off by" in said
    assert "RIGHT  models/masked.ort" in said


def test_a_damaged_bundle_is_an_error(kit: Path, selftest: Path, tmp_path: Path) -> None:
    assert run(selftest, tmp_path) == (
        1,
        f"ONNX Runtime {onnxruntime.__version__}\nthere is no file {tmp_path}/bundle.json\n",
    )
    for path in ("bundle.json", "golden/dense.onnx.bin"):
        changed = tmp_path / "kit"
        shutil.copytree(kit, changed)
        content = (changed / path).read_bytes()
        (changed / path).write_bytes(content[: len(content) // 2])
        code, said = run(selftest, changed)
        assert code == 1, said
        assert "damaged" in said or "truncated" in said or "has no" in said
        shutil.rmtree(changed)


def test_the_sample_runs(kit: Path, tmp_path: Path) -> None:
    code, said = run(compiled(kit, "sample", tmp_path), kit / "models/masked.ort")
    assert code == 0, said
    assert said.startswith("y: ")
