"""Constants that no integers stand for: one scale covers all of a table, or all that leads to one output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from mh_edge.quantization.onnx.model import weights

if TYPE_CHECKING:
    import onnx

LARGEST_ROW = 1000.0
"""Embeddings are far smaller; -1e4 hides something, and beside it one scale leaves nothing of the rest."""

MASKING = f"its table holds entries beyond {LARGEST_ROW:.0f}, as masks do"
NOT_FINITE = "a constant of it holds NaN or infinity, which no integer stands for"

HIDDEN_ROWS = (
    "it holds -infinity: a row that a mask of it hides wholly is NaN in the float file, and may be "
    "numbers without meaning in this one"
)


def unfit(model: onnx.ModelProto, operations: Iterable[onnx.NodeProto]) -> dict[str, str]:
    """Those of the operations whose float constants no integers stand for -> why."""
    constants, why = weights(model), {}
    largest: dict[str, float] = {}
    for node in operations:
        for name in node.input:
            if name in constants and name not in largest:
                largest[name] = _largest(constants[name])
        sizes = [largest[name] for name in node.input if name in largest]
        if not np.isfinite(sizes).all():
            why[node.name] = NOT_FINITE
        elif node.op_type == "Gather" and sizes and sizes[0] >= LARGEST_ROW:
            why[node.name] = MASKING
    return why


def holds_infinity(model: onnx.ModelProto) -> bool:
    """Whether a float constant holds -infinity, as masks do."""
    return any(bool(np.isneginf(_values(tensor)).any()) for tensor in weights(model).values())


def _largest(tensor: onnx.TensorProto) -> float:
    """NaN when it holds one."""
    return float(np.abs(_values(tensor)).max(initial=0.0))


def _values(tensor: onnx.TensorProto) -> np.ndarray:
    """The numbers of a float tensor; none of any other."""
    from onnx import TensorProto, numpy_helper

    return numpy_helper.to_array(tensor) if tensor.data_type == TensorProto.FLOAT else np.zeros(0, np.float32)
