"""Weights as initializers whose bytes stay where they are until the file is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir


def lazy_tensor(name: str, read: Callable[[], np.ndarray], dtype: ir.DataType, shape: ir.Shape) -> ir.LazyTensor:
    """A tensor that asks `read` for its numbers each time they are needed, and keeps none of them."""
    return ir.LazyTensor(lambda: ir.tensor(read(), name=name), dtype=dtype, shape=shape, name=name)


def initializer(name: str, tensor: ir.LazyTensor) -> ir.Value:
    """A value of this name that holds the tensor."""
    return ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)


def constant(graph: ir.Graph, array: np.ndarray) -> ir.Value:
    """A further small initializer: axes, sizes, a number."""
    name = _free(graph, "constant")
    tensor = ir.tensor(array, name=name)
    made = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(made)
    return made


def derived(
    graph: ir.Graph,
    of: Sequence[ir.Value | None],
    change: Callable[..., np.ndarray],
    shape: Sequence[int] | None = None,
) -> ir.Value:
    """A further initializer, named after the first of `of`: `change` of the numbers that they hold now, computed when
    it is written. shape: of the result, where finding it by a change of zeros would cost.
    """
    tensors = [value.const_value for value in of if value is not None and value.const_value is not None]
    dtype = tensors[0].dtype
    if shape is None:
        zeros = [np.broadcast_to(np.zeros((), tensor.dtype.numpy()), tensor.shape.numpy()) for tensor in tensors]
        shape = change(*zeros).shape

    def read() -> np.ndarray:
        return np.ascontiguousarray(change(*(tensor.numpy() for tensor in tensors)), dtype.numpy()).reshape(shape)

    base = tensors[0].name or ""
    made = initializer(_free(graph, base), lazy_tensor(base, read, dtype, ir.Shape(shape)))
    graph.register_initializer(made)
    return made


def _free(graph: ir.Graph, base: str) -> str:
    """A name that is not taken; the clean-up gives the last names."""
    numbers = itertools.count(len(graph.initializers))
    return next(name for number in numbers if (name := f"{base}__{number}") not in graph.initializers)
