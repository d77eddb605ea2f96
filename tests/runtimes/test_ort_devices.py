"""ONNX Runtime's devices: which wheel and provider is here, what each is opened with, what CUDA lacks."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from mh_edge.errors import UnavailableError, UsageError
from mh_edge.runtimes import adapter
from mh_edge.runtimes.base import Session
from mh_edge.runtimes.coreml import CoreMlSession
from mh_edge.runtimes.cpu import CpuSession
from mh_edge.runtimes.cuda import BLOCKING, CudaSession
from mh_edge.runtimes.nnapi import NnapiSession
from mh_edge.runtimes.ort import nvidia, wheels
from mh_edge.runtimes.ort.session import OrtSession
from mh_edge.runtimes.tensorrt import TensorRtSession
from mh_edge.runtimes.xnnpack_ort import XnnpackOrtSession
from runtimes.contract import file, require_right, rows

CPU = CpuSession.provider


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def install(*names: str) -> None:
        monkeypatch.setattr(wheels, "version", lambda name: "1.31.1" if name in names else None)
        monkeypatch.setattr(wheels, "_brings_the_package", lambda name: True)

    return install


def unavailable(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(UnavailableError) as caught:
        call()
    return caught.value.message, caught.value.hint


def test_the_wheel_here_is_one() -> None:
    assert wheels.wheels() == ("onnxruntime",)


@pytest.mark.parametrize("other", ["onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"])
def test_wheels_that_overwrite_each_other(other: str, brought: Callable[..., None]) -> None:
    brought("onnxruntime", other)
    assert unavailable(CpuSession.load) == (
        f"onnxruntime and {other} are both installed and overwrite each other's files.",
        f'pip uninstall -y onnxruntime {other}; pip install "mh-edge[cpu]"',
    )
    assert unavailable(CudaSession.load)[1].endswith('; pip install "mh-edge[cuda]"')


def test_a_plugin_with_the_name_of_an_old_wheel_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"onnxruntime": ["onnxruntime/__init__.py"], "onnxruntime-qnn": ["onnxruntime_qnn/__init__.py"]}
    monkeypatch.setattr(wheels, "version", lambda name: "2.7" if name in files else None)
    monkeypatch.setattr(wheels.metadata, "files", lambda name: [Path(one) for one in files[name]])
    assert wheels.wheels() == ("onnxruntime",)


def test_what_an_uninstalled_second_wheel_leaves(brought: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    brought("onnxruntime")
    monkeypatch.setattr(wheels, "require", lambda *names: types.ModuleType("onnxruntime"))
    assert unavailable(CpuSession.load) == (
        "what is installed of onnxruntime has no InferenceSession: files of it are missing.",
        'pip uninstall -y onnxruntime; pip install "mh-edge[cpu]" --force-reinstall',
    )


def test_a_wheel_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*names: str) -> None:
        raise ImportError("libfoo.so: cannot open shared object file\nmore")

    monkeypatch.setattr(wheels, "require", broken)
    assert unavailable(CpuSession.load) == (
        "onnxruntime cannot be imported: libfoo.so: cannot open shared object file",
        'pip install "mh-edge[cpu]" --force-reinstall',
    )


@pytest.mark.parametrize(
    ("session", "fix"),
    [
        (CudaSession, 'pip uninstall -y onnxruntime; pip install "mh-edge[cuda]"'),
        (TensorRtSession, 'pip uninstall -y onnxruntime; pip install "mh-edge[cuda]"'),
        (NnapiSession, "profile it on a phone: --device adb; here, mh-edge inspect --delegates forecasts it"),
        (
            XnnpackOrtSession,
            "build ONNX Runtime with --use_xnnpack (https://onnxruntime.ai/docs/build/eps.html#xnnpack)",
        ),
    ],
)
def test_a_provider_that_this_build_has_not(session: type[OrtSession], fix: str) -> None:
    reason = f"onnxruntime {onnxruntime.__version__} is built without the {session.provider}."
    assert unavailable(session.load) == (reason, fix)


@pytest.mark.parametrize(("platform", "fix"), [("linux", "profile it on a Mac"), ("darwin", "pip uninstall -y onnx")])
def test_core_ml_wants_a_mac(platform: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", platform)
    assert CoreMlSession.install().startswith(fix)


# ---- what providers are asked for


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What sessions ask of ONNX Runtime, which opens them on the CPU and says that it did as asked."""
    given: dict[str, Any] = {}
    real = onnxruntime.InferenceSession

    class Made:
        def __init__(self, path: str, options: Any, providers: list[Any], **more: Any) -> None:
            given.update(providers=providers, options=options, **more)
            self._session = real(path, options, providers=[CPU])

        def get_providers(self) -> list[str]:
            return [name for name, _ in given["providers"]]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Made)
    for session in (CudaSession, TensorRtSession, CoreMlSession, NnapiSession, XnnpackOrtSession):
        monkeypatch.setattr(session, "load", classmethod(lambda cls: "1.31.1"))
    return given


@pytest.mark.parametrize(
    ("device", "settings", "providers", "precision"),
    [
        ("cuda", {}, [("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"})], "float32"),
        (
            "cuda",
            {"use_tf32": "1", "device_id": "1"},
            [("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "1"})],
            "float16",
        ),
        (
            "tensorrt",
            {"trt_fp16_enable": "1"},
            [
                ("TensorrtExecutionProvider", {"device_id": "0", "trt_fp16_enable": "1"}),
                ("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"}),
            ],
            "float16",
        ),
        ("coreml", {}, [("CoreMLExecutionProvider", {"ModelFormat": "MLProgram"})], "float32"),
        (
            "coreml",
            {"ModelFormat": "NeuralNetwork"},
            [("CoreMLExecutionProvider", {"ModelFormat": "NeuralNetwork"})],
            "float16",
        ),
        ("nnapi", {"partitioning_stop_ops": "Softmax"}, [("NnapiExecutionProvider", {})], "float32"),
        ("xnnpack-ort", {}, [("XnnpackExecutionProvider", {"intra_op_num_threads": "3"})], "float32"),
    ],
)
def test_settings_become_options_of_the_provider(
    device: str, settings: dict[str, str], providers: list[Any], precision: str, asked: dict[str, Any]
) -> None:
    session: type[Session] = adapter(device)
    with session(file(device, "free"), threads=3, sizes={"batch": 2}, settings=settings) as opened:
        assert asked["providers"] == providers
        assert asked["enable_fallback"] == 0
        assert opened.precision == precision
        fixed = device in ("tensorrt", "coreml", "nnapi")
        assert opened.signature.inputs[0].shape == (2 if fixed else "batch", 16)
        options = asked["options"]
        assert options.intra_op_num_threads == (1 if device == "xnnpack-ort" else 3)
        if device == "nnapi":
            assert options.get_session_config_entry("ep.nnapi.partitioning_stop_ops") == "Softmax"
    with pytest.raises(UsageError, match=f"the device '{device}' has no setting 'fp16'"):
        session(file(device), settings={"fp16": "1"})


# ---- CUDA without a GPU: in the memory of the CPU


class BoundSession(CudaSession):
    """The bound inputs and outputs of CUDA, on the CPU."""

    provider, memory = CPU, "cpu"

    @classmethod
    def load(cls) -> str:
        return CpuSession.load()

    def _providers(self) -> list[tuple[str, dict[str, str]]]:
        return [(CPU, {})]


@pytest.mark.parametrize("settings", [{}, {"enable_cuda_graph": "1"}])
def test_bound_inputs_give_the_same(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BLOCKING, "1")
    with BoundSession(file("cpu", "free"), settings=settings) as session:
        for begin, count in ((0, 2), (2, 2), (0, 5), (1, 2), (4, 1)):
            require_right(session, begin, count)
        feeds, expected = rows(3)
        bound = session._bound(feeds)
        bound.call()
        np.testing.assert_allclose(bound.outputs()[0], expected, atol=1e-6)
        assert len(session._graphs) == (3 if settings else 0)  # one for each shape
        session.prepared(feeds)()
        assert session.placement().whole
        assert len(session.op_times(feeds, 1)) == 4
        assert "no copies" in session.notes[0]


@pytest.mark.parametrize(
    ("log", "reason", "fix"),
    [
        (
            "FAIL : Failed to load library /x/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot "
            "open shared object file: No such file or directory\n",
            "the library libcublasLt.so.13 is missing.",
            'pip install "onnxruntime-gpu[cuda,cudnn]"',
        ),
        (
            "with error: libcudnn.so.9: cannot open shared object file: No such file or directory",
            "the library libcudnn.so.9 is missing.",
            'pip install "onnxruntime-gpu[cuda,cudnn]"',
        ),
        (
            "with error: libnvinfer.so.10: cannot open shared object file: No such file or directory",
            "the library libnvinfer.so.10 is missing.",
            'pip install "tensorrt-cu13>=10,<11"',
        ),
        (
            "/onnxruntime_src/x.cc:146 CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=vm",
            "CUDA says: no CUDA-capable device is detected.",
            "nvidia-smi shows what the driver knows of the GPU",
        ),
        ("\n something new\nmore", "ONNX Runtime did not start it: something new", nvidia.INSTALL),
        ("", "ONNX Runtime did not start it: without a word", nvidia.INSTALL),
    ],
)
def test_what_onnx_runtime_says_of_cuda_is_a_reason_and_a_line(log: str, reason: str, fix: str) -> None:
    error = nvidia.why(log)
    assert (error.message, error.hint) == (reason, fix)


class Driver:
    """libcuda: the version that it runs, what starting it gives, how many GPUs there are."""

    def __init__(self, version: int = 13000, start: int = 0, count: int = 1) -> None:
        self._version, self._start, self._count = version, start, count

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802 - the name of the driver's function
        version._obj.value = self._version
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._start + flags

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._count
        return 0


@pytest.mark.parametrize(
    ("driver", "reason", "fix"),
    [
        (Driver(12020), "the NVIDIA driver runs CUDA 12.2, this onnxruntime wants 13.", "NVIDIA driver 580 or newer"),
        (Driver(start=100), "the NVIDIA driver finds no GPU.", "--gpus all"),
        (Driver(count=0), "the NVIDIA driver finds no GPU.", "--gpus all"),
        (Driver(start=803), "the NVIDIA driver does not start: CUDA error 803.", "nvidia-smi"),
    ],
)
def test_what_the_driver_says(driver: Driver, reason: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: driver)
    message, hint = unavailable(lambda: nvidia.require_gpu(13))
    assert message == reason
    assert fix in hint


def test_a_driver_that_runs_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "driver", Driver)
    nvidia.require_gpu(13)
    nvidia.require_gpu(12)


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(nvidia, "driver", absent)
    message, hint = unavailable(lambda: nvidia.require_gpu(13))
    assert message == "there is no NVIDIA driver here (libcuda.so.1: cannot open shared object file)."
    assert hint.startswith("install the NVIDIA driver 580 or newer")


def test_a_session_that_is_not_on_the_gpu_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(BoundSession):
        provider = "CUDAExecutionProvider"

    with pytest.raises(UnavailableError, match="ONNX Runtime did not start it"):
        Elsewhere(file("cpu"))
