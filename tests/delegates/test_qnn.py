"""QNN as a plugin of ONNX Runtime, on Qualcomm's simulator of a Hexagon processor."""

from __future__ import annotations

from pathlib import Path

import devices
import graphs
import pytest

from mh_edge.errors import InputError
from mh_edge.runtimes.qnn import QnnSession

FLOAT16 = 5e-3  # a few ulp


def test_it_works_here_and_prints_nothing_among_the_json() -> None:
    code, found = devices.device("qnn")
    assert (code, found["available"], found["reason"]) == (0, True, "")


def test_it_takes_a_file_whole_and_computes_float16(tmp_path: Path) -> None:
    for path in (
        graphs.dense(tmp_path / "dense.onnx", 1),
        graphs.masked(tmp_path / "masked.onnx", 1),
        graphs.attention(tmp_path / "attention.onnx"),
    ):
        with QnnSession(path) as session:
            assert 1e-6 < devices.error(session) <= FLOAT16
            assert session.placement().whole
            assert session.placement().partitions == 1
            assert session.precision == "float16"
            assert "times say nothing about a phone" in session.notes[0]


def test_masked_recurrent_layers_stay_there() -> None:
    """Equal keys of TopK, lengths, and numbers beyond float16 would all go wrong; masked_fixed.onnx has none."""
    with QnnSession(Path(__file__).with_name("masked_fixed.onnx")) as session:
        for rows in (graphs.feeds(), graphs.holed()):
            assert 1e-6 < devices.error(session, rows=rows) <= FLOAT16
        assert session.placement().whole
        assert session.placement().partitions == 1


def test_sizes_must_be_fixed(tmp_path: Path) -> None:
    path = graphs.dense(tmp_path / "dense.onnx")
    with pytest.raises(InputError, match="leaves batch free") as caught:
        QnnSession(path)
    assert "--batch" in caught.value.hint
    with QnnSession(path, sizes={"batch": 2}) as session:
        assert session.signature.inputs[0].shape == (2, graphs.TIME, graphs.DIM)
        assert devices.error(session, 2) <= FLOAT16
        assert session.placement().whole


def test_what_it_does_not_take_is_named_with_the_reason(tmp_path: Path) -> None:
    with QnnSession(graphs.lstm(tmp_path / "lstm.onnx", 1)) as session:
        assert devices.error(session) <= FLOAT16
        placement = session.placement()
    assert (placement.on_device, placement.nodes, placement.partitions) == (4, 5, 2)
    (fallback,) = placement.fallbacks
    assert (fallback.op, fallback.nodes) == ("LSTM", ("LSTM",))
    assert "dynamic sequence_length is not supported" in fallback.reason


def test_the_time_of_each_operation(tmp_path: Path) -> None:
    with QnnSession(graphs.lstm(tmp_path / "lstm.onnx", 1)) as session:
        times = session.op_times(devices.fitting(session, graphs.feeds()), 2)
    on_device = {one.node: one.on_device for one in times if one.op in ("Transpose", "LSTM", "ReduceSum")}
    assert on_device == {"Transpose": True, "ReduceSum": True, "LSTM": False}
    assert sum(one.ms for one in times if one.on_device) > 0


def test_a_chip_that_it_does_not_know_takes_nothing(tmp_path: Path) -> None:
    with QnnSession(graphs.dense(tmp_path / "dense.onnx", 1), settings={"soc_model": "9999"}) as session:
        assert session.placement().on_device == 0


def test_the_forecast_is_what_happens(tmp_path: Path) -> None:
    for path in (
        graphs.masked(tmp_path / "masked.onnx", 1),
        graphs.attention(tmp_path / "attention.onnx"),
        graphs.lstm(tmp_path / "lstm.onnx", 1),
    ):
        code, found = devices.program("inspect", path, "--delegates")
        forecast = found["delegates"]["qnn"]
        with QnnSession(path) as session:
            placement = session.placement()
        assert code == 0
        assert (forecast["nodes"], forecast["total"], forecast["partitions"]) == (
            placement.on_device, placement.nodes, placement.partitions,
        )  # fmt: skip
        assert [one["op"] for one in forecast["blockers"]] == [one.op for one in placement.fallbacks]
