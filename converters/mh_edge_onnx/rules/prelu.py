"""PReLU: y = x above 0, alpha x below, alpha a weight for each place that shared_axes do not share."""

from __future__ import annotations

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks


def _model() -> keras.Model:
    layer = keras.layers.PReLU("normal", shared_axes=[1])
    return keras.Sequential([keras.Input((None, 6)), keras.layers.Dense(4), layer])


@rule("onnx", keras.layers.PReLU, cases=(Case("shared", _model, ops={"PRelu": 1}, absent=("Relu", "Neg", "Mul")),))
def lower(ctx: Context, layer: keras.layers.PReLU, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: (batch, ...) -> the same."""
    del masks
    return ctx.op("PRelu", inputs[0], ctx.weight(layer.alpha))
