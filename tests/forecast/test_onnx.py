"""Forecasts for .onnx files as others write them: which node is refused, why, and how many parts are left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from forecast import files
from forecast.files import BOOL, FLOAT, HALF, INT64, node, save
from mh_edge.errors import InputError, UnavailableError, UsageError
from mh_edge.forecast.forecasting import forecast
from mh_edge.forecast.result import Forecast
from mh_edge.machine import SQUARE_ONNX


def counts(found: Forecast) -> tuple[int, int, int]:
    return found.nodes, found.total, found.partitions


def reasons(found: Forecast) -> dict[str, str]:
    return {one.op: one.reason for one in found.blockers}


def test_sizes_that_are_fixed_are_taken_whole_and_free_ones_not(tmp_path: Path) -> None:
    fixed, free = files.dense(tmp_path / "fixed.onnx"), files.dense(tmp_path / "free.onnx", "batch")
    whole = dict.fromkeys(("nnapi", "coreml", "coreml-neuralnetwork", "qnn"), (4, 4, 1))
    assert {name: counts(item) for name, item in forecast(fixed).items()} == whole | {"xnnpack": (3, 4, 2)}
    found = forecast(free)
    assert {name: counts(found[name]) for name in ("nnapi", "qnn", "coreml")} == {
        "nnapi": (0, 4, 0), "qnn": (0, 4, 0), "coreml": (4, 4, 1),
    }  # fmt: skip
    assert {one.reason for one in found["nnapi"].blockers} == {"free size 'batch'"}
    assert any("free sizes cost" in note for note in found["coreml"].notes)


@pytest.mark.parametrize("make", [lambda path: files.dense(path, "rows"), files.exported_by_others])
def test_the_fix_for_free_sizes_of_a_foreign_file_is_a_line_that_mends_it(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path, fixed = make(tmp_path / "free.onnx"), tmp_path / "fixed.onnx"
    found = forecast(path, ["nnapi"])["nnapi"]
    assert found.nodes == 0
    (fix,) = {one.fix for one in found.blockers}
    line = fix.replace("N", "2").split()
    assert line[:2] == ["python", "-m"]
    subprocess.run([sys.executable, *line[1:], str(path), str(fixed)], check=True, capture_output=True)
    mended = forecast(fixed, ["nnapi"])["nnapi"]
    assert mended.nodes >= 3
    assert not any("size" in one.reason for one in mended.blockers)


def test_an_input_left_out_has_no_size_that_could_be_free(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], "r"), node("Clip", ["r", "", "high"], "y")]
    path = save(tmp_path / "m.onnx", nodes, {"x": (FLOAT, [1, 8])}, {"high": np.float32(6)})
    assert forecast(path, ["nnapi"])["nnapi"].whole


def test_attention_of_opset_23(tmp_path: Path) -> None:
    found = forecast(files.attention(tmp_path / "a.onnx"))
    for name in ("nnapi", "coreml", "coreml-neuralnetwork"):
        (blocker,) = [one for one in found[name].blockers if one.op == "Attention"]
        assert "no such operation" in blocker.reason
        assert blocker.fix == "export --runtime plugins"
        assert any("did not export this file" in note for note in found[name].notes)
    assert found["coreml"].partitions == 2
    assert found["qnn"].whole
    masked = forecast(files.attention(tmp_path / "b.onnx", BOOL), ["qnn"])["qnn"]
    assert reasons(masked) == {"Attention": "an Attention with a boolean mask"}


def test_integers_that_do_not_come_back_as_integers(tmp_path: Path) -> None:
    whole = forecast(files.quantized(tmp_path / "whole.onnx", back=True), ["qnn"])["qnn"]
    open_end = forecast(files.quantized(tmp_path / "open.onnx", back=False), ["qnn"])["qnn"]
    assert whole.whole
    assert {(one.op, one.count) for one in open_end.blockers} == {("DequantizeLinear", 2), ("Gemm", 1)}
    assert {one.fix for one in open_end.blockers} == {"quantize --scheme qnn-a16w8"}
    coreml = forecast(tmp_path / "whole.onnx", ["coreml"])["coreml"]
    assert {one.op for one in coreml.blockers} == {"QuantizeLinear", "DequantizeLinear"}


@pytest.mark.parametrize(
    ("lengths", "attributes", "reason"),
    [
        (False, {}, None),
        (True, {}, "lengths that are computed (a mask)"),
        (False, {"activations": ["Sigmoid", "Tanh", "Tanh"]}, "activations that are named, be they the usual ones"),
    ],
)
def test_an_lstm_on_qnn(tmp_path: Path, lengths: bool, attributes: dict[str, object], reason: str | None) -> None:
    found = forecast(files.lstm(tmp_path / "m.onnx", lengths, **attributes))
    assert reasons(found["qnn"]).get("LSTM") == reason
    assert "no such operation" in reasons(found["nnapi"])["LSTM"]
    assert {one.fix for one in found["nnapi"].blockers if one.op == "LSTM"} == {""}  # nothing mends it


def test_the_body_of_a_loop_stays_on_the_cpu_and_counts(tmp_path: Path) -> None:
    for found in forecast(files.loop(tmp_path / "m.onnx")).values():
        assert found.total == 4
        assert found.nodes <= 1
        assert "body of a loop" in reasons(found)["Tanh"]


def test_types_that_are_not_taken(tmp_path: Path) -> None:
    nodes = [
        node("Gather", ["table", "ids"], "e", axis=0),
        node("Add", ["ids", "one"], "next"),
        node("Cast", ["next"], "f", to=FLOAT),
        node("Unsqueeze", ["f", "last"], "g"),
        node("Add", ["e", "g"], "y"),
    ]
    constants = {"table": files.weights(9, 4), "one": np.array([1]), "last": np.array([1])}
    found = forecast(save(tmp_path / "ids.onnx", nodes, {"ids": (INT64, [5])}, constants))
    assert {(one.op, one.reason) for one in found["nnapi"].blockers} == {
        ("Add", "dtype int64"),
        ("Cast", "dtype int64"),
    }
    assert found["qnn"].whole
    halves = save(tmp_path / "half.onnx", [node("Relu", ["x"], "y")], {"x": (HALF, [1, 8])}, outputs={"y": HALF})
    found = forecast(halves)
    assert (reasons(found["nnapi"]), found["nnapi"].blockers[0].fix) == (
        {"Relu": "dtype float16"},
        "quantize --scheme int8",
    )
    assert found["coreml"].whole
    assert not found["coreml-neuralnetwork"].whole


def test_more_dimensions_than_are_taken(tmp_path: Path) -> None:
    for rank, taken in ((4, {"nnapi", "coreml", "qnn"}), (5, {"coreml", "qnn"}), (6, set())):
        path = save(tmp_path / f"{rank}.onnx", [node("Relu", ["x"], "y")], {"x": (FLOAT, [2] * rank)})
        found = forecast(path, ["nnapi", "coreml", "qnn"])
        assert {name for name, item in found.items() if item.whole} == taken
        assert all("dimensions" in item.blockers[0].reason for item in found.values() if not item.whole)


def test_parts_are_connected_and_make_no_circle(tmp_path: Path) -> None:
    """Relu -> Erf -> Add, and Relu -> Add: the taken two are not one part, which Erf would wait for, and it for Erf."""
    nodes = [node("Relu", ["x"], "a"), node("Erf", ["a"], "b"), node("Add", ["a", "b"], "y")]
    path = save(tmp_path / "circle.onnx", nodes, {"x": (FLOAT, [1, 8])})
    assert counts(forecast(path, ["qnn"])["qnn"]) == (2, 3, 2)
    aside = [node("Relu", ["x"], "a"), node("Erf", ["x"], "b"), node("Add", ["a", "b"], "y")]
    path = save(tmp_path / "aside.onnx", aside, {"x": (FLOAT, [1, 8])})
    assert counts(forecast(path, ["qnn"])["qnn"]) == (2, 3, 1)


def test_every_forecast_says_what_it_is(tmp_path: Path) -> None:
    for name, found in forecast(files.dense(tmp_path / "m.onnx")).items():
        data = found.to_json()
        assert data["measured"] is False
        assert data["basis"], name
        assert set(data) >= {"nodes", "total", "partitions", "blockers"}
    assert "usability checker" in forecast(tmp_path / "m.onnx", ["nnapi"])["nnapi"].basis
    assert any("deprecated since Android 15" in note for note in forecast(tmp_path / "m.onnx")["nnapi"].notes)


def test_a_delegate_of_the_other_format(tmp_path: Path) -> None:
    path = files.dense(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"takes \.tflite files"):
        forecast(path, ["litert-gpu"])
    with pytest.raises(UsageError, match="'hexagon'") as caught:
        forecast(path, ["hexagon"])
    assert "nnapi, coreml, coreml-neuralnetwork, xnnpack, qnn" in caught.value.hint


def test_a_file_that_onnx_runtime_does_not_know_is_a_sentence(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [node("acme.Secret", ["x"], "y")], {"x": (FLOAT, [1, 8])})
    model = onnx.load(str(path))
    model.opset_import.append(helper.make_opsetid("acme", 1))
    onnx.save(model, str(path))
    with pytest.raises(InputError, match="cannot be opened by ONNX Runtime") as caught:
        forecast(path)
    assert "Secret" in caught.value.message


def test_a_damaged_file_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(SQUARE_ONNX[:40])
    with pytest.raises(InputError, match="truncated or not an ONNX file"):
        forecast(path)


def test_a_missing_package_has_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.dense(tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnavailableError, match="needs the package 'onnxruntime'"):
        forecast(path)
