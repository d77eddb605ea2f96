"""onnxruntime-gpu: without a GPU every refusal, and never a figure of the CPU; with one, the contract on it."""

from __future__ import annotations

from types import SimpleNamespace

import onnxruntime
import pytest
from devices import device, program

from mh_edge.errors import UnavailableError
from mh_edge.packages import version
from mh_edge.runtimes import adapter
from mh_edge.runtimes.ort import nvidia
from runtimes.contract import Contract, file, require_right, rows

BUILT_FOR = int(str(onnxruntime.cuda_version).partition(".")[0])


def has_gpu() -> bool:
    try:
        nvidia.require_gpu(BUILT_FOR)
    except UnavailableError:
        return False
    return True


without_gpu = pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
with_gpu = pytest.mark.skipif(not has_gpu(), reason="this machine has no GPU")


def has_libraries() -> bool:
    return version("nvidia-cublas") is not None


@without_gpu
def test_what_onnx_runtime_says_of_itself_proves_nothing() -> None:
    assert "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    assert onnxruntime.get_device() == "GPU"
    session = onnxruntime.InferenceSession(str(file("cpu")), providers=["CUDAExecutionProvider"])
    assert session.run(None, rows()[0])[0].shape == (2, 8)  # without a word, on the CPU
    assert session.get_providers() == ["CPUExecutionProvider"]


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_no_gpu_is_said_with_what_would_mend_it(name: str) -> None:
    code, found = device(name)
    assert code == 6
    assert (found["available"], found["package"]) == (False, "onnxruntime-gpu")
    assert found["version"] == onnxruntime.__version__
    assert "NVIDIA driver" in found["reason"]
    assert f"NVIDIA driver {nvidia.DRIVERS[BUILT_FOR]}" in found["fix"] or "--gpus all" in found["fix"]


def test_the_cpu_works_with_this_package_too() -> None:
    code, found = device("cpu")
    assert (code, found["available"], found["package"]) == (0, True, "onnxruntime-gpu")


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_library_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(value: int) -> object:
        def answer(place: SimpleNamespace) -> int:
            place._obj.value = value
            return 0

        return answer

    driver = SimpleNamespace(cuDriverGetVersion=found(BUILT_FOR * 1000), cuInit=lambda _: 0, cuDeviceGetCount=found(1))
    monkeypatch.setattr(nvidia, "driver", lambda: driver)
    with pytest.raises(UnavailableError) as caught:
        adapter(name)(file(name))
    if name == "tensorrt" and has_libraries():
        assert caught.value.message == "the library libnvinfer.so.10 is missing."
        assert caught.value.hint == 'pip install "tensorrt-cu13>=10,<11"'
    elif has_libraries():
        assert caught.value.message == "the library libcuda.so.1 is missing."
    else:
        assert caught.value.message.startswith("the library libcublas")
        assert caught.value.hint == 'pip install "onnxruntime-gpu[cuda,cudnn]"'


@without_gpu
def test_profile_measures_the_others_and_no_cpu_as_cuda() -> None:
    code, answer = program("profile", file("cpu"), "--device", "cuda", "--device", "cpu", "--runs", "20")
    assert code == 6
    by_device = {row["device"]: row for row in answer["results"]}
    assert by_device["cuda"]["latency_ms"] is None
    assert "NVIDIA driver" in by_device["cuda"]["error"]["message"]
    assert by_device["cpu"]["latency_ms"]["p50"] > 0
    assert by_device["cpu"]["error"] is None


@with_gpu
class TestOnTheGpu(Contract):
    @pytest.fixture
    def device(self) -> str:
        return "cuda"

    @pytest.mark.parametrize("settings", [{"enable_cuda_graph": "1"}, {"use_tf32": "1"}, {"prefer_nhwc": "1"}])
    def test_settings(self, device: str, settings: dict[str, str]) -> None:
        with adapter(device)(file(device, "free"), settings=settings) as session:
            for begin, count in ((0, 2), (2, 2), (0, 5), (1, 2)):
                require_right(session, begin, count)
            session.prepared(rows()[0])()

    def test_operations_are_timed_on_the_device(self, device: str) -> None:
        with adapter(device)(file(device)) as session:
            times = session.op_times(rows()[0], 5)
        assert {one.where for one in times} == {"CUDAExecutionProvider"}
        assert [one.rule for one in times if one.op == "MatMul"] == ["Dense", ""]
