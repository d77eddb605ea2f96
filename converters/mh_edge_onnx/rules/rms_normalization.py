"""RMSNormalization: y = x / sqrt(mean(x^2) + epsilon) * scale, the mean over the last axes."""

from __future__ import annotations

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.reducing import reduced

_SINCE = 23
"""First opset with the operation of that name."""


def _last_axes(layer: keras.layers.RMSNormalization) -> str | None:
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    return None if axes == list(range(-len(axes), 0)) else f"its axes {axes} are not the last, counted from the end"


def _model(axis: int | tuple[int, ...]) -> keras.Model:
    layer = keras.layers.RMSNormalization(axis)
    model = keras.Sequential([keras.Input((None, 4, 6)), layer])
    layer.scale.assign(keras.random.normal(layer.scale.shape, 1.0, 0.5))
    return model


_ONE = {"RMSNormalization": 1}
_LITTER = ("ReduceMean", "Mul", "Sqrt", "Reciprocal")


@rule(
    "onnx",
    keras.layers.RMSNormalization,
    applies=_last_axes,
    cases=(
        Case("last", lambda: _model(-1), ops=_ONE, absent=_LITTER),
        Case("two_axes", lambda: _model((-2, -1)), ops=_ONE, absent=_LITTER),
    ),
)
def lower(ctx: Context, layer: keras.layers.RMSNormalization, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: any shape -> the same shape. Before opset 23 in the form that ONNX Runtime fuses when it opens the file."""
    del masks
    x, scale = inputs[0], ctx.weight(layer.scale)
    if ctx.opset >= _SINCE:
        return ctx.op("RMSNormalization", x, scale, axis=layer.axis[0], epsilon=layer.epsilon)
    square = ctx.op("Pow", x, ctx.constant(2, "float32"))
    mean = reduced(ctx, "ReduceMean", square, layer.axis, keepdims=True)
    root = ctx.op("Sqrt", ctx.op("Add", mean, ctx.constant(layer.epsilon, "float32")))
    return ctx.op("Mul", ctx.op("Div", x, root), scale)
