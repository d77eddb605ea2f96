"""LiteRT's GPU accelerator, on a software GPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import devices
import numpy as np
import pytest

import tflite_files
from mh_edge.errors import UsageError
from mh_edge.runtimes import vulkan
from mh_edge.runtimes.litert_gpu import LiteRtGpuSession
from mh_edge.runtimes.xnnpack import XnnpackSession

FLOAT32, FLOAT16 = 1e-5, 1e-2


def error(session: LiteRtGpuSession, batch: int = 1) -> float:
    """Largest difference from the CPU, as a share of the largest number."""
    feeds = tflite_files.feeds(session, batch)
    with XnnpackSession(session.path) as cpu:
        expected, got = cpu.run(feeds)["y"], session.run(feeds)["y"]
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def test_it_works_here() -> None:
    code, found = devices.device("litert-gpu")
    assert (code, found["available"], found["reason"]) == (0, True, "")


def test_no_driver() -> None:
    code, found = devices.device("litert-gpu", VK_DRIVER_FILES="/none.json", VK_ICD_FILENAMES="/none.json")
    assert (code, found["available"], found["reason"]) == (6, False, "Vulkan finds no driver of a GPU")
    assert found["fix"] == vulkan.install_line()


def test_it_takes_files_whole_at_any_size(tmp_path: Path) -> None:
    with LiteRtGpuSession(tflite_files.dense(tmp_path / "free.tflite", batch=-1)) as session:
        for batch in (1, 5, 2):
            assert error(session, batch) <= FLOAT32
            placement = session.placement()
            assert (placement.nodes, placement.on_device, placement.partitions) == (4, 4, 1)
            assert placement.proof == "LiteRT compiled it for the GPU alone"
        assert "times say nothing about a GPU" in session.notes[0]
    with LiteRtGpuSession(tflite_files.masked(tmp_path / "masked.tflite")) as session:
        assert error(session) <= FLOAT32
        assert session.placement().whole


def test_what_it_does_not_take_is_named_with_the_reason(tmp_path: Path) -> None:
    with LiteRtGpuSession(tflite_files.broken(tmp_path / "broken.tflite")) as session:
        assert error(session) <= FLOAT32
        placement = session.placement()
    assert (placement.nodes, placement.on_device, placement.partitions) == (6, 3, 1)
    named, others = placement.fallbacks
    assert (named.op, named.count, named.nodes) == ("LOGICAL_OR", 1, ("same",))
    assert named.reason == "No support of few identical inputs in the same operation"
    assert (others.op, others.count) == ("(not named)", 2)


def test_a_loop_runs_on_the_cpu_though_its_body_does_not(tmp_path: Path) -> None:
    with LiteRtGpuSession(tflite_files.loop(tmp_path / "loop.tflite")) as session:
        assert error(session) <= FLOAT32
        placement = session.placement()
    assert (placement.nodes, placement.on_device, placement.partitions) == (1, 0, 0)
    assert [one.op for one in placement.fallbacks] == ["WHILE"]


def test_wrong_numbers_are_caught(tmp_path: Path) -> None:
    """It takes an exclusive CUMSUM for an inclusive one, without a word."""
    path = tflite_files.running_sum(tmp_path / "sum.tflite")
    with LiteRtGpuSession(path) as session:
        assert error(session) > 0.1
        assert session.placement().whole
    code, answer = devices.program("profile", path, "--device", "litert-gpu", "--seconds", "1")
    (row,) = answer["results"]
    assert (code, row["equal"], row["latency_ms"]) == (5, False, None)


def test_what_falls_back_is_not_timed_unless_allowed(tmp_path: Path) -> None:
    path = tflite_files.broken(tmp_path / "broken.tflite")
    command = ("profile", path, "--device", "litert-gpu", "--seconds", "1")
    for allow, exit_code in (((), 6), (("--allow-fallback",), 0)):
        code, answer = devices.program(*command, *allow)
        (row,) = answer["results"]
        assert (code, row["fell_back"], row["latency_ms"] is not None) == (exit_code, True, bool(allow))


def test_half_precision_on_request(tmp_path: Path) -> None:
    path = tflite_files.dense(tmp_path / "dense.tflite")
    with LiteRtGpuSession(path, settings={"precision": "float16"}) as session:
        assert session.precision == "float16"
        assert error(session) <= FLOAT16
    with pytest.raises(UsageError, match=r"computes in no 'int8'\. precision is one of float32, float16"):
        LiteRtGpuSession(path, settings={"precision": "int8"})


def test_several_threads_and_sessions_get_right_numbers(tmp_path: Path) -> None:
    path = tflite_files.dense(tmp_path / "dense.tflite")
    with LiteRtGpuSession(path) as one, LiteRtGpuSession(path) as other:
        feeds = tflite_files.feeds(one)
        expected = one.run(feeds)["y"]
        with ThreadPoolExecutor(2) as pool:
            for got in pool.map(lambda session: session.run(feeds)["y"], [one, other] * 10):
                np.testing.assert_allclose(got, expected, atol=FLOAT32)
