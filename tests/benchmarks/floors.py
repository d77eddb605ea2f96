"""The floor: one ONNX graph of the model's matrix products and views between them, nothing else.

The products have the shapes of the model's own; what they multiply means nothing. Reshape moves no data, so no
transposition, bias, mask, softmax or normalisation is paid for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.models import Model

OPSET = 17
SCALE = 0.05
"""Of the random weights: small, so that no chain of products overflows."""


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def _node(self, kind: str, *inputs: str) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [name]))
        return name

    def _constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.tensors)}"
        self.tensors.append(onnx.numpy_helper.from_array(array, name))
        return name

    def times(self, x: str, rows: int, columns: int) -> str:
        """x: (..., rows) -> (..., columns)."""
        weights = self.rng.normal(size=(rows, columns)).astype("float32") * SCALE
        return self._node("MatMul", x, self._constant(weights))

    def product(self, x: str, y: str) -> str:
        return self._node("MatMul", x, y)

    def view(self, x: str, *shape: int) -> str:
        return self._node("Reshape", x, self._constant(np.array(shape, "int64")))

    def write(self, width: int, output: str, path: Path) -> None:
        x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", "time", width])
        y = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
        graph = onnx.helper.make_graph(self.nodes, "floor", [x], [y], self.tensors)
        opset = onnx.helper.make_opsetid("", OPSET)
        onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


def _attend(graph: _Graph, x: str, width: int, heads: int) -> str:
    depth = width // heads
    q, k, v = (graph.times(x, width, width) for _ in range(3))
    scores = graph.product(graph.view(q, 0, heads, -1, depth), graph.view(k, 0, heads, depth, -1))
    joined = graph.product(scores, graph.view(v, 0, heads, -1, depth))
    return graph.times(graph.view(joined, 0, -1, width), width, width)


def _attention(graph: _Graph, width: int, heads: int, **rest: Any) -> tuple[int, str]:
    del rest
    return width, _attend(graph, "x", width, heads)


def _encoder(graph: _Graph, layers: int, width: int, heads: int, inner: int, **rest: Any) -> tuple[int, str]:
    del rest
    x = "x"
    for _ in range(layers):
        x = _attend(graph, x, width, heads)
        x = graph.times(graph.times(x, width, inner), inner, width)
    return width, x


def _dense(graph: _Graph, width: int, units: int, heads: int, hidden: int | None) -> tuple[int, str]:
    del hidden  # the product that a fold of the hidden layer leaves
    return width, graph.times("x", width, units * heads)


FLOORS: dict[str, Callable[..., tuple[int, str]]] = {
    "attention": _attention,
    "encoder": _encoder,
    "dense": _dense,
}
"""Kinds whose products are few and large; in a recurrent layer they are one small one for each step."""


def write_floor(model: Model, path: Path) -> None:
    graph = _Graph()
    width, output = FLOORS[model.kind](graph, **model.sizes)
    graph.write(width, output, path)
