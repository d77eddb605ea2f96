"""The platform android: a Gradle project that holds what its models need, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import mh_edge
from mh_edge.artifact import Artifact
from mh_edge.bundling.android import LEFT_OUT, Android
from mh_edge.bundling.platform import GAP
from mh_edge.errors import ConversionError, UsageError
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from mh_edge.signature import Signature, Tensor

ORT, LITERT = "com.microsoft.onnxruntime:onnxruntime-android", "com.google.ai.edge.litert:litert"
SOURCES = "app/src/main/kotlin"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of both formats."""
    folder = tmp_path_factory.mktemp("android")
    for name, content in (("square.onnx", SQUARE_ONNX), ("square.tflite", SQUARE_TFLITE)):
        (folder / name).write_bytes(content)
    settings = {"package": "com.example.square"}
    mh_edge.bundle([folder / "square.onnx", folder / "square.tflite"], "android", folder / "kit", settings=settings)
    return folder / "kit"


def text(kit: Path, name: str) -> str:
    return (kit / name).read_text(encoding="utf-8")


def libraries(kit: Path) -> list[str]:
    return re.findall(r'^    implementation\("(.*):[\d.]+"\)$', text(kit, "app/build.gradle.kts"), re.MULTILINE)


def test_it_is_a_gradle_project_with_the_runtimes_of_its_models(kit: Path) -> None:
    names = {path.relative_to(kit).as_posix() for path in kit.rglob("*") if path.is_file()}
    assert names >= {"settings.gradle.kts", "app/build.gradle.kts", "app/src/main/AndroidManifest.xml"}
    assert names >= {f"{SOURCES}/{name}.kt" for name in ("OrtModel", "LiteRtModel", "SelfTest", "SelfTestActivity")}
    assert libraries(kit) == [ORT, LITERT]
    gradle = text(kit, "app/build.gradle.kts")
    assert all(f'"{suffix}"' in gradle.partition("noCompress")[2].partition(")")[0] for suffix in ("tflite", "onnx"))
    assert all(f'rootProject.file("{name}")' in gradle for name in ("bundle.json", "models", "golden"))
    (activity,) = re.findall(r'<activity .*android:name="\.(\w+)"', text(kit, "app/src/main/AndroidManifest.xml"))
    assert f"class {activity} : Activity()" in text(kit, f"{SOURCES}/SelfTestActivity.kt")


def test_every_gap_is_filled_and_every_file_is_of_the_package(kit: Path) -> None:
    for path in kit.rglob("*"):
        if path.suffix in (".kt", ".kts", ".md", ".xml"):
            assert not GAP.search(path.read_text()), path
        if path.suffix == ".kt":
            assert path.read_text().startswith("package com.example.square\n"), path
    assert text(kit, "app/build.gradle.kts").count('"com.example.square"') == 2
    assert "com.example.square/.SelfTestActivity" in text(kit, "README.md")


def test_the_readme_shows_the_gradle_lines_and_a_call_of_the_first_model(kit: Path) -> None:
    readme = text(kit, "README.md")
    (entry, _) = json.loads(text(kit, "bundle.json"))["artifacts"]
    (given,), (output,) = entry["signature"]["inputs"], entry["signature"]["outputs"]
    assert f'model.run(mapOf("{given["name"]}" to Tensor.of(FloatArray(' in readme
    assert f'outputs.getValue("{output["name"]}")' in readme
    for line in text(kit, "app/build.gradle.kts").splitlines():
        assert "    implementation(" not in line or line in readme
    assert "no Android SDK" in readme


def test_only_the_runtime_that_is_needed_comes_along(squares: tuple[Path, Path], tmp_path: Path) -> None:
    mh_edge.bundle(squares[:1], "android", tmp_path / "kit", settings={"onnxruntime": "1.23.2"})
    assert libraries(tmp_path / "kit") == [ORT]
    assert f"{ORT}:1.23.2" in text(tmp_path / "kit", "README.md")
    assert not (tmp_path / "kit" / SOURCES / "LiteRtModel.kt").exists()
    assert "LiteRtModel" not in text(tmp_path / "kit", f"{SOURCES}/Assets.kt")


def artifact(name: str, dtype: str = "float32", opset: int | None = None, op: str = "MUL") -> Artifact:
    tensors = (Tensor("x", dtype, (1, 2)),)
    return Artifact(Path(name), Path(name).suffix[1:], 1, "", opset, Signature(tensors, tensors), {op: 1}, {}, None)


@pytest.mark.parametrize(
    ("given", "release", "said"),
    [(artifact("m.onnx", opset=23), "1.22.0", "opset 23; onnxruntime-android 1.22.0 reads up to 22.*--opset 22"),
     (artifact("m.onnx", opset=99), "1.30.0", "reads up to 26"),
     (artifact("m.onnx", "uint16", 17), "1.30.0", "'x' of uint16"),
     (artifact("m.tflite", "float16"), "1.30.0", "'x' of float16.*litert"),
     (artifact("m.tflite", op="FlexStridedSlice"), "1.30.0", "FlexStridedSlice.*--batch")],
)  # fmt: skip
def test_what_the_runtimes_of_a_phone_cannot_take_is_refused(given: Artifact, release: str, said: str) -> None:
    with pytest.raises(ConversionError, match=said):
        Android({"onnxruntime": release}).require(given)


def test_what_they_take_is_not_refused() -> None:
    for given in (artifact("m.onnx", "float16", 26), artifact("m.tflite", "int8")):
        Android().require(given)
    Android({"onnxruntime": "1.23.0"}).require(artifact("m.onnx", opset=23))


def test_names_that_androids_packager_drops_are_refused(squares: tuple[Path, Path], tmp_path: Path) -> None:
    model = squares[0].rename(tmp_path / ".hidden.onnx")
    with pytest.raises(ConversionError, match=r"packager does not keep.*Rename"):
        mh_edge.bundle([model], "android", tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


@pytest.mark.parametrize(
    ("path", "dropped"),
    [("_net.onnx", False), ("weights/a.data", False), ("_weights/a.data", True), ("a/.b", True), ("w~", True),
     ("w.gz", True)],
)  # fmt: skip
def test_paths_that_the_packager_drops(path: str, dropped: bool) -> None:
    assert bool(LEFT_OUT.search(path)) is dropped


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"package": "Selftest"}, "no name of an Android app"), ({"package": "com.new.app"}, "no name"),
     ({"package": "app"}, "no name"), ({"onnxruntime": "newest"}, "no release"),
     ({"onnxruntime": "1.16.3"}, "1.17.0 or a newer"), ({"agp": "9"}, "no option 'agp'")],
)  # fmt: skip
def test_settings_that_make_no_project_are_refused(settings: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Android(settings)
