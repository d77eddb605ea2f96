"""Calibrated quantization of .onnx: what it keeps, what it refuses, and that a recipe gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from mh_edge.artifact import Artifact
from mh_edge.errors import ConversionError, InputError
from mh_edge.inspection import inspect
from mh_edge.quantization.onnx import calibration
from mh_edge.quantization.onnx.model import load
from mh_edge.quantization.scheme import Options, Range, find_scheme
from tests.quantization.attentions import (
    DIM,
    MASKS,
    TIME,
    Builder,
    Feeds,
    batches,
    decomposed,
    error,
    feeds,
    fused,
    product,
    quantized,
    run,
    weight,
)  # fmt: skip

STATIC = ("int8", "int8-a16")

ALLOWED = {"int8": 0.02, "int8-a16": 0.016, "qnn-a16w8": 0.016}
"""Mean error in standard deviations. The attentions here have scores of ±20, so that rounding weights alone costs
.008: those of trained models lose less.
"""

NEWEST = 26


@pytest.mark.parametrize("scheme", STATIC)
@pytest.mark.parametrize("mask", MASKS)
def test_masked_attention_stays_accurate(mask: str, scheme: str, tmp_path: Path) -> None:
    source, data = decomposed(mask, tmp_path / "m.onnx"), feeds(50, seed=2)
    made, _ = quantized(scheme, source, feeds(60, seed=1), tmp_path / "q.onnx")
    expected, got = run(source.path, data), run(tmp_path / "q.onnx", data)
    defined = ~np.isnan(expected).any((1, 2))  # where all is -infinity float gives NaN, which no integer stands for
    hidden = defined & ~data["valid"].any(1)
    assert error(got[defined], expected[defined]) < ALLOWED[scheme]
    if mask != "where_infinite":
        assert error(got[hidden], expected[hidden]) < 1.5 * ALLOWED[scheme]
    kept = {item.tensor for item in made.kept_float}
    changed = {change.tensor: change for change in made.ranges if change.why}
    if scheme == "int8":
        assert {"scores", "weights"} <= kept
        assert changed["scores"].after is None
    else:
        after = [change.after for change in changed.values() if change.after is not None]
        assert after
        assert max(max(-one.low, one.high) for one in after) < 1000


class _Reader(CalibrationDataReader):
    def __init__(self, data: Feeds) -> None:
        self.left = batches(data, 20)

    def get_next(self) -> Feeds | None:
        return self.left.pop(0) if self.left else None


def test_the_plain_quantizer_is_badly_wrong_on_the_same_file(tmp_path: Path) -> None:
    source, data = decomposed("minus_10000", tmp_path / "m.onnx"), feeds(50, seed=2)
    calibration_data = feeds(60, seed=1)
    plain = tmp_path / "plain.onnx"
    quantize_static(source.path, plain, _Reader(calibration_data), quant_format=QuantFormat.QDQ, per_channel=True)
    quantized("int8", source, calibration_data, tmp_path / "q.onnx")
    expected = run(source.path, data)
    assert error(run(plain, data), expected) > 0.2
    assert error(run(tmp_path / "q.onnx", data), expected) < ALLOWED["int8"]


def test_a_mask_left_at_its_size_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 bits alone do not save the scores beside -1e9."""
    import mh_edge.quantization.onnx.taming as taming

    source, data = decomposed("minus_1e9", tmp_path / "m.onnx"), feeds(50, seed=2)
    monkeypatch.setattr(taming, "find", lambda *_: [])
    quantized("int8-a16", source, feeds(60, seed=1), tmp_path / "q.onnx")
    assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) > 0.2


@pytest.mark.parametrize("free", [True, False], ids=["dynamic", "fixed"])
@pytest.mark.parametrize("opset", [17, 18, 21, 22, 23, 24, NEWEST])
def test_every_opset(opset: int, free: bool, tmp_path: Path) -> None:
    """Attention of opset 23 stays whole: quantize_dynamic makes an invalid file of it."""
    data, path = feeds(20, seed=2), tmp_path / "m.onnx"
    if opset < 23:
        sources = [decomposed("causal", path, opset, free=free)]
    else:
        sources = [fused(tmp_path / f"{causal}.onnx", opset, free=free, is_causal=causal) for causal in (False, True)]
    for source in sources:
        expected = run(source.path, data)
        for scheme in STATIC:
            made, _ = quantized(scheme, source, feeds(40, seed=1), tmp_path / "q.onnx")
            defined = ~np.isnan(expected).any((1, 2))
            assert error(run(tmp_path / "q.onnx", data)[defined], expected[defined]) < ALLOWED[scheme]
            ops = inspect(tmp_path / "q.onnx").ops
            assert any(op.endswith("QuantizeLinear") for op in ops)  # of com.microsoft for 16 bits below opset 21
            if opset >= 23:
                assert ops["Attention"] == 1
                assert any("one operation" in item.reason for item in made.kept_float)


def test_qnn_wants_fixed_sizes_and_is_accurate(tmp_path: Path) -> None:
    data = feeds(30, seed=2)
    free = decomposed("minus_10000", tmp_path / "free.onnx")
    with pytest.raises(InputError, match=r"x of .* has the free size 'batch'.* --batch 1"):
        find_scheme("onnx", "qnn-a16w8").quantize(free, {}, Options())
    for mask in ("minus_10000", "where_lowest"):
        source = decomposed(mask, tmp_path / "m.onnx", free=False)
        quantized("qnn-a16w8", source, feeds(40, seed=1), tmp_path / "q.onnx")
        assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < ALLOWED["qnn-a16w8"]
        types = {tensor.data_type for tensor in onnx.load(tmp_path / "q.onnx").graph.initializer}
        assert {TensorProto.UINT16, TensorProto.UINT8} <= types
        assert TensorProto.INT8 not in types


def test_ranges_are_those_of_all_batches(tmp_path: Path) -> None:
    source, data = decomposed("minus_10000", tmp_path / "m.onnx"), feeds(45)
    alive: list[weakref.ref[np.ndarray]] = []

    def stream() -> Iterator[Feeds]:
        for batch in batches(data, 5):
            batch = {name: array.copy() for name, array in batch.items()}
            alive.append(weakref.ref(batch["x"]))
            assert sum(one() is not None for one in alive) <= 2  # this one, and the one just used
            yield batch

    ranges = calibration.observe(load(source), ["x", "weights", "nothing", "valid"], stream())
    assert ranges.keys() == {"x", "weights"}
    assert ranges["x"] == Range(float(data["x"].min()), float(data["x"].max()))
    assert 0 <= ranges["weights"].low <= ranges["weights"].high <= 1
    assert len(alive) == 9


def test_no_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no batch"):
        calibration.observe(load(decomposed("causal", tmp_path / "m.onnx")), ["x"], [])


AGAIN = """
import hashlib, json, sys
from pathlib import Path
from mh_edge.inspection import inspect
from mh_edge.quantization.scheme import Options, Range, find_scheme
source, target, ranges = sys.argv[1:]
ranges = {name: Range(*seen) for name, seen in json.loads(ranges).items()}
for name in ("int8", "int8-a16", "qnn-a16w8"):
    find_scheme("onnx", name).quantize(inspect(Path(source)), ranges, Options()).save(Path(target))
    print(hashlib.sha256(Path(target).read_bytes()).hexdigest())
"""


def test_ranges_and_options_give_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    source = decomposed("causal", tmp_path / "m.onnx", free=False)
    _, ranges = quantized("int8", source, feeds(10), tmp_path / "q.onnx")
    _, more = quantized("int8-a16", source, feeds(10), tmp_path / "q.onnx")
    ranges = {**more, **ranges}
    digests = []
    for name in ("int8", "int8-a16", "qnn-a16w8"):
        find_scheme("onnx", name).quantize(source, ranges, Options()).save(tmp_path / "q.onnx")
        digests.append(hashlib.sha256((tmp_path / "q.onnx").read_bytes()).hexdigest())
    given = json.dumps({name: (seen.low, seen.high) for name, seen in reversed(ranges.items())})
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, str(source.path), str(tmp_path / "r.onnx"), given],
        env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == digests


@pytest.mark.parametrize("scheme", STATIC)
def test_nothing_to_quantize_is_said(scheme: str, tmp_path: Path) -> None:
    b = Builder()
    source = b.save(tmp_path / "m.onnx", {"x": feeds(1)["x"]}, b.op("Erf", "x"))
    with pytest.raises(ConversionError, match=r"m\.onnx holds no .* that int8"):
        quantized(scheme, source, {"x": feeds(4)["x"]}, tmp_path / "q.onnx")


@pytest.mark.parametrize("scheme", STATIC)
@pytest.mark.parametrize("value", [0.0, 3.0, -2.5])
def test_an_input_that_never_changes(value: float, scheme: str, tmp_path: Path) -> None:
    data = {"x": np.full((8, TIME, DIM), value, np.float32)}
    b = Builder()
    source = b.save(tmp_path / "m.onnx", {"x": feeds(1)["x"]}, product(b, "x", np.random.default_rng(0)))
    quantized(scheme, source, data, tmp_path / "q.onnx")
    assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < 0.02


def test_a_scale_per_channel_or_per_tensor(tmp_path: Path) -> None:
    source, data = decomposed("minus_10000", tmp_path / "m.onnx"), feeds(40)
    sizes = {}
    for per_channel in (True, False):
        quantized("int8", source, data, tmp_path / "q.onnx", Options(per_channel=per_channel))
        scales = [t for t in onnx.load(tmp_path / "q.onnx").graph.initializer if t.name.endswith("/scale")]
        sizes[per_channel] = max(np.prod(t.dims, dtype=int) for t in scales)
        assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < 1.5 * ALLOWED["int8"]
    assert sizes == {True: DIM, False: 1}


@pytest.mark.parametrize("scheme", STATIC)
@pytest.mark.parametrize("opset", [9, 11, 12])
def test_an_old_opset_is_raised(opset: int, scheme: str, tmp_path: Path) -> None:
    b, data = Builder(), {"x": feeds(20)["x"]}
    result = b.op("Relu", product(b, "x", np.random.default_rng(0)))
    source = b.save(tmp_path / "m.onnx", {"x": data["x"][:1]}, result, opset)
    quantized(scheme, source, data, tmp_path / "q.onnx")
    assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < 0.02


@pytest.mark.parametrize("scheme", STATIC)
@pytest.mark.parametrize("shape", [(4, DIM, DIM), (DIM,)], ids=["stack", "vector"])
def test_products_with_a_stack_or_a_vector(shape: tuple[int, ...], scheme: str, tmp_path: Path) -> None:
    b, rng = Builder(), np.random.default_rng(0)
    x = b.op("Unsqueeze", "x", [1]) if len(shape) > 2 else "x"
    data = {"x": feeds(20)["x"]}
    source = b.save(tmp_path / "m.onnx", {"x": data["x"][:1]}, b.op("MatMul", x, rng.normal(size=shape)))
    quantized(scheme, source, data, tmp_path / "q.onnx")
    assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < 0.02


@pytest.mark.parametrize("scheme", STATIC)
def test_layers_that_are_named_stay_float(scheme: str, tmp_path: Path) -> None:
    source, data = decomposed("minus_10000", tmp_path / "m.onnx"), feeds(20)
    name = load(source).graph.node[0].name  # layer/MatMul_0
    made, _ = quantized(scheme, source, data, tmp_path / "q.onnx", Options(keep_float=(name,)))
    weights = {t.name: t.data_type for t in onnx.load(tmp_path / "q.onnx").graph.initializer}
    assert weights["constant_0"] == TensorProto.FLOAT
    assert {item.tensor: item.reason for item in made.kept_float}[name] == "named by keep_float"
    with pytest.raises(ConversionError, match=r"Kept in float: layer/"):
        quantized(scheme, source, data, tmp_path / "q.onnx", Options(keep_float=("layer",)))


def test_external_data_is_read(tmp_path: Path) -> None:
    source, data = decomposed("minus_10000", tmp_path / "m.onnx"), feeds(20)
    quantized("int8", source, data, tmp_path / "q.onnx")
    (tmp_path / "apart").mkdir()
    apart = tmp_path / "apart" / "m.onnx"
    onnx.save_model(onnx.load(source.path), str(apart), save_as_external_data=True, location="w", size_threshold=0)
    quantized("int8", inspect(apart), data, tmp_path / "p.onnx")
    assert np.array_equal(run(tmp_path / "p.onnx", data), run(tmp_path / "q.onnx", data))
    assert sorted(path.name for path in apart.parent.iterdir()) == ["m.onnx", "w"]


def test_a_body_stays_float_and_its_weights_whole(tmp_path: Path) -> None:
    """y = if flag: x W + b, else x, and the product outside shares W."""
    rng = np.random.default_rng(0)
    inner = helper.make_graph(
        [helper.make_node("MatMul", ["x", "constant_0"], ["inner"], name="inner/MatMul")],
        "then", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["same"])],
        "else", [], [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )  # fmt: skip
    b = Builder()
    outside = b.op("MatMul", "x", weight(rng, DIM, DIM))
    chosen = b.op("If", b.op("Squeeze", b.op("Slice", "flag", [0], [1])), then_branch=inner, else_branch=other)
    data = {"x": feeds(8)["x"], "flag": np.ones((8,), bool)}
    source = b.save(tmp_path / "m.onnx", data, b.op("Add", outside, chosen))
    made, _ = quantized("int8", source, data, tmp_path / "q.onnx")
    assert any(item.tensor == "inner/MatMul" and "body" in item.reason for item in made.kept_float)
    assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < 0.02


@pytest.mark.parametrize("scheme", STATIC)
def test_a_file_without_names(scheme: str, tmp_path: Path) -> None:
    source, data = decomposed("where_lowest", tmp_path / "m.onnx", named=False), feeds(20)
    quantized(scheme, source, data, tmp_path / "q.onnx")
    assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < ALLOWED[scheme]


def test_convolutions_tables_and_recurrent_layers(tmp_path: Path) -> None:
    """Conv goes on in integers through its Relu; a large table becomes integers; LSTM and ConvTranspose do not."""
    b, rng = Builder(), np.random.default_rng(0)
    ids = np.random.default_rng(1).integers(0, 100, size=(16, 8))
    x = b.op("Transpose", b.op("Gather", weight(rng, 100, DIM, gain=8.0), "ids"), perm=[0, 2, 1])
    x = b.op("Relu", b.op("Conv", x, weight(rng, DIM, DIM, 3), rng.normal(size=DIM), pads=[1, 1]))
    x = b.op("ConvTranspose", x, weight(rng, DIM, DIM, 2))
    x = b.op(
        "LSTM", b.op("Transpose", x, perm=[2, 0, 1]), *(weight(rng, 1, 4 * 16, n) for n in (DIM, 16)), hidden_size=16
    )
    source = b.save(tmp_path / "m.onnx", {"ids": ids}, x)
    made, _ = quantized("int8", source, {"ids": ids}, tmp_path / "q.onnx")
    kept = {item.tensor: item.reason for item in made.kept_float}
    assert "64 units or more" in next(why for name, why in kept.items() if "LSTM" in name)
    assert any("ConvTranspose" in name for name in kept)
    model = onnx.load(tmp_path / "q.onnx")
    assert "Relu" not in {node.op_type for node in model.graph.node}
    integers = {tuple(t.dims) for t in model.graph.initializer if t.data_type in (TensorProto.INT8, TensorProto.UINT8)}
    assert {(100, DIM), (DIM, DIM, 3)} <= integers
    got, expected = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"ids": ids})[0]
        for path in (tmp_path / "q.onnx", source.path)
    )
    assert error(got, expected) < 0.03


@pytest.mark.parametrize("scheme", STATIC)
def test_a_file_of_ours(scheme: str, exported: Mapping[str, Artifact], samples: Feeds, tmp_path: Path) -> None:
    """The rules' names survive, and parallel heads, apart and merged."""
    source = exported["onnx"]
    quantized(scheme, source, samples, tmp_path / "q.onnx")
    assert inspect(tmp_path / "q.onnx").made
    assert error(run(tmp_path / "q.onnx", samples), run(source.path, samples)) < 0.03


def test_what_stays_float_reads_what_was_not_rounded(tmp_path: Path) -> None:
    """h + (h W + b): the product reads the rounded h, the residual sum the exact one."""
    b = Builder()
    hidden = b.op("Erf", "x")
    y = b.op("Add", hidden, product(b, hidden, np.random.default_rng(0)))
    source = b.save(tmp_path / "m.onnx", {"x": feeds(1)["x"]}, y)
    quantized("int8", source, {"x": feeds(20)["x"]}, tmp_path / "q.onnx")
    graph = onnx.load(tmp_path / "q.onnx").graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    taken = {node.op_type: {made_by.get(name) for name in node.input} for node in graph.node}
    assert taken["Gemm"] == {"DequantizeLinear"}
    assert "DequantizeLinear" not in taken["Add"]


def test_a_result_that_a_product_reads_is_not_rounded(tmp_path: Path) -> None:
    """-> h, h W + b"""
    b = Builder()
    hidden = b.op("Erf", "x", to="hidden")
    source = b.save(tmp_path / "m.onnx", {"x": feeds(1)["x"]}, product(b, hidden, np.random.default_rng(0)))
    model = onnx.load(source.path)
    model.graph.output.add().CopyFrom(next(info for info in model.graph.value_info if info.name == hidden))
    onnx.save(model, source.path)
    data = {"x": feeds(20)["x"]}
    quantized("int8", inspect(source.path), data, tmp_path / "q.onnx")
    got, expected = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, data)
        for path in (tmp_path / "q.onnx", source.path)
    )
    assert np.array_equal(got[1], expected[1])
    assert 0 < error(got[0], expected[0]) < 0.02


def test_attention_of_com_microsoft_stays_whole(tmp_path: Path) -> None:
    """ONNX's shape inference does not know its result, whose product is quantized all the same."""
    b, rng = Builder(), np.random.default_rng(0)
    q, k, v = (product(b, "x", rng, gain=1.5) for _ in range(3))
    joined = b.op("MultiHeadAttention", q, k, v, num_heads=4, domain="com.microsoft")
    source = b.save(tmp_path / "m.onnx", {"x": feeds(1)["x"]}, product(b, joined, rng, to="y"), rank=3)
    data = {"x": feeds(40)["x"]}
    for scheme in STATIC:
        made, _ = quantized(scheme, source, data, tmp_path / "q.onnx")
        assert [item.tensor for item in made.kept_float if "one operation" in item.reason] == [f"layer/{joined}"]
        integers = [t for t in onnx.load(tmp_path / "q.onnx").graph.initializer if t.data_type == TensorProto.INT8]
        assert sum(tuple(tensor.dims) == (DIM, DIM) for tensor in integers) == 4
        assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < ALLOWED[scheme]
