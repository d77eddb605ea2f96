"""ELU: y = x above 0, alpha (exp(x) - 1) below."""

from __future__ import annotations

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks


def _model() -> keras.Model:
    return keras.Sequential([keras.Input((None, 6)), keras.layers.Dense(4), keras.layers.ELU(0.3)])


@rule(
    "onnx",
    keras.layers.ELU,
    cases=(Case("alpha", _model, ops={"MatMul": 1, "Add": 1, "Elu": 1}, absent=("Where", "Mul", "Cast")),),
)
def lower(ctx: Context, layer: keras.layers.ELU, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: any shape -> the same shape."""
    del masks
    return ctx.op("Elu", inputs[0], alpha=float(layer.alpha))
