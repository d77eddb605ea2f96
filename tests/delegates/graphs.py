"""Small .onnx files and feeds for the devices, made with the onnx package alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper, save_model

RNG = np.random.default_rng(0)
TIME, DIM, UNITS = 7, 16, 4


def weights(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(shape[-2])).astype(np.float32)


def write(
    path: Path,
    nodes: list[NodeProto],
    inputs: Mapping[str, tuple[int, list[int | str]]],
    constants: Mapping[str, np.ndarray],
    *,
    opset: int = 17,
) -> Path:
    """A model whose only output is "y". inputs: name -> (type, shape)."""
    graph: GraphProto = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def dense(path: Path, batch: int | str = "batch") -> Path:
    """y = softmax(relu(x W) V): five nodes, named, of kinds that every device has."""
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["a"], name="dense/MatMul"),
        helper.make_node("Relu", ["a"], ["b"], name="dense/Relu"),
        helper.make_node("MatMul", ["b", "V"], ["c"], name="logits/MatMul"),
        helper.make_node("Softmax", ["c"], ["y"], name="logits/Softmax", axis=-1),
    ]
    constants = {"W": weights(DIM, 32), "V": weights(32, 8)}
    return write(path, nodes, {"x": (TensorProto.FLOAT, [batch, TIME, DIM])}, constants)


def masked(path: Path, batch: int | str = "batch") -> Path:
    """y = softmax(x W + where(valid, 0, -10000)) over time: what a mask is in a portable file."""
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["a"], name="MatMul"),
        helper.make_node("Where", ["valid", "zero", "far"], ["m"], name="Where"),
        helper.make_node("Unsqueeze", ["m", "last"], ["n"], name="Unsqueeze"),
        helper.make_node("Add", ["a", "n"], ["b"], name="Add"),
        helper.make_node("Softmax", ["b"], ["y"], name="Softmax", axis=1),
    ]
    constants = {
        "W": weights(DIM, 8), "zero": np.float32(0), "far": np.float32(-1e4), "last": np.array([2]),
    }  # fmt: skip
    inputs = {"x": (TensorProto.FLOAT, [batch, TIME, DIM]), "valid": (TensorProto.BOOL, [batch, TIME])}
    return write(path, nodes, inputs, constants)


def attention(path: Path) -> Path:
    """The `Attention` of opset 23 between two MatMul, batch 1."""
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["q"], name="query"),
        helper.make_node("Attention", ["q", "q", "q"], ["a"], name="attention", q_num_heads=2, kv_num_heads=2),
        helper.make_node("MatMul", ["a", "W"], ["y"], name="out"),
    ]
    return write(path, nodes, {"x": (TensorProto.FLOAT, [1, TIME, DIM])}, {"W": weights(DIM, DIM)}, opset=23)


def lstm(path: Path, batch: int | str) -> Path:
    """The last state of an LSTM over the valid steps of x (batch, time, dim), which is padded on the right."""
    nodes = [
        helper.make_node("Cast", ["valid"], ["steps"], name="Cast", to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["steps", "time"], ["lengths"], name="ReduceSum", keepdims=0),
        helper.make_node("Transpose", ["x"], ["t"], name="Transpose", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "W", "R", "B", "lengths"], ["", "h"], name="LSTM", hidden_size=UNITS),
        helper.make_node("Squeeze", ["h", "first"], ["y"], name="Squeeze"),
    ]
    constants = {
        "W": weights(1, 4 * UNITS, DIM), "R": weights(1, 4 * UNITS, UNITS), "B": weights(1, 8 * UNITS),
        "time": np.array([1]), "first": np.array([0]),
    }  # fmt: skip
    inputs = {"x": (TensorProto.FLOAT, [batch, TIME, DIM]), "valid": (TensorProto.BOOL, [batch, TIME])}
    return write(path, nodes, inputs, constants)


def feeds(batch: int = 1) -> dict[str, np.ndarray]:
    """Rows whose last steps are masked."""
    valid = np.ones((batch, TIME), bool)
    valid[:, TIME - 3 :] = False
    return {"x": RNG.standard_normal((batch, TIME, DIM)).astype(np.float32), "valid": valid}


def holed() -> dict[str, np.ndarray]:
    """One row whose first, last and some inner steps are masked."""
    valid = np.array([[False, True, True, False, True, True, False]])
    return {"x": RNG.standard_normal((1, TIME, DIM)).astype(np.float32), "valid": valid}


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Feeds as a file."""
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path
