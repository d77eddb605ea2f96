"""Whether the tables of a .tflite file lead somewhere: the object API reads them without a look at where."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Any

DAMAGE = (
    struct.error,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    UnicodeDecodeError,
    OverflowError,
    MemoryError,
)
"""What reading a damaged table ends in; TypeError and AttributeError: an offset that leads nowhere gives None."""

FLOAT_BYTES = 4


def check_tables(model: Any, float_type: int) -> None:
    """Raises ValueError with what is wrong, or one of DAMAGE. float_type: the number of 32-bit floats."""
    for graph in model.subgraphs:
        count = len(graph.tensors)
        for tensor in graph.tensors:
            (tensor.name or b"").decode()
            _within([tensor.buffer], len(model.buffers), "buffer")
            shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
            data = model.buffers[tensor.buffer].data
            if any(size < 0 for size in shape):
                raise ValueError(f"the tensor {tensor.name!r} has the shape {shape}")
            if tensor.type == float_type and data is not None and len(data) not in (0, FLOAT_BYTES * math.prod(shape)):
                raise ValueError(f"the tensor {tensor.name!r} of shape {shape} has {len(data)} bytes")
        _within([*graph.inputs, *graph.outputs], count, "tensor")
        for operator in graph.operators:
            _within([operator.opcodeIndex], len(model.operatorCodes), "operator code")
            _within((index for index in (*operator.inputs, *operator.outputs) if index != -1), count, "tensor")


def _within(numbers: Iterable[int], count: int, what: str) -> None:
    for number in numbers:
        if not 0 <= number < count:
            raise ValueError(f"there is no {what} {number}, only {count}")
