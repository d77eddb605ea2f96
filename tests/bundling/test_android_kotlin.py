"""The self-test of the platform android, compiled and run on this machine's Java, with models that give wrong numbers.

`make test-android` brings what it needs: a Kotlin compiler (MH_EDGE_KOTLIN names the folder), Java, Android's org.json.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import mh_edge
from mh_edge.machine import SQUARE_ONNX

COMPILER = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
KOTLIN = os.environ.get("MH_EDGE_KOTLIN")
JSON = Path("/usr/share/java/com.android.json.jar")
PACKAGE = "com.example.square"
SECONDS = 300

RIGHT = ("none", "little")
WRONG = {
    "beyond": "expected", "nan": "NaN", "infinite": "Infinity", "later": "expected", "missing": "the outputs are []",
    "further": "z]", "shape": "expected float32", "dtype": "is int32",
}  # fmt: skip


@pytest.fixture(scope="module")
def jars() -> list[Path]:
    """Of the compiler."""
    if KOTLIN is None:
        pytest.skip("make test-android brings a Kotlin compiler")
    return sorted(Path(KOTLIN).glob("kotlin-*.jar"))


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("android")
    (folder / "square.onnx").write_bytes(SQUARE_ONNX)
    mh_edge.bundle([folder / "square.onnx"], "android", folder / "kit", settings={"package": PACKAGE})
    return folder / "kit"


@pytest.fixture(scope="module")
def compiled(jars: list[Path], kit: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The class path of the self-test."""
    classes = tmp_path_factory.mktemp("classes")
    path = ":".join(map(str, (classes, JSON, *(jar for jar in jars if jar.name.startswith("kotlin-stdlib")))))
    sources = [kit / "app/src/main/kotlin" / name for name in ("Model.kt", "SelfTest.kt")]
    sources.append(Path(__file__).with_name("SelfTestHere.kt"))
    subprocess.run(
        ["java", "-cp", ":".join(map(str, jars)), COMPILER, "-Werror", "-no-stdlib", "-no-reflect", "-cp", path, "-d",
         str(classes), *map(str, sources)],
        check=True,
        timeout=SECONDS,
    )  # fmt: skip
    return path


def found(compiled: str, kit: Path) -> dict[str, tuple[bool, str]]:
    """By fault: whether the self-test passed, and what it said."""
    done = subprocess.run(
        ["java", "-cp", compiled, f"{PACKAGE}.SelfTestHereKt", str(kit)],
        check=True,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    rows = (line.split("|", 2) for line in done.stdout.splitlines())
    return {name: (passed == "true", said) for name, passed, said in rows}


def test_the_self_test_passes_right_numbers_and_names_wrong_ones(compiled: str, kit: Path) -> None:
    faults = found(compiled, kit)
    assert set(faults) == {*RIGHT, *WRONG}
    for name in RIGHT:
        assert faults[name][0], faults[name]
    for name, word in WRONG.items():
        assert not faults[name][0]
        assert "WRONG: square.onnx: " in faults[name][1]
        assert word in faults[name][1]


def test_a_changed_byte_is_named(compiled: str, kit: Path, tmp_path: Path) -> None:
    for name in ("models/square.onnx", "golden/square.onnx.bin"):
        copy = Path(shutil.copytree(kit, tmp_path / name))
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        passed, said = found(compiled, copy)["none"]
        assert not passed
        assert f"{name} is not the file that was bundled" in said
