"""OpenVINO as a plugin of ONNX Runtime, on the CPU."""

from __future__ import annotations

from pathlib import Path

import devices
import graphs
import pytest

from mh_edge.errors import UnavailableError
from mh_edge.runtimes.openvino import OpenVinoSession

FLOAT32 = 1e-5  # other orders of sums; bfloat16 would be 1e-3 off
BFLOAT16 = 3e-2


def test_it_works_here() -> None:
    code, found = devices.device("openvino")
    assert (code, found["available"], found["reason"]) == (0, True, "")
    assert found["package"] == "onnxruntime-ep-openvino"


def test_it_takes_a_file_whole_and_computes_float32(tmp_path: Path) -> None:
    with OpenVinoSession(graphs.dense(tmp_path / "dense.onnx")) as session:
        for batch in (1, 5):
            assert devices.error(session, batch) <= FLOAT32
        placement = session.placement()
        assert (placement.whole, placement.nodes, placement.partitions) == (True, 4, 1)
        assert session.precision == "float32"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_asked_for(tmp_path: Path, precision: str) -> None:
    with OpenVinoSession(graphs.dense(tmp_path / "dense.onnx"), settings={"precision": precision}) as session:
        assert devices.error(session) <= BFLOAT16
        assert session.precision == "float16"


def test_what_it_does_not_take_is_named(tmp_path: Path) -> None:
    with OpenVinoSession(graphs.attention(tmp_path / "attention.onnx")) as session:
        assert devices.error(session) <= FLOAT32
        placement = session.placement()
    assert (placement.on_device, placement.nodes, placement.partitions) == (2, 3, 2)
    (fallback,) = placement.fallbacks
    assert (fallback.op, fallback.nodes, fallback.where) == ("Attention", ("attention",), "CPUExecutionProvider")


def test_the_time_of_each_operation(tmp_path: Path) -> None:
    with OpenVinoSession(graphs.attention(tmp_path / "attention.onnx")) as session:
        times = session.op_times(devices.fitting(session, graphs.feeds()), 2)
    assert {one.op: one.on_device for one in times} == {"FullyConnected": True, "Attention": False}
    assert all(one.ms > 0 for one in times)


def test_a_device_that_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="lists no device 'NPU'") as caught:
        OpenVinoSession(graphs.dense(tmp_path / "dense.onnx"), settings={"device": "NPU"})
    assert "CPU" in caught.value.hint


@pytest.mark.parametrize("name", ["masked_free.onnx", "masked_fixed.onnx"])
def test_masked_recurrent_layers_without_lengths_are_right(name: str) -> None:
    with OpenVinoSession(Path(__file__).with_name(name)) as session:
        for rows in (graphs.feeds(), graphs.holed()):
            assert devices.error(session, rows=rows) <= FLOAT32
        assert session.placement().whole


def test_wrong_numbers_are_caught(tmp_path: Path) -> None:
    """OpenVINO 1.8.1 runs an LSTM over the padding where the batch is free. All of it runs there, and all is wrong."""
    path = graphs.lstm(tmp_path / "lstm.onnx", "batch")
    with OpenVinoSession(path) as session:
        right = devices.error(session) <= FLOAT32
        assert session.placement().whole
    graphs.save(tmp_path / "feeds.npz", graphs.feeds())
    code, found = devices.program(
        "profile", path, "--device", "openvino", "--feeds", tmp_path / "feeds.npz", "--seconds", "0.1"
    )
    assert code == (0 if right else 5)
    assert found["results"][-1]["equal"] is right
    with OpenVinoSession(graphs.lstm(tmp_path / "fixed.onnx", 1)) as session:
        assert devices.error(session) <= FLOAT32
