"""Attentions in plain ONNX, masked in the ways that exporters do it; none of this project's converters is involved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from mh_edge.artifact import Artifact
from mh_edge.inspection import inspect
from mh_edge.quantization.scheme import Options, Quantized, Ranges, find_scheme

TIME, DIM, HEADS = 6, 64, 4
LOWEST = float(np.finfo(np.float32).min)

Feeds = dict[str, np.ndarray]


class Builder:
    """Operations and constants in the order in which they are asked for; names only where `named`."""

    def __init__(self, named: bool = True) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}
        self.named = named

    def op(self, kind: str, *inputs: object, to: str = "", **attributes: object) -> str:
        name = to or f"{kind}_{len(self.nodes)}"
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        node = helper.make_node(kind, names, [name], name=f"layer/{name}" if self.named else "", **attributes)
        self.nodes.append(node)
        return name

    def cast(self, truth: str) -> str:
        self.nodes.append(helper.make_node("Cast", [truth], [f"{truth}_float"], to=TensorProto.FLOAT))
        return f"{truth}_float"

    def constant(self, value: object) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
        name = f"constant_{len(self.tensors)}"
        self.tensors[name] = numpy_helper.from_array(array, name)
        return name

    def save(
        self, path: Path, inputs: Feeds, result: str, opset: int = 17, *, free: bool = True, rank: int = 0
    ) -> Artifact:
        """free: of the batch. rank: of a result that shape inference knows nothing of."""

        def info(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            return helper.make_tensor_value_info(name, kind, ["batch" if free else 1, *array.shape[1:]])

        graph = helper.make_graph(
            self.nodes,
            "model",
            [info(name, array) for name, array in inputs.items()],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, [None] * rank if rank else None)],
            list(self.tensors.values()),
        )
        imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        onnx.save(onnx.shape_inference.infer_shapes(model), str(path))
        return inspect(path)


def minus_10000(b: Builder, scores: str) -> str:
    hidden = b.op("Unsqueeze", b.op("Where", "valid", 0.0, -10000.0), [1, 2])
    return b.op("Add", scores, hidden)


def subtracted(b: Builder, scores: str) -> str:
    hidden = b.op("Mul", b.op("Sub", 1.0, b.cast("valid")), 10000.0)
    return b.op("Sub", scores, b.op("Unsqueeze", hidden, [1, 2]))


def minus_1e9(b: Builder, scores: str) -> str:
    hidden = b.op("Mul", b.op("Sub", 1.0, b.cast("valid")), -1e9)
    return b.op("Add", b.op("Unsqueeze", hidden, [1, 2]), scores)


def where_infinite(b: Builder, scores: str) -> str:
    return b.op("Where", b.op("Unsqueeze", "valid", [1, 2]), scores, -np.inf)


def where_lowest(b: Builder, scores: str) -> str:
    return b.op("Where", b.op("Not", b.op("Unsqueeze", "valid", [1, 2])), LOWEST, scores)


def added_lowest(b: Builder, scores: str) -> str:
    return b.op("Add", scores, b.op("Unsqueeze", b.op("Where", "valid", 0.0, LOWEST), [1, 2]))


def causal(b: Builder, scores: str) -> str:
    """-10000 for each reason: the future, and padding."""
    future = b.op("Trilu", np.full((TIME, TIME), -10000.0), 1, upper=1)
    return minus_10000(b, b.op("Add", scores, future))


def scaled_late(b: Builder, scores: str) -> str:
    return b.op("Div", minus_10000(b, scores), 4.0)


MASKS: dict[str, Callable[[Builder, str], str]] = {
    mask.__name__: mask
    for mask in (
        minus_10000, subtracted, minus_1e9, where_infinite, where_lowest, added_lowest, causal, scaled_late
    )
}  # fmt: skip


def weight(rng: np.random.Generator, *shape: int, gain: float = 1.0) -> np.ndarray:
    return gain * rng.normal(size=shape) / np.sqrt(shape[0])


def product(b: Builder, x: str, rng: np.random.Generator, units: int = DIM, gain: float = 1.0, to: str = "") -> str:
    matrix = b.op("MatMul", x, weight(rng, DIM, units, gain=gain))
    return b.op("Add", matrix, rng.normal(size=units), to=to)


def decomposed(mask: str, path: Path, opset: int = 17, *, named: bool = True, free: bool = True) -> Artifact:
    """x (batch, time, dim), valid (batch, time) -> y: products, softmax and product, with the mask's name in MASKS."""
    b, rng = Builder(named), np.random.default_rng(0)
    parts = [
        b.op("Transpose", b.op("Reshape", product(b, "x", rng, gain=1.5), [0, TIME, HEADS, -1]), perm=[0, 2, 1, 3])
        for _ in range(3)
    ]
    q, k, v = parts
    scores = b.op("Mul", b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2])), 0.5, to="scores")
    weights = b.op("Softmax", MASKS[mask](b, scores), axis=-1, to="weights")
    joined = b.op("Reshape", b.op("Transpose", b.op("MatMul", weights, v), perm=[0, 2, 1, 3]), [0, TIME, DIM])
    return b.save(path, feeds(1), product(b, joined, rng, to="y"), opset, free=free)


def fused(path: Path, opset: int, *, free: bool = True, is_causal: bool = False) -> Artifact:
    """The same with the operation Attention of opset 23, and -10000."""
    b, rng = Builder(), np.random.default_rng(0)
    q, k, v = (product(b, "x", rng, gain=1.5) for _ in range(3))
    hidden = b.op("Unsqueeze", b.op("Where", "valid", 0.0, -10000.0), [1, 2])
    whole = b.op("Expand", hidden, [1, 1, TIME, TIME])
    options = {"q_num_heads": HEADS, "kv_num_heads": HEADS, "scale": 0.5, "is_causal": int(is_causal)}
    joined = b.op("Attention", q, k, v, whole, **options)
    return b.save(path, feeds(1), product(b, joined, rng, to="y"), opset, free=free)


def feeds(samples: int, seed: int = 0) -> Feeds:
    """Padding right, left, with holes, none, and whole rows of it, in turn."""
    rng = np.random.default_rng(seed)
    steps, lengths = np.arange(TIME), rng.integers(1, TIME, size=(samples, 1))
    kinds = [steps < lengths, steps >= lengths, rng.random((samples, TIME)) < 0.5]
    kinds += [np.full((samples, TIME), whole) for whole in (True, False)]
    valid = np.stack([kinds[row % len(kinds)][row] for row in range(samples)])
    return {"x": rng.normal(size=(samples, TIME, DIM)).astype(np.float32), "valid": valid}


def batches(data: Feeds, size: int) -> list[Feeds]:
    count = len(next(iter(data.values())))
    return [{name: array[at : at + size] for name, array in data.items()} for at in range(0, count, size)]


def run(model: Path, data: Feeds) -> np.ndarray:
    """y, opened as it is; one sample a call where the batch is fixed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    wanted = {item.name for item in session.get_inputs()}
    size = 1 if session.get_inputs()[0].shape[0] == 1 else len(data["x"])
    return np.concatenate([session.run(None, {name: part[name] for name in wanted})[0] for part in batches(data, size)])


def quantized(
    name: str, source: Artifact, data: Feeds, path: Path, options: Options | None = None
) -> tuple[Quantized, Ranges]:
    """Calibrate, quantize, save and check."""
    scheme, options = find_scheme("onnx", name), options or Options()
    size = 1 if source.inputs[0].shape[0] == 1 else 20
    ranges = scheme.calibrate(source, options, batches(data, size)) if scheme.calibrate else {}
    made = scheme.quantize(source, ranges, options)
    made.save(path)
    onnx.checker.check_model(str(path), full_check=True)
    return made, ranges


def error(got: np.ndarray, expected: np.ndarray) -> float:
    """Mean distance in units of the standard deviation."""
    return float(np.abs(got - expected).mean() / expected.std())
