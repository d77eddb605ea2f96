"""Every product that int8 quantizes runs in integers: ONNX Runtime dequantizes no weight at every call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from mh_edge.artifact import Artifact
from mh_edge.quantization.onnx.model import TOO_SMALL
from mh_edge.quantization.scheme import Options
from tests.quantization.attentions import DIM, Builder, Feeds, decomposed, error, feeds, fused, quantized, run, weight

FEW = 1
"""Units of a product too small to be quantized beside one of 64 by 64."""

ROUNDED = 0.12
"""Mean error in standard deviations; a wrong bias gives .3 and more. .08 was seen where a step at 1 follows."""

RANDOM = np.random.default_rng(0)

Activation = Callable[[Builder, str], str]


def dequantized(path: Path, folder: Path) -> list[str]:
    """The weights that are made float at every call, after the optimization of the default level."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(folder / "optimized.onnx").graph
    constants = {tensor.name for tensor in graph.initializer}
    return [node.input[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]


def plain(kind: str, *constants: object, **attributes: object) -> Activation:
    return lambda b, x: b.op(kind, x, *constants, **attributes)


def times_itself(kind: str) -> Activation:
    return lambda b, x: b.op("Mul", x, b.op(kind, x))


ACTIVATIONS: Mapping[str, Activation] = {
    "none": lambda b, x: x,
    **{kind.lower(): plain(kind) for kind in (
        "Celu", "Elu", "Erf", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softmax",
        "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
    )},
    "prelu": plain("PRelu", np.full(1, 0.1)),
    "relu6": plain("Clip", 0.0, 6.0),
    "clip": plain("Clip", -1.0, 1.0),
    "clip_low": plain("Clip", -0.5),
    "clip_high": plain("Clip", "", 0.5),
    "silu": times_itself("Sigmoid"),
    "hard_silu": times_itself("HardSigmoid"),
    "gelu": lambda b, x: b.op("Mul", x, b.op("Add", b.op("Erf", b.op("Div", x, 2**0.5)), 1.0)),
}  # fmt: skip


def dense(b: Builder, x: str, inputs: int, units: int, rank: int) -> str:
    matrix, bias = weight(RANDOM, inputs, units), RANDOM.normal(size=units)
    return b.op("Gemm", x, matrix, bias) if rank == 2 else b.op("Add", b.op("MatMul", x, matrix), bias)


def convolution(b: Builder, x: str, inputs: int, units: int, rank: int) -> str:
    return b.op("Conv", x, weight(RANDOM, units, inputs, 3) / 4, RANDOM.normal(size=units), pads=[1, 1])


def product_alone(b: Builder, x: str, inputs: int, units: int, rank: int) -> str:
    return b.op("MatMul", x, weight(RANDOM, inputs, units))


def stack(b: Builder, layer: Callable[..., str], act: Activation, form: str, rank: int) -> str:
    """form: what follows a layer with an activation, and for "after tiny" what is before it."""
    x = "x"
    if form == "after tiny":
        x = act(b, layer(b, b.op("Slice", x, [0], [FEW], [1]), FEW, DIM, rank))
    x = act(b, layer(b, x, DIM, DIM, rank))
    if form == "residual":
        return b.op("Add", x, "x")
    if form == "joined":
        return layer(b, b.op("Concat", x, "x", axis=1), 2 * DIM, DIM, rank)
    return x if form == "end" else layer(b, x, DIM, FEW if form == "before tiny" else DIM, rank)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(
    ("layer", "rank"), [(dense, 2), (dense, 3), (product_alone, 2), (product_alone, 3), (convolution, 3)]
)
def test_every_activation(layer: Callable[..., str], rank: int, name: str, tmp_path: Path) -> None:
    forms = ["end", "before tiny", "before large", "residual"]
    forms += ["joined"] * (rank == 2) + ["after tiny"] * (rank == 2 or layer is convolution)
    data = {"x": RANDOM.normal(size=(24, DIM, *[5] * (rank == 3))).astype(np.float32)}
    if layer is not convolution and rank == 3:
        data["x"] = data["x"].transpose(0, 2, 1).copy()
    for form in forms:
        b = Builder()
        result = b.op("Identity", stack(b, layer, ACTIVATIONS[name], form, rank))
        source = b.save(tmp_path / "m.onnx", {"x": data["x"][:1]}, result)
        made, _ = quantized("int8", source, data, tmp_path / "q.onnx")
        assert any(one.reason == TOO_SMALL for one in made.kept_float) == ("tiny" in form)
        assert dequantized(tmp_path / "q.onnx", tmp_path) == [], form
        if (layer, name) != (convolution, "softmax"):  # the result of a convolution is rounded before it
            assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < ROUNDED, form


def test_a_relu_left_as_it_is_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mh_edge.quantization.onnx.qdq as qdq

    b, data = Builder(), {"x": RANDOM.normal(size=(24, DIM)).astype(np.float32)}
    source = b.save(tmp_path / "m.onnx", {"x": data["x"][:1]}, stack(b, dense, ACTIVATIONS["relu"], "before tiny", 2))
    monkeypatch.setattr(qdq, "_unfuse", lambda *_: None)
    quantized("int8", source, data, tmp_path / "q.onnx")
    assert len(dequantized(tmp_path / "q.onnx", tmp_path)) == 2  # the weight and the bias


ROWS = 20

BIASES: Mapping[str, tuple[int, ...] | None] = {
    "vector": (DIM,), "row": (1, DIM), "one": (1,), "scalar": (), "matrix": (ROWS, DIM), "column": (ROWS, 1),
    "computed": None,
}  # fmt: skip


@pytest.mark.parametrize("scheme", ["int8", "int8-a16", "int8-dynamic", "int4"])
@pytest.mark.parametrize("bias", BIASES)
def test_every_gemm(bias: str, scheme: str, tmp_path: Path) -> None:
    """alpha · A B + beta · C with C of every shape."""
    data, shape = {"x": RANDOM.normal(size=(ROWS, DIM)).astype(np.float32)}, BIASES[bias]
    for options in (
        {"alpha": 0.5},
        {"beta": 2.0},
        {"transB": 1, "alpha": 2.0, "beta": 0.5},
        {"transA": 1, "beta": 3.0},
    ):
        b = Builder()
        x = b.op("Transpose", "x") if "transA" in options else "x"
        c = b.op("Erf", "x") if shape is None else 3 * RANDOM.normal(size=shape)
        source = b.save(tmp_path / "m.onnx", data, b.op("Gemm", x, weight(RANDOM, DIM, DIM), c, **options))
        if "transA" in options and scheme in ("int8-dynamic", "int4"):
            continue  # left as it is
        quantized(scheme, source, data, tmp_path / "q.onnx")
        if scheme == "int8":
            assert dequantized(tmp_path / "q.onnx", tmp_path) == []
        assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < (ROUNDED if scheme != "int4" else 0.14)


SUMS = {
    "Add": lambda b, x: b.op("Add", x, "x"),
    "Sum": lambda b, x: b.op("Sum", x, "x"),
    "bias (1, N)": lambda b, x: b.op("Add", x, np.ones((1, DIM))),
    "scaled": lambda b, x: b.op("Add", b.op("Mul", x, RANDOM.normal(size=DIM)), RANDOM.normal(size=DIM)),
    "normalized": lambda b, x: b.op("LayerNormalization", b.op("Add", x, "x"), np.ones(DIM)),
}


@pytest.mark.parametrize("opset", [11, 17, 23])
@pytest.mark.parametrize("what", SUMS)
def test_every_sum(what: str, opset: int, tmp_path: Path) -> None:
    """What ONNX Runtime would make one Gemm of with the product before it, in batches of any size and of one."""
    if what == "normalized" and opset < 17:
        pytest.skip("a newer operation")
    for rank in (2, 3):
        for free in (True, False):
            for kind in ("MatMul", "Gemm")[: 4 - rank]:
                b = Builder()
                x = b.op(kind, "x", weight(RANDOM, DIM, DIM))
                data = {"x": RANDOM.normal(size=(ROWS, *[5] * (rank - 2), DIM)).astype(np.float32)}
                source = b.save(tmp_path / "m.onnx", {"x": data["x"][:1]}, SUMS[what](b, x), opset, free=free)
                quantized("int8", source, data, tmp_path / "q.onnx")
                assert dequantized(tmp_path / "q.onnx", tmp_path) == []
                assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < ROUNDED


def test_attention(exported: Mapping[str, Artifact], samples: Feeds, tmp_path: Path) -> None:
    """Masked, apart and as one operation; and the heads and classes of a file of ours."""
    sources = [(decomposed("causal", tmp_path / "m.onnx"), feeds(20)), (fused(tmp_path / "f.onnx", 23), feeds(20))]
    for source, data in (*sources, (exported["onnx"], samples)):
        quantized("int8", source, data, tmp_path / "q.onnx")
        assert dequantized(tmp_path / "q.onnx", tmp_path) == []


def test_a_sequence_flattened_behind_its_activation(tmp_path: Path) -> None:
    b, data = Builder(), {"x": RANDOM.normal(size=(ROWS, 5, DIM)).astype(np.float32)}
    x = b.op("Flatten", b.op("Relu", dense(b, "x", DIM, DIM, 3)))
    source = b.save(tmp_path / "m.onnx", {"x": data["x"][:1]}, dense(b, x, 5 * DIM, DIM, 2))
    quantized("int8", source, data, tmp_path / "q.onnx")
    assert dequantized(tmp_path / "q.onnx", tmp_path) == []
    assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < ROUNDED


def test_every_range_says_what_became_of_it(tmp_path: Path) -> None:
    """conv, relu, dense "hidden" (named to stay float), dense: rounded with a new range, or float with a reason."""
    b, data = Builder(), {"x": RANDOM.normal(size=(ROWS, DIM, 5)).astype(np.float32)}
    x = b.op("Flatten", b.op("Relu", convolution(b, "x", DIM, DIM, 3), to="active"), to="flat")
    hidden = b.op("Gemm", x, weight(RANDOM, 5 * DIM, DIM), to="hidden")
    source = b.save(tmp_path / "m.onnx", {"x": data["x"][:1]}, dense(b, b.op("Tanh", hidden), DIM, DIM, 2))
    made, _ = quantized("int8", source, data, tmp_path / "q.onnx", Options(keep_float=("layer/hidden",)))
    found = {change.tensor: change for change in made.ranges}
    assert found["flat"].after is not None  # by the convolution, whose integers end there
    assert found["flat"].why == ""
    assert found["Conv_0"].after is None
    for scheme in ("int8", "int8-a16"):
        made, _ = quantized(scheme, decomposed("causal", tmp_path / "m.onnx"), feeds(20), tmp_path / "q.onnx")
        assert all(change.why for change in made.ranges if change.after is None)


def test_weights_that_are_shared(tmp_path: Path) -> None:
    """Read as they are, transposed, and as a table: their scales fit all of them, and they stay integers."""
    data = {"x": RANDOM.integers(0, DIM, size=(ROWS, 5))}
    for forms in (
        ("Gemm", "turned"),
        ("Gather", "turned"),
        ("Gather", "Gemm"),
        ("Gather", "Gemm", "turned"),
        ("Gather", "apart"),
    ):
        b = Builder(named=False)
        b.tensors["w"] = numpy_helper.from_array(weight(RANDOM, DIM, DIM).astype(np.float32), "w")
        table = "w" if "Gather" in forms else weight(RANDOM, DIM, DIM)
        x = b.op("Tanh", b.op("ReduceMean", b.op("Gather", table, "x"), axes=[1], keepdims=0))
        for form in forms:
            if form == "apart":
                x = b.op("MatMul", x, b.op("Transpose", "w"))
            elif form != "Gather":
                x = b.op("Tanh", b.op("Gemm", x, "w", transB=int(form == "turned")))
        source = b.save(tmp_path / "m.onnx", data, b.op("Identity", x))
        quantized("int8", source, data, tmp_path / "q.onnx")
        assert dequantized(tmp_path / "q.onnx", tmp_path) == [], forms
        assert error(run(tmp_path / "q.onnx", data), run(source.path, data)) < ROUNDED, forms


def test_one_row_stays_float(tmp_path: Path) -> None:
    b = Builder()
    row = b.op("Add", b.op("MatMul", b.op("Squeeze", "x", [0]), weight(RANDOM, DIM, DIM)), RANDOM.normal(size=DIM))
    data = {"x": RANDOM.normal(size=(1, DIM)).astype(np.float32)}
    source = b.save(tmp_path / "m.onnx", data, dense(b, b.op("Unsqueeze", row, [0]), DIM, DIM, 2), free=False)
    made, _ = quantized("int8", source, data, tmp_path / "q.onnx")
    assert [one.tensor for one in made.kept_float if "one row" in one.reason] == ["layer/MatMul_1"]
    assert dequantized(tmp_path / "q.onnx", tmp_path) == []
