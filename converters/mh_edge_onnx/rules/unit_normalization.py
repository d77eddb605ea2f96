"""UnitNormalization: y = x / max(|x|, 1e-12), the length over the axes."""

from __future__ import annotations

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.reducing import reduced

_SHORTEST = 1e-12
"""Keras divides by no less."""


def _model(axis: int | tuple[int, ...]) -> keras.Model:
    return keras.Sequential([keras.Input((None, 6)), keras.layers.UnitNormalization(axis), keras.layers.Dense(3)])


@rule(
    "onnx",
    keras.layers.UnitNormalization,
    cases=(
        Case("last", lambda: _model(-1), ops={"ReduceL2": 1, "Max": 1, "Div": 1}, absent=("Sqrt", "Reciprocal")),
        Case("two_axes", lambda: _model((1, 2)), ops={"ReduceL2": 1, "Max": 1, "Div": 1}, absent=("Sqrt",)),
    ),
)
def lower(ctx: Context, layer: keras.layers.UnitNormalization, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: any shape -> the same shape."""
    del masks
    axes = [layer.axis] if isinstance(layer.axis, int) else layer.axis
    length = reduced(ctx, "ReduceL2", inputs[0], axes, keepdims=True)
    return ctx.op("Div", inputs[0], ctx.op("Max", length, ctx.constant(_SHORTEST, "float32")))
