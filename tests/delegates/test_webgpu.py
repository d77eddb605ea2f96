"""WebGPU as a plugin of ONNX Runtime, on a software GPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import devices
import graphs
import numpy as np

from mh_edge.runtimes import vulkan
from mh_edge.runtimes.webgpu import SOFTWARE, WebGpuSession

FLOAT32 = 1e-5


def test_it_works_here() -> None:
    code, found = devices.device("webgpu")
    assert (code, found["available"], found["reason"]) == (0, True, "")


def test_a_software_gpu_is_taken_only_when_asked_for() -> None:
    code, found = devices.device("webgpu", **{SOFTWARE: "0"})
    assert (code, found["available"]) == (6, False)
    assert found["reason"].startswith("there is only a software GPU (llvmpipe")
    assert found["fix"] == "export ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1"


def test_no_driver() -> None:
    for software in ("0", "1"):
        code, found = devices.device(
            "webgpu", VK_DRIVER_FILES="/none.json", VK_ICD_FILENAMES="/none.json", **{SOFTWARE: software}
        )
        assert (code, found["available"]) == (6, False)
        assert found["reason"].startswith("Vulkan finds no driver of a GPU")
        assert found["fix"] == vulkan.install_line()


def test_it_takes_a_file_whole(tmp_path: Path) -> None:
    for path in (graphs.dense(tmp_path / "dense.onnx"), graphs.masked(tmp_path / "masked.onnx")):
        with WebGpuSession(path) as session:
            for batch in (1, 5):
                assert devices.error(session, batch) <= FLOAT32
            assert session.placement().whole
            assert session.placement().partitions == 1
            assert "times say nothing about a GPU" in session.notes[0]


def test_what_it_does_not_take_is_named_with_the_reason(tmp_path: Path) -> None:
    with WebGpuSession(graphs.attention(tmp_path / "attention.onnx")) as session:
        assert devices.error(session) <= FLOAT32
        placement = session.placement()
    assert (placement.on_device, placement.nodes, placement.partitions) == (2, 3, 2)
    (fallback,) = placement.fallbacks
    assert (fallback.op, fallback.nodes, fallback.reason) == ("Attention", ("attention",), "it has no kernel for it")


def test_several_threads_and_sessions_get_right_numbers(tmp_path: Path) -> None:
    """They share one command encoder, and without our lock get wrong numbers or crash."""
    path, feeds = graphs.masked(tmp_path / "masked.onnx"), graphs.feeds()
    with WebGpuSession(path) as one, WebGpuSession(path) as other:
        expected = one.run(feeds)["y"]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda session: session.run(feeds)["y"], [one, other] * 20))
    for got in found:
        np.testing.assert_allclose(got, expected, atol=FLOAT32)
