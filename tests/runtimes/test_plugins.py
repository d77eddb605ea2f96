"""The plugin devices without their plugins: what they refuse, what they ask of ONNX Runtime, what they read."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mh_edge.errors import MhEdgeError, UnavailableError, UsageError
from mh_edge.machine import SQUARE_ONNX
from mh_edge.runtimes import adapter, qnn, vulkan
from mh_edge.runtimes.openvino import OpenVinoSession
from mh_edge.runtimes.ort import plugin
from mh_edge.runtimes.ort.placement import Assigned
from mh_edge.runtimes.qnn import QnnSession
from mh_edge.runtimes.webgpu import SOFTWARE, WebGpuSession

PLUGINS: tuple[type[plugin.PluginSession], ...] = (OpenVinoSession, WebGpuSession, QnnSession)
LLVMPIPE, RADEON = vulkan.Gpu("llvmpipe", True), vulkan.Gpu("Radeon", False)


@pytest.fixture
def square(tmp_path: Path) -> Path:
    path = tmp_path / "square.onnx"
    path.write_bytes(SQUARE_ONNX)
    return path


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[types.SimpleNamespace]:
    """Plugins that are installed and list these devices."""
    devices: list[types.SimpleNamespace] = []
    monkeypatch.setattr(plugin, "_register", lambda name, library: None)
    monkeypatch.setattr(plugin.PluginSession, "_devices", classmethod(lambda cls: devices))
    for session in PLUGINS:
        module = types.SimpleNamespace(get_ep_name=lambda: "any", get_library_path=lambda: "any.so")
        monkeypatch.setitem(sys.modules, session.module, module)  # type: ignore[arg-type]
    return devices


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, listed: list[types.SimpleNamespace]) -> list[tuple[Any, dict[str, str]]]:
    """What a session that opens asks of its plugin: the device, and the options."""
    listed += [types.SimpleNamespace(ep_metadata={"ov_device": name}) for name in ("CPU", "GPU.0")]
    found: list[tuple[Any, dict[str, str]]] = []

    def made(self: plugin.PluginSession, onnxruntime: Any, options: Any) -> Any:
        found.append((self._device(), self._provider_options()))
        return onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(plugin.PluginSession, "_made", made)
    return found


def refusal(call: Callable[[], object], kind: type[MhEdgeError]) -> tuple[str, str]:
    with pytest.raises(kind) as caught:
        call()
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize("session", PLUGINS)
def test_a_missing_plugin_has_the_pip_line(
    session: type[plugin.PluginSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, session.module, None)
    message, hint = refusal(session.load, UnavailableError)
    assert repr(session.module) in message
    assert hint == f'pip install "mh-edge[{session.device}]"'
    assert adapter(session.device) is session


def test_a_library_that_onnxruntime_cannot_take(tmp_path: Path) -> None:
    library = tmp_path / "libnone.so"
    library.write_bytes(b"no library")
    message, hint = refusal(lambda: plugin._register("none", str(library)), UnavailableError)
    assert f"refuses the plugin {library}" in message
    assert hint == "pip install --upgrade onnxruntime"


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("session", [OpenVinoSession, QnnSession])
def test_a_plugin_that_lists_no_device(session: type[plugin.PluginSession]) -> None:
    message, hint = refusal(session.load, UnavailableError)
    assert message == f"{session.plugin} offers no device that works on this machine"
    assert hint == f"pip install --force-reinstall {session.plugin}"


@pytest.mark.usefixtures("listed")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Vulkan is Linux's")
@pytest.mark.parametrize(
    ("gpus", "software", "reason", "fix"),
    [
        ((), "", "Vulkan finds no driver of a GPU", vulkan.install_line()),
        (None, "", "the Vulkan loader libvulkan.so.1 is not installed", vulkan.install_line()),
        ((LLVMPIPE,), "", "there is only a software GPU (llvmpipe)", f"export {SOFTWARE}=1"),
        ((LLVMPIPE, RADEON), "", "ONNX Runtime does not see the GPU that Vulkan lists (llvmpipe, Radeon)",
         f"export {SOFTWARE}=1"),
        ((LLVMPIPE,), "1", "WebGPU cannot use what Vulkan lists (llvmpipe)", vulkan.install_line()),
    ],
)  # fmt: skip
def test_what_webgpu_lacks(
    gpus: tuple[vulkan.Gpu, ...] | None, software: str, reason: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> tuple[vulkan.Gpu, ...]:
        if gpus is None:
            raise OSError("cannot open shared object file")
        return gpus

    monkeypatch.setattr(vulkan, "gpus", found)
    monkeypatch.setenv(SOFTWARE, software)
    assert refusal(WebGpuSession.load, UnavailableError) == (reason, fix)


def test_what_installs_vulkan(monkeypatch: pytest.MonkeyPatch) -> None:
    def release(name: str) -> Callable[[], dict[str, str]]:
        return lambda: {"VERSION_CODENAME": name}

    monkeypatch.setattr(vulkan.platform, "freedesktop_os_release", release("bookworm"))
    assert "-t bookworm-backports" in vulkan.install_line()
    monkeypatch.setattr(vulkan.platform, "freedesktop_os_release", release("trixie"))
    assert vulkan.install_line() == vulkan.INSTALL


def test_a_plugin_that_does_not_start(
    square: Path, listed: list[types.SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    def devices() -> list[Any]:
        raise RuntimeError("/source/context.cc:136 status == Success was false. Failed to get an adapter")

    listed.append(types.SimpleNamespace())
    monkeypatch.setattr(QnnSession, "_device", lambda self: devices())
    message, hint = refusal(lambda: QnnSession(square), UnavailableError)
    assert message == "onnxruntime-qnn offers no device that works on this machine: Failed to get an adapter"
    assert hint.startswith("pip install")


def test_openvino_is_told_precision_and_threads(square: Path, asked: list[tuple[Any, dict[str, str]]]) -> None:
    with OpenVinoSession(square, threads=1) as session:
        assert session.precision == "float32"
    device, options = asked.pop()
    assert device.ep_metadata["ov_device"] == "CPU"
    assert json.loads(options["load_config"]) == {
        "CPU": {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    }
    with OpenVinoSession(square, threads=1, settings={"device": "GPU.0", "precision": "bfloat16"}) as session:
        assert session.precision == "float16"
    device, options = asked.pop()
    assert device.ep_metadata["ov_device"] == "GPU.0"
    assert json.loads(options["load_config"]) == {"GPU": {"INFERENCE_PRECISION_HINT": "bf16"}}


def test_qnn_is_told_the_chip(square: Path, asked: list[tuple[Any, dict[str, str]]]) -> None:
    for settings, chip in ({}, "57"), ({"soc_model": "43"}, "43"):
        with QnnSession(square, settings=settings) as session:
            assert session.precision == "float16"
        assert asked.pop()[1] == {"backend_type": "htp", "soc_model": chip}


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("session", "settings", "kind", "message", "hint"),
    [
        (OpenVinoSession, {"device": "NPU"}, UnavailableError, "lists no device 'NPU'", "It lists CPU, GPU.0."),
        (OpenVinoSession, {"precision": "int8"}, UsageError, "in no 'int8'", "one of float32, bfloat16, float16"),
        (OpenVinoSession, {"threads": "1"}, UsageError, "no setting 'threads'", "device, precision"),
        (QnnSession, {"soc_model": "v75"}, UsageError, "'v75', which is no number", "57 is a Snapdragon 8 Gen 3."),
        (WebGpuSession, {"x": "1"}, UsageError, "no setting 'x'", "none"),
    ],
)
def test_settings_that_are_refused(
    square: Path,
    session: type[plugin.PluginSession],
    settings: dict[str, str],
    kind: type[MhEdgeError],
    message: str,
    hint: str,
) -> None:
    said, advice = refusal(lambda: session(square, settings=settings), kind)
    assert message in said
    assert hint in advice


@pytest.mark.usefixtures("asked")
def test_what_qnn_tells_is_read(square: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qnn, "recorded", lambda session: (Assigned("square", "Mul", "QNNExecutionProvider", 0),))
    log = (
        "x [V:onnxruntime:, a.cc:1 LogNodeSupport] Validation PASSED for 1 nodes in OrtNodeUnit (Relu) :\n"
        "\tOperator type: Relu Node name: relu Node index: 1\n\n"
        "x [V:onnxruntime:, a.cc:1 LogNodeSupport] Validation FAILED for 2 nodes in OrtNodeUnit (Gemm) :\n"
        "\tOperator type: DequantizeLinear Node name: w/dq Node index: 11\n"
        "\tOperator type: Gemm Node name: dense/MatMul Node index: 37\n"
        "\tREASON : Failed to add node.\n\n"
        "x [V:onnxruntime:, a.cc:1 LogNodeSupport] Validation FAILED for 1 nodes in OrtNodeUnit (Erf) :\n"
        "\tOperator type: Erf Node name: erf Node index: 2\n"
        "\tREASON : Erf is not supported by QNN EP.Erf node `erf` will not be assigned to QNN EP.\n"
    )
    with QnnSession(square) as session:
        assert session._heard(log) == {
            "w/dq": "Failed to add node.",
            "dense/MatMul": "Failed to add node.",
            "erf": "Erf is not supported by QNN EP.",
        }
        session._cycles = tmp_path / "cycles.csv"
        session._cycles.write_text(
            "Msg Timestamp,Message,Time,Unit of Measurement,Timing Source,Event Level,Event Identifier\n"
            "0,NODE,10,CYCLES,BACKEND,SUB-EVENT,Input OpId_2 (cycles)\n"
            "0,NODE,20,CYCLES,BACKEND,SUB-EVENT,square_2:OpId_203 (cycles)\n"
            "0,NODE,10,CYCLES,BACKEND,SUB-EVENT,OpId_251 (cycles)\n"
            "0,EXECUTE,9,US,BACKEND,ROOT,QNN (execute) time\n",
            encoding="utf-8",
        )
        event = {"cat": "Node", "name": "QNN_1_kernel_time", "ts": 5, "dur": 80, "args": {"provider": session.provider}}
        other = {"cat": "Session", "name": "model_run", "ts": 5, "dur": 90}
        first, *parts = session._unfused([other, event])
    assert first == other
    assert [(part["name"], part["args"]["op_name"], part["dur"]) for part in parts] == [
        ("Input_kernel_time", "Input", 20.0), ("square_2_kernel_time", "Mul", 40.0), ("_kernel_time", "", 20.0),
    ]  # fmt: skip
