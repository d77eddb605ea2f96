"""LiteRT's NPU accelerator, with OpenVINO's CPU for an NPU."""

from __future__ import annotations

from pathlib import Path

import devices
import numpy as np
import pytest

import tflite_files
from mh_edge.errors import InputError, UnavailableError, UsageError
from mh_edge.runtimes.litert_npu import LiteRtNpuSession
from mh_edge.runtimes.xnnpack import XnnpackSession

BFLOAT16 = 2e-2


def error(session: LiteRtNpuSession) -> float:
    """Largest difference from the CPU, as a share of the largest number."""
    feeds = tflite_files.feeds(session)
    with XnnpackSession(session.path) as cpu:
        expected, got = cpu.run(feeds)["y"], session.run(feeds)["y"]
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def test_it_works_here() -> None:
    code, found = devices.device("litert-npu")
    assert (code, found["available"], found["package"], found["reason"]) == (0, True, "openvino", "")


@pytest.mark.parametrize("make", [tflite_files.dense, tflite_files.masked, tflite_files.running_sum])
def test_it_takes_files_whole(make: tflite_files.Make, tmp_path: Path) -> None:
    with LiteRtNpuSession(make(tmp_path / "file.tflite")) as session:
        assert error(session) <= BFLOAT16
        assert session.placement().whole
        assert session.placement().partitions == 1
        assert "say nothing about one" in session.notes[0]


def test_what_it_does_not_take_is_named_and_then_it_takes_nothing(tmp_path: Path) -> None:
    with LiteRtNpuSession(tflite_files.broken(tmp_path / "broken.tflite")) as session:
        assert error(session) <= BFLOAT16
        placement = session.placement()
    assert (placement.nodes, placement.on_device, placement.partitions) == (6, 0, 0)
    named, others = placement.fallbacks
    assert (named.op, named.count, named.reason) == ("REDUCE_ANY", 1, "OpenVINO does not take it")
    assert (others.op, others.count) == ("(not named)", 5)


def test_free_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs fixed sizes, and the input 'x' of .* shape \(x_dim_0, 16\)"):
        LiteRtNpuSession(tflite_files.dense(tmp_path / "free.tflite", batch=-1))


def test_another_of_openvinos_devices(tmp_path: Path) -> None:
    path = tflite_files.dense(tmp_path / "dense.tflite")
    with pytest.raises(UnavailableError, match="OpenVINO finds no working NPU on this machine"):
        LiteRtNpuSession(path, settings={"device": "NPU"})
    with pytest.raises(UsageError, match="OpenVINO has no device 'TPU'"):
        LiteRtNpuSession(path, settings={"device": "TPU"})


def test_threads_are_said_to_be_openvinos_choice(tmp_path: Path) -> None:
    with LiteRtNpuSession(tflite_files.dense(tmp_path / "dense.tflite"), threads=1) as session:
        assert session.notes[1] == "LiteRT lets nobody set how many threads OpenVINO uses here"
