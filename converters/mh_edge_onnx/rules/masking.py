"""Masking: y_t = x_t where any of x_t differs from the mask value, else 0."""

from __future__ import annotations

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.reducing import reduced


def _finite(layer: keras.layers.Masking) -> str | None:
    value = layer.mask_value
    if not isinstance(value, int | float) or value - value != 0:
        return f"its mask value is {value!r}, not a finite number"
    return None


def _model(value: float) -> keras.Model:
    x = keras.Input((None, 4))
    y = keras.layers.Masking(value)(x)
    return keras.Model(x, [keras.layers.Dense(3)(y), keras.layers.GlobalAveragePooling1D()(y)])


_LITTER = ("Equal", "Not", "Greater", "Mul")


@rule(
    "onnx",
    keras.layers.Masking,
    applies=_finite,
    cases=(
        # The mean of the steps that are there is what the mask is for; the mask itself is ReduceL1 and Cast.
        Case("zero", lambda: _model(0.0), ops={"ReduceL1": 1, "Where": 1, "Sub": 0}, absent=_LITTER),
        Case("value", lambda: _model(-1.5), ops={"Sub": 1, "ReduceL1": 1, "Where": 2}, absent=_LITTER),
    ),
)
def lower(ctx: Context, layer: keras.layers.Masking, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: (batch, time, ...) -> the same. What is dropped for the mask value 0 is 0 already, so nothing is done."""
    del masks
    x = inputs[0]
    if layer.mask_value == 0:
        return x
    value = ctx.constant(layer.mask_value, "float32")
    difference = reduced(ctx, "ReduceL1", ctx.op("Sub", x, value), [-1], keepdims=False)
    last = len(ctx.shape(x)) - 1  # counted as Keras's own users of a mask count it, so that they share the operation
    kept = ctx.op("Unsqueeze", ctx.op("Cast", difference, to=ir.DataType.BOOL), ctx.constant([last]))
    return ctx.op("Where", kept, x, ctx.constant(0, "float32"))
