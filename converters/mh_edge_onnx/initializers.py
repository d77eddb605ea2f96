"""Weights as initializers whose bytes stay where they are until the file is written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir


def lazy_tensor(name: str, read: Callable[[], np.ndarray], dtype: ir.DataType, shape: ir.Shape) -> ir.LazyTensor:
    """A tensor that asks `read` for its numbers each time they are needed, and keeps none of them."""
    return ir.LazyTensor(lambda: ir.tensor(read(), name=name), dtype=dtype, shape=shape, name=name)


def initializer(name: str, tensor: ir.LazyTensor) -> ir.Value:
    """A value of this name that holds the tensor."""
    return ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
