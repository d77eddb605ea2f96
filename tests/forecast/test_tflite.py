"""Forecasts for .tflite files: operations, types, sizes, parts; what LiteRT itself says of XNNPACK."""

from __future__ import annotations

from pathlib import Path

import pytest

from forecast.files import tflite
from mh_edge.errors import InputError, UsageError
from mh_edge.forecast.forecasting import forecast, inapplicable
from mh_edge.machine import SQUARE_TFLITE


def test_a_file_that_all_take_but_core_ml_alone(tmp_path: Path) -> None:
    path = tmp_path / "square.tflite"
    path.write_bytes(SQUARE_TFLITE)
    found = forecast(path)
    assert list(found) == ["nnapi", "coreml", "xnnpack", "litert-gpu", "qnn"]
    assert all(found[name].whole for name in ("nnapi", "xnnpack", "litert-gpu", "qnn"))
    (blocker,) = found["coreml"].blockers
    assert (blocker.op, "no partition of one node" in blocker.reason) == ("MUL", True)
    assert "opened here" in found["xnnpack"].basis
    assert any("deprecated since Android 15" in note for note in found["nnapi"].notes)


def test_integers_of_64_bits(tmp_path: Path) -> None:
    path = tflite(
        tmp_path / "m.tflite",
        [("ADD", [0, 0], [1]), ("CAST", [1], [2])],
        [("int64", [4], False), ("int64", [4], False), ("float32", [4], False)],
        [0],
        [2],
    )
    found = forecast(path)
    for name in ("nnapi", "litert-gpu", "qnn"):
        assert {one.reason for one in found[name].blockers} == {"dtype int64"}, name
        assert found[name].nodes == 0
    assert {one.op: one.reason for one in found["xnnpack"].blockers} == {
        "ADD": "XNNPACK does not compute in int64",
        "CAST": "XNNPACK has no such operation",
    }


def test_free_sizes(tmp_path: Path) -> None:
    path = tflite(
        tmp_path / "m.tflite", [("EXP", [0], [1])], [("float32", [1, None], False)] * 2, [0], [1]
    )  # a size of another's file has no option that fixes it
    found = forecast(path)
    for name in ("nnapi", "qnn"):
        assert [(one.reason, one.fix) for one in found[name].blockers] == [("free size 't0_dim_1'", "")]
    assert found["xnnpack"].whole
    assert found["litert-gpu"].whole
    assert any("taken as they stand" in note for note in found["litert-gpu"].notes)


def test_slices_and_axes_of_the_gpu(tmp_path: Path) -> None:
    """A slice in two dimensions is taken, one whose place is computed is not; an axis of five dimensions is not."""
    four = ("int32", [2], True)
    row = ("float32", [4, 4], False)
    for place, taken in ((four, True), (("int32", [2], False), False)):
        path = tflite(
            tmp_path / "slice.tflite",
            [("STRIDED_SLICE", [0, 1, 2, 3], [4])],
            [row, place, four, four, row],
            [0] if taken else [0, 1],
            [4],
        )
        assert forecast(path, ["litert-gpu"])["litert-gpu"].whole is taken
    tensors = [("float32", [1, 2, 2, 2, 2], False), ("int32", [1], True), ("float32", [1, 2, 2, 2], False)]
    path = tflite(tmp_path / "mean.tflite", [("MEAN", [0, 1], [2])], tensors, [0], [2])
    assert "at most 4" in forecast(path, ["litert-gpu"])["litert-gpu"].blockers[0].reason


def test_only_the_largest_part_goes_to_the_gpu(tmp_path: Path) -> None:
    """EXP -> NEG -> (unknown) -> ABS: two parts, of which the smaller stays."""
    path = tflite(
        tmp_path / "m.tflite",
        [("EXP", [0], [1]), ("NEG", [1], [2]), ("L2_NORMALIZATION", [2], [3]), ("ABS", [3], [4])],
        [("float32", [1, 4], False)] * 5,
        [0],
        [4],
    )
    found = forecast(path, ["litert-gpu", "qnn"])
    gpu = found["litert-gpu"]
    assert (gpu.nodes, gpu.total, gpu.partitions) == (2, 4, 1)
    assert {one.op: "larger" in one.reason for one in gpu.blockers} == {"L2_NORMALIZATION": False, "ABS": True}
    assert found["qnn"].whole


def test_the_same_tensor_twice(tmp_path: Path) -> None:
    tensors = [("float32", [1, 4], False)] * 2
    for op, taken in (("MUL", True), ("ADD", True), ("SUB", False)):
        path = tflite(tmp_path / f"{op}.tflite", [(op, [0, 0], [1])], tensors, [0], [1])
        assert forecast(path, ["litert-gpu"])["litert-gpu"].whole is taken
    path = tflite(
        tmp_path / "crash.tflite", [("BATCH_MATMUL", [0, 0], [1])], [("float32", [1, 4, 4], False)] * 2, [0], [1]
    )
    assert "aborts" in forecast(path, ["litert-gpu"])["litert-gpu"].blockers[0].reason


def test_weights_that_are_unpacked_from_float16_vanish_or_stay(tmp_path: Path) -> None:
    tensors = [
        ("float32", [1, 4], False), ("float16", [4, 4], True), ("float32", [4, 4], False), ("float32", [1, 4], False),
        ("float32", [1, 4], False),
    ]  # fmt: skip
    begin = [("DEQUANTIZE", [1], [2]), ("FULLY_CONNECTED", [0, 2, -1], [3])]
    whole = tflite(tmp_path / "whole.tflite", [*begin, ("RELU", [3], [4])], tensors, [0], [4])
    broken = tflite(tmp_path / "broken.tflite", [*begin, ("L2_NORMALIZATION", [3], [4])], tensors, [0], [4])
    assert forecast(whole, ["litert-gpu"])["litert-gpu"].whole
    found = forecast(broken, ["litert-gpu"])["litert-gpu"]
    assert (found.nodes, found.partitions) == (1, 1)
    assert any(one.op == "DEQUANTIZE" and "unpacked on the CPU" in one.reason for one in found.blockers)


def test_operations_that_litert_does_not_know(tmp_path: Path) -> None:
    path = tflite(tmp_path / "m.tflite", [("FlexErf", [0], [1])], [("float32", [4], False)] * 2, [0], [1])
    found = forecast(path)
    assert all(item.nodes == 0 for item in found.values())
    assert found["xnnpack"].blockers[0].reason == "LiteRT cannot open the file"
    assert "FlexErf" in found["xnnpack"].notes[0]


def test_core_ml_takes_one_row(tmp_path: Path) -> None:
    for rows, taken in ((1, 2), (3, 0)):
        tensors = [("float32", [rows, 4], False), ("float32", [4, 4], True), ("float32", [4], True)]
        tensors += [("float32", [rows, 4], False)] * 2
        operations = [("FULLY_CONNECTED", [0, 1, 2], [3]), ("TANH", [3], [4])]
        path = tflite(tmp_path / f"{rows}.tflite", operations, tensors, [0], [4])
        assert forecast(path, ["coreml"])["coreml"].nodes == taken


@pytest.mark.parametrize(("dtype", "mended"), [("int8", True), ("int32", False), ("int64", False)])
def test_core_ml_takes_floats_and_only_quantized_files_have_some_to_offer(
    dtype: str, mended: bool, tmp_path: Path
) -> None:
    """Integers of 32 bits are indices, which the float file computes, too."""
    path = tflite(tmp_path / "m.tflite", [("ADD", [0, 0], [1])], [(dtype, [4], False)] * 2, [0], [1])
    (blocker,) = forecast(path, ["coreml"])["coreml"].blockers
    assert blocker.reason == f"dtype {dtype}"
    assert ("the float file" in blocker.fix) == mended


def test_names_and_what_does_not_apply(tmp_path: Path) -> None:
    path = tmp_path / "square.tflite"
    path.write_bytes(SQUARE_TFLITE)
    assert list(forecast(path, ["qnn", "nnapi"])) == ["nnapi", "qnn"]
    with pytest.raises(UsageError, match=r"no forecast of \.tflite files for 'coreml-neuralnetwork'"):
        forecast(path, ["coreml-neuralnetwork"])
    assert inapplicable("tflite") == {}
    assert set(inapplicable("onnx")) == {"litert-gpu"}
    path.write_bytes(SQUARE_TFLITE[:200])
    with pytest.raises(InputError, match="truncated or damaged"):
        forecast(path)


def test_a_name_inside_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    path = tflite(
        tmp_path / "m.tflite", [("EXP", [0], [1]), ("NEG", [1], [2])], [("float32", [4], False)] * 3, [0], [2]
    )
    path.write_bytes(path.read_bytes().replace(b"t1", b"\xff1"))
    with pytest.raises(InputError, match="truncated or damaged"):
        forecast(path)
