"""Microcontrollers: the array is the file, the arena is enough, the self-test finds what is wrong, and what TensorFlow
Lite Micro does not take is refused.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mh_edge
import tflite_files
from mh_edge.bundling.golden import Golden, Worst, judge
from mh_edge.bundling.mcu import METHODS, c_array, c_string, identifiers
from mh_edge.errors import ConversionError, UnavailableError
from mh_edge.runtimes import micro_arena
from mh_edge.runtimes.tflite_micro import MicroSession

runtime = pytest.importorskip("tflite_micro").runtime

NAMES = "7 of 9.tflite", "7-of-9.tflite"
IDS = "m_7_of_9", "m_7_of_9_2"

WRITE = """
#include <stdint.h>
#include <stdio.h>
#include "{0}_model.h"
int main(void) {{
  if ((uintptr_t)g_{0}_model % 16) return 1;
  return fwrite(g_{0}_model, 1, g_{0}_model_len, stdout) != g_{0}_model_len;
}}
"""

WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")


def integers(path: Path) -> Path:
    """y = W x in int8, x in float32; shown = not hidden."""
    file = tflite_files.File()
    file.tensor("x", "float32", (1, 16))
    file.tensor("hidden", "bool", (1, 5))
    whole = np.random.default_rng(0).integers(-127, 128, (8, 16)).astype(np.int8)
    file.tensor("W", "int8", (8, 16), whole, scale=[0.01], zeroPoint=[0])
    file.tensor("q", "int8", (1, 16), scale=[0.03], zeroPoint=[3])
    file.tensor("y", "int8", (1, 8), scale=[0.1], zeroPoint=[-2])
    file.tensor("shown", "bool", (1, 5))
    file.operator("QUANTIZE", ("x",), ("q",))
    file.operator("FULLY_CONNECTED", ("q", "W"), ("y",), version=4, table="FullyConnectedOptions")
    file.operator("LOGICAL_NOT", ("hidden",), ("shown",))
    file.graphs[0].inputs, file.graphs[0].outputs = ("x", "hidden"), ("y", "shown")
    return file.write(path)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two files whose names make one identifier."""
    folder = tmp_path_factory.mktemp("mcu")
    paths = [integers(folder / name) for name in NAMES]
    mh_edge.bundle(paths, "mcu", folder / "kit")
    return folder / "kit"


@pytest.fixture(scope="module")
def told(kit: Path) -> dict[str, Any]:
    """What bundle.json says of the first model."""
    return json.loads((kit / "bundle.json").read_text())["artifacts"][0]


def compiled(kit: Path, name: str, folder: Path, *compiler: str) -> bytes:
    """The model as a compiled program holds it."""
    if not shutil.which(compiler[0]):
        pytest.skip(f"no {compiler[0]} here")
    (folder / "write.c").write_text(WRITE.format(name))
    sources = (str(folder / "write.c"), str(kit / f"src/{name}_model.c"))
    subprocess.run([*compiler, *WARNINGS, "-I", kit / "src", *sources, "-o", folder / "write"], check=True)
    return subprocess.run([folder / "write"], check=True, capture_output=True).stdout


@pytest.mark.parametrize("compiler", [("cc", "-std=c11"), ("c++", "-std=c++17", "-x", "c++")], ids=lambda one: one[0])
def test_the_array_is_the_file(kit: Path, compiler: tuple[str, ...], tmp_path: Path) -> None:
    for name, file in zip(IDS, NAMES, strict=True):
        assert compiled(kit, name, tmp_path, *compiler) == (kit / "models" / file).read_bytes()


def test_a_changed_array_is_noticed(kit: Path, tmp_path: Path) -> None:
    shutil.copytree(kit / "src", tmp_path / "src")
    path = tmp_path / f"src/{IDS[0]}_model.c"
    path.write_text(re.sub(r"^  (\d+),", lambda found: f"  {int(found[1]) ^ 1},", path.read_text(), flags=re.MULTILINE))
    assert compiled(tmp_path, IDS[0], tmp_path, "cc") != (kit / "models" / NAMES[0]).read_bytes()


def worst(content: bytes, arena: int, kit: Path, told: dict[str, Any]) -> Worst:
    """What the interpreter gives for the golden cases in an arena of that size."""
    golden = Golden.read(told["golden"], (kit / told["golden"]["path"]).read_bytes())
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena)
    found = []
    for case in golden.cases:
        for place, array in enumerate(case.inputs.values()):
            interpreter.set_input(array, place)
        interpreter.invoke()
        got = {name: np.array(interpreter.get_output(place)) for place, name in enumerate(case.outputs)}
        found.append(judge(case, got))
    return max(found, key=lambda one: one.share)


def test_the_arena_is_enough(kit: Path, told: dict[str, Any]) -> None:
    content = (kit / told["path"]).read_bytes()
    details = told["details"]
    assert f"#define {IDS[0]}_ARENA_BYTES {details['arena_bytes']}\n" in source(kit, "operators.h")
    assert worst(content, details["arena_bytes"], kit, told).right
    assert worst(content, details["arena_measured"], kit, told).right
    assert not micro_arena.fits(runtime, content, details["arena_measured"] - micro_arena.ALIGNMENT)
    assert details["arena_measured"] < details["arena_bytes"]
    assert details["arena_bytes"] % 1024 == 0


def test_wrong_weights_are_noticed(kit: Path, told: dict[str, Any]) -> None:
    content = (kit / told["path"]).read_bytes()
    weights = np.random.default_rng(0).integers(-127, 128, (8, 16)).astype(np.int8)
    assert weights.tobytes() in content
    changed = content.replace(weights.tobytes(), (-weights).tobytes())
    assert not worst(changed, told["details"]["arena_bytes"], kit, told).right


def source(kit: Path, end: str) -> str:
    return (kit / f"src/{IDS[0]}_{end}").read_text()


HEADERS = (
    "c/common.h",
    "micro/micro_op_resolver.h",
    "micro/micro_mutable_op_resolver.h",
    "micro/micro_interpreter.h",
    "micro/micro_log.h",
    "micro/system_setup.h",
    "schema/schema_generated.h",
)


@pytest.fixture(scope="module")
def selftest(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The self-test, compiled with a TensorFlow Lite Micro of the tests' own that answers with the golden outputs."""
    if not shutil.which("c++"):
        pytest.skip("no c++ here")
    folder = tmp_path_factory.mktemp("selftest")
    for name in HEADERS:
        path = folder / "tensorflow/lite" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('#include "fake_tflm.h"\n')
    here = Path(__file__).parent
    sources = [here / "fake_tflm.cpp", *(kit / "src").glob("*.c*")]
    flags = ("-std=c++17", "-fno-exceptions", "-fno-rtti", *WARNINGS, "-I", folder, "-I", here, "-I", kit / "src")
    subprocess.run(["c++", *flags, "-c", kit / "sample.cpp", "-o", folder / "sample.o"], check=True)
    subprocess.run(["c++", *flags, "-x", "c++", *sources, "-o", folder / "selftest"], check=True)
    return folder / "selftest"


def test_the_self_test_passes(selftest: Path) -> None:
    done = subprocess.run([selftest], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "SELFTEST PASSED"
    assert [line for line in done.stdout.splitlines() if line in NAMES] == list(NAMES)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("number", r"normal.*: y\[7\] is further off"),
        ("bool", r"shown\[0\] is further off"),
        ("second round", r"y\[0\] is further off"),
        ("type", "y has another type"),
        ("invoke", "does not run"),
        ("arena", r"does not fit in an arena of \d+ bytes"),
        ("outputs", "other inputs or outputs"),
    ],
)
def test_the_self_test_finds(fault: str, said: str, selftest: Path) -> None:
    done = subprocess.run([selftest], capture_output=True, text=True, check=False, env={"FAULT": fault})
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "SELFTEST FAILED"
    assert re.search(f"  WRONG .*{said}", done.stdout)


def test_the_resolver_has_what_the_file_needs(kit: Path, told: dict[str, Any]) -> None:
    text = source(kit, "operators.h")
    assert re.findall(r"\.Add(\w+)\(\)", text) == ["FullyConnected", "LogicalNot", "Quantize"]
    assert "MicroMutableOpResolver<3>" in text
    assert told["details"]["operators"] == ["FullyConnected", "LogicalNot", "Quantize"]


def test_every_operation_is_one_of_tflite() -> None:
    known = {name.replace("_", "") for name in vars(runtime.schema_fb.BuiltinOperator)}
    assert not METHODS.keys() - known


def test_the_golden_cases_are_those_of_the_bundle(kit: Path, told: dict[str, Any]) -> None:
    text = source(kit, "golden.cpp")
    numbers = re.search(r"golden\[\] = \{(.*?)\};", text, re.DOTALL)
    assert numbers
    assert bytes(map(int, numbers[1].split(",")[:-1])) == (kit / told["golden"]["path"]).read_bytes()
    cases = told["golden"]["cases"]
    assert told["details"]["cases_in_firmware"] == len(cases)
    for case in cases:
        for kind, place, side, name in (
            ("Float32", 0, "inputs", "x"),
            ("Bool", 1, "inputs", "hidden"),
            ("Int8", 0, "outputs", "y"),
        ):
            entry = case[side][name]
            size = int(np.prod(entry["shape"])) * np.dtype(entry["dtype"]).itemsize
            allowed = entry.get("allowed", 0.0)
            row = f'{{"{name}", {place}, kTfLite{kind}, {size}, golden + {entry["offset"]}, {allowed}}}'
            assert row in text


def test_the_same_files_give_the_same_bytes(kit: Path, tmp_path: Path) -> None:
    mh_edge.bundle([kit / "models" / name for name in NAMES], "mcu", tmp_path / "kit")
    assert (tmp_path / "kit/bundle.json").read_bytes() == (kit / "bundle.json").read_bytes()


def test_identifiers() -> None:
    names = [
        "int.tflite",
        "3d.tflite",
        "Größe__1.tflite",
        "模型.tflite",
        "grosse 1.tflite",
        "INT.tflite",
        "_int_.tflite",
    ]
    assert identifiers(names) == ["int", "m_3d", "Groe_1", "model", "grosse_1", "INT_2", "int_3"]


def test_strings_and_arrays() -> None:
    assert c_string('a"\\?\n/é') == r'"a\042\134\077\012\057\303\251"'
    assert c_array(bytes([0, 255, 7])) == "  0,255,7,"


@pytest.mark.parametrize(
    ("make", "match", "hint"),
    [
        (tflite_files.masked, "computes in floats", r"mh-edge quantize \S*m\.tflite --scheme int8"),
        (tflite_files.weights_in_int8, "does not take its FULLY_CONNECTED", "--scheme int8"),
        (lambda path: tflite_files.dense(path, -1), r"'x' of .* has the free shape \(x_dim_0, 16\)", "--batch 1"),
        (tflite_files.broken, "no operation REDUCE_ANY", "without the layer"),
    ],
)
def test_what_is_refused(make: tflite_files.Make, match: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=match) as caught:
        mh_edge.bundle([make(tmp_path / "m.tflite")], "mcu", tmp_path / "kit")
    assert re.search(hint, str(caught.value.hint))
    assert not (tmp_path / "kit").exists()


def test_onnx_is_refused(squares: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"takes \.tflite files") as caught:
        mh_edge.bundle([squares[0]], "mcu", tmp_path / "kit")
    assert "--to tflite" in str(caught.value.hint)
    assert "--scheme int8" in str(caught.value.hint)


def test_without_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    with pytest.raises(UnavailableError) as caught:
        mh_edge.bundle([integers(tmp_path / "m.tflite")], "mcu", tmp_path / "kit")
    assert caught.value.hint == f'pip install "mh-edge[{MicroSession.extra}]"'
