"""A bundle for the web, served and opened in a real Chromium: what its page says, and that it can say the opposite.

WebGPU runs on the software Vulkan that Chromium brings.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import mh_edge
from mh_edge.quiet import quiet
from program_on_path import environment
from web.browsing import ELSEWHERE, Chromium

PACKAGES = {"node_modules": str(Path(__file__).parent / "node_modules")}
WASM = {**PACKAGES, "backends": "wasm"}
WIDTHS = (320, 360, 768, 1280, 1920)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """attention.onnx: masked, with free sizes, which WebGPU leaves to the CPU to compute. dense.tflite."""
    folder = tmp_path_factory.mktemp("artifacts")
    with quiet():
        import keras

        keras.utils.set_random_seed(7)
        x, valid = keras.Input((None, 8), name="x"), keras.Input((None,), dtype="bool", name="valid")
        y = keras.layers.MultiHeadAttention(2, 4)(x, x, query_mask=valid, value_mask=valid)
        attention = keras.Model([x, valid], keras.layers.Dense(3, name="y")(keras.layers.LayerNormalization()(x + y)))
        x = keras.Input((6, 8), batch_size=1, name="x")
        dense = keras.Model(x, keras.layers.Dense(4, activation="softmax", name="y")(keras.layers.Dense(8)(x)))
    mh_edge.export(attention, folder / "attention.onnx", formats=["onnx"])
    mh_edge.export(dense, folder / "dense.tflite", formats=["tflite"])
    return folder / "attention.onnx", folder / "dense.tflite"


@pytest.fixture(scope="session")
def kit(artifacts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mh_edge.bundle(artifacts, "web", tmp_path_factory.mktemp("full") / "kit", settings=PACKAGES).path


@pytest.fixture(scope="session")
def small(artifacts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model, WebAssembly alone."""
    return mh_edge.bundle(artifacts[:1], "web", tmp_path_factory.mktemp("small") / "kit", settings=WASM).path


@contextmanager
def served(command: Sequence[str], folder: Path) -> Iterator[str]:
    """The address that a server of a folder prints."""
    with subprocess.Popen(
        [sys.executable, "-u", *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        try:
            yield said[said.index("http://") :].split(")")[0].strip()
        finally:
            server.terminate()


@contextmanager
def opened(browser: Chromium, folder: Path) -> Iterator[Any]:
    """What the page of a bundle found, while it is shown."""
    with served(["serve.py", "--port", "0"], folder) as address:
        browser.open(address)
        yield browser.result()


@pytest.fixture(scope="module")
def page(browser: Chromium, kit: Path) -> Iterator[dict[str, Any]]:
    """The full bundle's page, shown; what it asked for and complained of, beside what it found."""
    with served(["serve.py", "--port", "0"], kit) as address:
        browser.open(address)
        found = browser.result()
        yield {**found, "address": address, "asked": list(browser.asked), "complaints": list(browser.complaints)}


def rows(found: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {(row["artifact"], row["backend"]): row for row in found["rows"]}


def test_every_backend_gives_the_golden_numbers(page: dict[str, Any]) -> None:
    assert page["passed"]
    assert page["environment"]["cross_origin_isolated"]
    assert page["environment"]["hashes_checked"]
    here = {key: row for key, row in rows(page).items() if not row["absent"]}
    backends = ("wasm", "wasm-threads", "webgpu")
    assert set(here) == {(name, backend) for name in ("attention.onnx", "dense.tflite") for backend in backends}
    for (name, backend), row in here.items():
        assert row["right"], row
        assert {case["time"] for case in row["cases"]} == {1, 2}
        assert all(case["share"] <= 1 for case in row["cases"])
        assert any(case["error"] > 0 for case in row["cases"]), "numbers of another runtime, compared"
        assert row["threads"] >= 2 if backend == "wasm-threads" else row["threads"] == 1
        assert row["runtime"].startswith("onnxruntime-web 1." if name.endswith("onnx") else "@litertjs/core 2.")
        assert row["latency"]["calls"] >= 2
        assert len(row["openings"]) == 2
        assert row["latency"]["p50"] == pytest.approx(np.median(row["latency"]["ms"]))
    assert "has no WebNN" in rows(page)["attention.onnx", "webnn"]["absent"]


def test_where_it_ran_is_proven_and_partly_is_said(page: dict[str, Any], browser: Chromium) -> None:
    found = rows(page)
    wasm, gpu = (found["attention.onnx", one]["placement"] for one in ("wasm", "webgpu"))
    assert wasm["whole"]
    assert wasm["nodes"] == wasm["on_device"] > 3
    assert not gpu["whole"]
    assert 0 < gpu["on_device"] < gpu["nodes"]
    assert {one["where"] for one in gpu["fallbacks"]} == {"wasm"}
    assert sum(one["count"] for one in gpu["fallbacks"]) == gpu["nodes"] - gpu["on_device"]
    assert "software" in found["attention.onnx", "webgpu"]["adapter"]
    assert found["dense.tflite", "webgpu"]["placement"]["whole"]
    shown = browser.value("document.querySelector('.summary').innerText")
    assert f"partly on the CPU: {gpu['nodes'] - gpu['on_device']} of {gpu['nodes']} nodes" in shown


def test_the_page_shows_what_it_found(page: dict[str, Any], browser: Chromium) -> None:
    cells = browser.value("[...document.querySelectorAll('.summary td:first-of-type')].map(one => one.innerText)")
    parity = [cell for cell in cells if "right" in cell]
    there = [row for row in page["rows"] if not row["absent"]]
    for cell, row in zip(parity, there, strict=True):
        assert f"✓ {len(row['cases'])} of {len(row['cases'])} right" in cell
        assert "allowed" in cell
    assert "all 6 backends" in browser.value("document.getElementById('verdict').innerText")
    assert browser.value("document.querySelectorAll('svg.ridge .area').length") == len(there)


def test_no_request_leaves_the_folder_and_nothing_is_complained_of(page: dict[str, Any], kit: Path) -> None:
    listed = json.loads((kit / "bundle.json").read_text())["files"]
    asked = {url for url in page["asked"] if not url.startswith(("blob:", "data:"))}
    paths = {url.removeprefix(page["address"]) for url in asked if url.startswith(page["address"])}
    assert len(paths) == len(asked)
    assert paths - {"", "bundle.json"} <= set(listed)
    assert {"models/attention.onnx", "golden/attention.onnx.bin", "runtime/litert/index.js"} <= paths
    assert page["complaints"] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.usefixtures("page")
def test_nothing_sticks_out_or_is_covered_cut_or_pale(
    browser: Chromium, looks: str, dark: bool, tmp_path: Path
) -> None:
    for width in WIDTHS:
        browser.look(width=width, dark=dark)
        for opened in ("false", "true"):
            browser.value(f"document.querySelectorAll('details').forEach(one => one.open = {opened})")
            assert browser.value(looks) == {}, (width, opened)
        browser.page.screenshot(path=tmp_path / f"{width}.png", full_page=True)


@pytest.mark.usefixtures("page")
def test_a_screen_reader_has_names_for_all(browser: Chromium) -> None:
    assert browser.value("document.documentElement.lang") == "en"
    assert browser.value("document.querySelector('#verdict').getAttribute('role')") == "status"
    assert browser.value("[...document.querySelectorAll('svg.ridge')].every(one => /p50/.test(one.ariaLabel))")
    assert browser.value("[...document.querySelectorAll('thead th')].every(one => one.scope === 'col')")


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_the_sample_runs(browser: Chromium, kit: Path, kind: str) -> None:
    with served(["serve.py", "--port", "0"], kit) as address:
        browser.open(f"{address}sample-{kind}.html")
        browser.page.wait_for_function("document.getElementById('out').textContent.startsWith('y:')")


def test_a_graph_that_webgpu_does_not_take_whole_is_a_sentence(browser: Chromium, tmp_path: Path) -> None:
    with quiet():
        import keras

        x = keras.Input((400, 3), batch_size=1, name="x")
        loop = keras.Model(x, keras.layers.GRU(4, reset_after=False)(x))
    mh_edge.export(loop, tmp_path / "loop.tflite", formats=["tflite"])
    with opened(
        browser, mh_edge.bundle([tmp_path / "loop.tflite"], "web", tmp_path / "kit", settings=PACKAGES).path
    ) as found:
        webgpu, wasm = (rows(found)["loop.tflite", one] for one in ("webgpu", "wasm"))
        assert wasm["right"]
        assert "does not take the whole model (WHILE: Operation is not supported" in webgpu["error"]
        assert "WHILE" in browser.value("document.querySelector('#verdict.failed').innerText")


def test_the_example_makes_a_bundle_that_webgpu_takes_whole(browser: Chromium, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(PACKAGES["node_modules"])
    script = Path(__file__).parents[2] / "examples/07_deploy_web/deploy_web.py"
    subprocess.run([sys.executable, str(script), "out"], cwd=tmp_path, env=environment(tmp_path / "bin"), check=True)
    with opened(browser, tmp_path / "out/web") as found:
        assert found["passed"]
        assert rows(found)["digits.onnx", "webgpu"]["placement"]["whole"]


def test_a_plain_server_gives_one_thread_and_the_page_says_why(browser: Chromium, small: Path) -> None:
    with served(["-m", "http.server", "--bind", "127.0.0.1", "0"], small) as address:
        browser.open(address)
        found = browser.result()
    assert found["passed"], found
    assert not found["environment"]["cross_origin_isolated"]
    wasm, threads = (rows(found)["attention.onnx", one] for one in ("wasm", "wasm-threads"))
    assert wasm["right"]
    assert wasm["threads"] == 1
    assert "Cross-Origin-Opener-Policy" in threads["absent"]


def test_a_page_of_another_machine_by_http_runs_and_says_what_it_could_not_check(browser: Chromium, kit: Path) -> None:
    with served(["serve.py", "--port", "0"], kit) as address:
        browser.open(address.replace("127.0.0.1", ELSEWHERE))
        found = browser.result()
    assert found["passed"], found
    assert not found["environment"]["hashes_checked"]
    for backend in ("wasm-threads", "webgpu", "webnn"):
        assert "secure context" in rows(found)["attention.onnx", backend]["absent"]
    assert "sha256 is not to be had" in browser.value("document.querySelector('dl').innerText")


def test_a_page_opened_as_a_file_says_what_to_do(browser: Chromium, small: Path) -> None:
    browser.open(small / "index.html")
    assert "python serve.py" in browser.value("document.getElementById('words').innerText")


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "kit"))


def relisted(folder: Path, path: str) -> None:
    """Give bundle.json the hash of what the file holds now."""
    told = json.loads((folder / "bundle.json").read_text())
    content = (folder / path).read_bytes()
    told["files"][path] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "bundle.json").write_text(json.dumps(told))


def test_a_model_with_another_weight_fails(browser: Chromium, copy: Path) -> None:
    model = onnx.load(copy / "models/attention.onnx")
    weight = max(model.graph.initializer, key=lambda one: int(np.prod(one.dims)))
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] += 1.0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, copy / "models/attention.onnx")
    relisted(copy, "models/attention.onnx")
    with opened(browser, copy) as found:
        assert not found["passed"]
        assert not rows(found)["attention.onnx", "wasm"]["right"]
        assert "expected" in browser.value("document.querySelector('#verdict.failed').innerText")
        assert "✕" in browser.value("document.querySelector('.summary .bad').innerText")


def test_a_wrong_golden_number_fails_and_is_named(browser: Chromium, copy: Path) -> None:
    (entry,) = json.loads((copy / "bundle.json").read_text())["artifacts"]
    case = entry["golden"]["cases"][1]
    path = copy / entry["golden"]["path"]
    content = bytearray(path.read_bytes())
    offset = case["outputs"]["y"]["offset"]
    content[offset : offset + 4] = np.float32(1e6).tobytes()
    path.write_bytes(content)
    relisted(copy, entry["golden"]["path"])
    with opened(browser, copy) as found:
        bad = [one for one in rows(found)["attention.onnx", "wasm"]["cases"] if not one["right"]]
        assert [one["name"] for one in bad] == [case["name"]] * 2
        assert "y[0, 0, 0] is" in bad[0]["why"]
        assert "expected 1.00000e+6" in bad[0]["why"]


@pytest.mark.parametrize("path", ["models/attention.onnx", "golden/attention.onnx.bin"])
def test_a_changed_byte_is_named(browser: Chromium, copy: Path, path: str) -> None:
    content = bytearray((copy / path).read_bytes())
    content[-1] ^= 1
    (copy / path).write_bytes(content)
    with opened(browser, copy) as found:
        assert not found["passed"]
        assert f"{path} was changed" in browser.value("document.getElementById('verdict').innerText")


def test_numbers_of_all_kinds(browser: Chromium, tmp_path: Path) -> None:
    kinds = {
        "half": TensorProto.FLOAT16,
        "double": TensorProto.DOUBLE,
        "long": TensorProto.INT64,
        "whole": TensorProto.INT32,
    }
    nodes = [helper.make_node("Add", [name, name], [f"{name}_twice"]) for name in kinds]
    nodes.append(helper.make_node("Not", ["flag"], ["flag_not"]))
    kinds["flag"] = TensorProto.BOOL
    shape = ["batch", 3]
    graph = helper.make_graph(
        nodes,
        "kinds",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind in kinds.items()],
        [
            helper.make_tensor_value_info(f"{name}_{'not' if name == 'flag' else 'twice'}", kind, shape)
            for name, kind in kinds.items()
        ],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "k.onnx")
    kit = mh_edge.bundle([tmp_path / "k.onnx"], "web", tmp_path / "kit", settings=WASM).path
    with opened(browser, kit) as found:
        assert found["passed"], found
