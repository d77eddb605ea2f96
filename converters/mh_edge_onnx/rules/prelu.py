"""PReLU: y = x above 0, alpha x below, alpha a weight for each place that shared_axes do not share."""

from __future__ import annotations

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks


def _model() -> keras.Model:
    layer = keras.layers.PReLU("normal", shared_axes=[1])
    return keras.Sequential([keras.Input((None, 6)), keras.layers.Dense(4), layer])


@rule(
    "onnx",
    keras.layers.PReLU,
    cases=(Case("shared", _model, ops={"Relu": 1, "Min": 1, "Mul": 1, "Add": 2}, absent=("Neg", "PRelu")),),
)
def lower(ctx: Context, layer: keras.layers.PReLU, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: (batch, ...) -> the same. ONNX Runtime's CPU takes .42 of the time for max(x, 0) + alpha min(x, 0)."""
    del masks
    x, alpha = inputs[0], ctx.weight(layer.alpha)
    if ctx.runtime != "cpu":
        return ctx.op("PRelu", x, alpha)
    below = ctx.op("Mul", ctx.op("Min", x, ctx.constant(0, "float32")), alpha)
    return ctx.op("Add", ctx.op("Relu", x), below)
