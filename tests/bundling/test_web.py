"""The platform web: what its folder holds. That its page is right is seen in a browser, by `make test-web`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import mh_edge
from mh_edge.bundling.web import BACKENDS, BARE, RUNTIMES, Web
from mh_edge.errors import ConversionError, UnavailableError, UsageError
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from mh_edge.signature import Signature, Tensor

REFERENCE = re.compile(r"""(?:from|import|src=|href=|URL\()\s*\(?["'`](\.{0,2}[\w./-]+\.(?:m?js|css))["'`]""")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node_modules whose files are stand-ins."""
    folder = tmp_path_factory.mktemp("npm") / "node_modules"
    for runtime in RUNTIMES.values():
        for package, files in ({runtime.package: {**runtime.files, **runtime.gpu}} | dict(runtime.needs)).items():
            for file in files:
                path = folder / package / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"import {createWasmLib} " + BARE + b";\n" if file == "dist/index.js" else b"{}")
            (folder / package / "package.json").write_text('{"version": "9.8.7"}')
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    paths = [folder / "square.onnx", folder / "square.tflite"]
    for path, content in zip(paths, (SQUARE_ONNX, SQUARE_TFLITE), strict=True):
        path.write_bytes(content)
    return paths


@pytest.fixture(scope="module")
def kit(packages: Path, models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("web") / "kit"
    return mh_edge.bundle(models, "web", output, settings={"node_modules": str(packages)}).path


def told(kit: Path) -> dict[str, dict[str, object]]:
    return {one["name"]: one["details"] for one in json.loads((kit / "bundle.json").read_text())["artifacts"]}


def test_it_holds_the_page_the_runtimes_and_what_they_are(kit: Path) -> None:
    names = {path.relative_to(kit).as_posix() for path in kit.rglob("*") if path.is_file()}
    assert names >= {"index.html", "style.css", "app/main.js", "serve.py", "sample-onnx.js", "sample-tflite.js"}
    assert names >= {"licences.txt", "runtime/onnxruntime-web/ort.wasm.min.mjs", "runtime/litert/wasm-utils.js"}
    assert told(kit) == {
        "square.onnx": {"runtime": "onnxruntime-web 9.8.7", "backends": list(BACKENDS["onnx"])},
        "square.tflite": {"runtime": "@litertjs/core 9.8.7", "backends": list(BACKENDS["tflite"])},
    }
    assert b'from "./wasm-utils.js"' in (kit / "runtime/litert/index.js").read_bytes()
    assert "onnxruntime-web 9.8.7 and @litertjs/core 9.8.7 lie" in (kit / "README.md").read_text()


def test_all_that_the_page_names_is_in_the_folder(kit: Path) -> None:
    named = 0
    for path in (*kit.glob("*.html"), *kit.glob("*.js"), *kit.glob("app/*.js")):
        for name in REFERENCE.findall(path.read_text(encoding="utf-8")):
            assert (path.parent / name).is_file(), f"{path.name}: {name}"
            named += 1
        assert not re.search(r"https?://(?!www\.w3\.org/)", path.read_text(encoding="utf-8")), path.name
    assert named > 20


def test_webassembly_alone_leaves_out_what_a_gpu_needs(packages: Path, models: list[Path], tmp_path: Path) -> None:
    settings = {"node_modules": str(packages), "backends": "wasm"}
    made = mh_edge.bundle(models[:1], "web", tmp_path / "kit", settings=settings)
    runtime = {path.name for path in (made.path / "runtime/onnxruntime-web").iterdir()}
    assert runtime == {Path(name).name for name in RUNTIMES["onnx"].files}
    assert told(made.path)["square.onnx"]["backends"] == ["wasm", "wasm-threads"]
    with pytest.raises(UsageError, match="backends=cuda"):
        Web({"backends": "cuda"})


def test_packages_are_found_from_the_working_directory_upwards(
    packages: Path, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = mh_edge.inspect(models[0])
    (packages.parent / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(packages.parent / "deep" / "er")
    Web().require(artifact)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnavailableError, match=r"npm install onnxruntime-web@1\.30"):
        Web().require(artifact)
    with pytest.raises(UnavailableError, match="elsewhere"):
        Web({"node_modules": "elsewhere"}).require(artifact)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (Tensor("valid", "bool", (1, 2)), r"'valid' is bool\. mh-edge export MODEL --to onnx"),
        (Tensor("x", "int8", (1, 2)), "'x' is int8"),
        (Tensor("x", "float32", (1, "sequence", 2)), r"'sequence' is free\. .* --dim sequence=N"),
    ],
)
def test_what_litert_js_cannot_take_is_refused_with_the_option_that_mends_it(
    packages: Path, models: list[Path], tensor: Tensor, said: str
) -> None:
    artifact = mh_edge.inspect(models[1])
    platform = Web({"node_modules": str(packages)})
    platform.require(artifact)
    with pytest.raises(ConversionError, match=said):
        platform.require(replace(artifact, signature=Signature((tensor,), artifact.outputs)))
