"""Masks are found in graphs whoever wrote them, and made as small as integers can bear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mh_edge.quantization.onnx import calibration, masks
from mh_edge.quantization.onnx.masks import MARGIN
from mh_edge.quantization.onnx.model import load
from mh_edge.quantization.onnx.taming import tame
from mh_edge.quantization.scheme import Range
from tests.quantization.attentions import DIM, MASKS, TIME, Builder, batches, decomposed, feeds, run

KINDS = {
    "minus_10000": ["mask"],
    "subtracted": ["mask"],
    "minus_1e9": ["mask"],
    "where_infinite": ["replaced"],
    "where_lowest": ["replaced"],
    "added_lowest": ["mask"],
    "causal": ["mask", "mask"],
    "scaled_late": ["mask", "factor"],
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("named", [True, False])
def test_every_mask_is_found_without_calibration(mask: str, named: bool, tmp_path: Path) -> None:
    (found,) = masks.find(load(decomposed(mask, tmp_path / "m.onnx", named=named)))
    assert (found.scores, found.output) == ("scores", "weights")
    assert [step.kind for step in found.steps] == KINDS[mask]


def _one(b: Builder, scores: str, path: Path, **inputs: np.ndarray) -> onnx.ModelProto:
    """softmax(scores) of a model that has the input x (1, TIME, DIM)."""
    result = b.op("Softmax", scores, axis=-1)
    return load(b.save(path, {"x": np.zeros((1, TIME, DIM), np.float32), **inputs}, result))


def test_a_mask_that_is_given_is_told_by_its_range(tmp_path: Path) -> None:
    b = Builder()
    product = b.op("Add", b.op("MatMul", "x", np.ones((DIM, TIME))), b.op("Tanh", "hidden"), to="product")
    model = _one(b, b.op("Add", product, "hidden"), tmp_path / "m.onnx", hidden=np.zeros((1, TIME, TIME), np.float32))
    assert not masks.find(model)[0].masks
    assert masks.find(model, {"hidden": Range(-50.0, 0.0)})[0].scores == "Add_3"
    (found,) = masks.find(model, {"hidden": Range(-65504.0, 0.0)})
    assert (found.scores, found.masks[0].operand) == (product, "hidden")


def test_what_is_given_for_nothing_but_the_sum_is_a_mask(tmp_path: Path) -> None:
    b = Builder()
    product = b.op("MatMul", "x", np.ones((DIM, TIME)))
    model = _one(b, b.op("Add", product, "hidden"), tmp_path / "m.onnx", hidden=np.zeros((1, TIME, TIME), np.float32))
    assert (masks.find(model)[0].scores, masks.find(model)[0].masks[0].operand) == (product, "hidden")


@pytest.mark.parametrize(
    "bias",
    [
        np.zeros((TIME, TIME)),
        np.full((TIME, TIME), -80.0),
        -np.linspace(0, 3000, TIME * TIME).reshape(TIME, TIME),  # grows with the distance: scores, not a mask
    ],
    ids=["none", "small", "distance"],
)
def test_a_bias_is_no_mask(bias: np.ndarray, tmp_path: Path) -> None:
    b = Builder()
    (found,) = masks.find(_one(b, b.op("Add", b.op("MatMul", "x", np.ones((DIM, TIME))), bias), tmp_path / "m.onnx"))
    assert (found.scores, found.masks) == ("Add_1", ())


def test_a_mask_made_of_a_product_by_comparing_is_one(tmp_path: Path) -> None:
    b = Builder()
    product = b.op("MatMul", "x", np.ones((DIM, TIME)))
    hidden = b.op("Where", b.op("Greater", product, 0.0), 0.0, -10000.0)
    (found,) = masks.find(_one(b, b.op("Add", product, hidden), tmp_path / "m.onnx"))
    assert found.masks[0].operand == hidden


def test_a_softmax_written_out_is_one(tmp_path: Path) -> None:
    b = Builder()
    product = b.op("MatMul", "x", np.ones((DIM, 1)))
    masked = b.op("Add", product, b.op("Unsqueeze", b.op("Where", "valid", 0.0, -10000.0), [2]))
    powers = b.op("Exp", b.op("Sub", masked, b.op("ReduceMax", masked, axes=[1])))
    total = b.op("Div", powers, b.op("ReduceSum", powers, [1]))
    valid = np.ones((1, TIME), bool)
    model = load(b.save(tmp_path / "m.onnx", {"x": np.zeros((1, TIME, DIM), np.float32), "valid": valid}, total))
    (found,) = masks.find(model)
    assert [step.kind for step in found.steps] == ["mask", "centred"]
    tamed = tame(model, _seen(found, model, scores=Range(-3.0, 5.0)))
    assert tamed.ranges[found.steps[-1].tensor] == Range(-(8.0 + 24.0), 0.0)


def _seen(found: masks.Softmax, model: onnx.ModelProto, scores: Range) -> dict[str, Range]:
    """Ranges as a calibration that met masked steps would give."""
    ranges = {name: Range(-10000.0, 0.0) for node in model.graph.node for name in node.output}
    return {**ranges, found.scores: scores, found.output: Range(0.0, 1.0)}


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("minus_10000", (-3 - 24, 5)),
        ("causal", (-3 - 2 * 24, 5)),
        ("scaled_late", ((-3 - 72) / 4, 5 / 4)),  # R = (8 / 4 + MARGIN) · 4
        ("minus_1e9", (-3 - 16, 5)),
        ("where_infinite", (-3 - 16, 5)),
    ],
)
def test_ranges_by_hand(mask: str, expected: tuple[float, float], tmp_path: Path) -> None:
    assert MARGIN == 16
    model = load(decomposed(mask, tmp_path / "m.onnx"))
    (found,) = masks.find(model)
    tamed = tame(model, _seen(found, model, Range(-3.0, 5.0)))
    last = found.steps[-1].tensor
    assert (tamed.ranges[last].low, tamed.ranges[last].high) == pytest.approx(expected)
    assert tamed.why[last]
    assert tamed.ranges["scores"] == Range(-3.0, 5.0)


def test_the_numbers_of_a_mask_become_small_for_it_alone(tmp_path: Path) -> None:
    """Another operation that reads the same constant keeps it."""
    b = Builder()
    amount = b.constant(-10000.0)
    product = b.op("MatMul", "x", np.ones((DIM, TIME)))
    masked = b.op("Add", product, b.op("Unsqueeze", b.op("Where", "valid", 0.0, amount), [1]))
    result = b.op("Mul", b.op("Softmax", masked, axis=-1), amount)
    inputs = {"x": np.zeros((1, TIME, DIM), np.float32), "valid": np.ones((1, TIME), bool)}
    model = load(b.save(tmp_path / "m.onnx", inputs, result))
    tamed = tame(model, {product: Range(-3.0, 5.0), masked: Range(-1e4, 5.0)})
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in tamed.model.graph.initializer}
    readers = {node.op_type: node for node in tamed.model.graph.node}
    assert values[readers["Where"].input[2]] == -24
    assert values[readers["Mul"].input[1]] == -10000


@pytest.mark.parametrize("mask", ["minus_10000", "subtracted", "causal", "scaled_late"])
def test_a_small_mask_computes_the_same_in_float(mask: str, tmp_path: Path) -> None:
    """Rows that are hidden altogether included: those are the softmax of their own scores."""
    source, data = decomposed(mask, tmp_path / "m.onnx"), feeds(60)
    model = load(source)
    names = [name for node in model.graph.node for name in node.output]
    tamed = tame(model, calibration.observe(model, names, batches(data, 60)))
    onnx.save(tamed.model, str(tmp_path / "tamed.onnx"))
    expected, got = run(source.path, data), run(tmp_path / "tamed.onnx", data)
    assert np.abs(got - expected).max() < 5e-3  # float32 beside -10000 keeps 1e-3 of a score
    seen = data["valid"].any(1) if mask != "causal" else data["valid"][:, 0]
    assert np.abs(got - expected)[seen].max() < 1e-4


def test_a_mask_of_an_unknown_form_stays_float(tmp_path: Path) -> None:
    """where(seen, s, s - 1e9) as a sum of products, which is how tf2onnx writes it."""
    b = Builder()
    scores = b.op("MatMul", "x", np.ones((DIM, TIME)))
    seen = b.op("Unsqueeze", b.cast("valid"), [1])
    hidden = b.op("Mul", b.op("Sub", 1.0, seen), b.op("Sub", scores, 1e9))
    masked = b.op("Add", hidden, b.op("Mul", seen, scores))
    result = b.op("Softmax", masked, axis=-1)
    inputs = {"x": np.zeros((1, TIME, DIM), np.float32), "valid": np.ones((1, TIME), bool)}
    model = load(b.save(tmp_path / "m.onnx", inputs, result))
    kept = tame(model, {scores: Range(-3.0, 5.0), masked: Range(-1e9, 5.0)}).kept
    assert {f"layer/{name}" for name in (hidden, masked, result)} <= kept.keys()
    assert f"layer/{scores}" not in kept
    assert not tame(model, {scores: Range(-3.0, 5.0), masked: Range(-3.0, 5.0)}).kept
