"""TimeDistributed: y[:, t] = L(x[:, t]) for every step t, as one call of L on batch times time rows."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks


def _no_mask_inside(layer: keras.layers.TimeDistributed) -> str | None:
    if "mask" in layer.layer._call_signature.parameters:
        return f"it wraps {type(layer.layer).__name__}, which takes a mask of its own for each step"
    return None


def _model(inner: Any, shape: tuple[int | None, ...]) -> keras.Model:
    return keras.Sequential([keras.Input(shape), keras.layers.TimeDistributed(inner)])


@rule(
    "onnx",
    keras.layers.TimeDistributed,
    applies=_no_mask_inside,
    cases=(
        Case("dense", lambda: _model(keras.layers.Dense(4), (None, 6)), ops={"MatMul": 1}, absent=("Reshape", "Loop")),
        Case("conv", lambda: _model(keras.layers.Conv2D(4, 3), (None, 8, 8, 3)), ops={"Conv": 1}, absent=("Loop",)),
        Case(
            "free",
            lambda: _model(keras.layers.Conv2D(4, 3, padding="same"), (None, None, None, 3)),
            ops={"Conv": 1},
            absent=("Loop",),
        ),
        Case("norm", lambda: _model(keras.layers.LayerNormalization(), (None, 6)), absent=("Loop",)),
    ),
)
def lower(ctx: Context, layer: keras.layers.TimeDistributed, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: (batch, time, ...) -> (batch, time, output of L...)."""
    del masks
    x = inputs[0]
    if type(layer.layer) is keras.layers.Dense:
        # Dense treats every leading axis alike.
        return ctx.call(layer.layer, (x,))[0]
    rows = ctx.op("Reshape", x, ctx.op("Concat", ctx.constant([-1]), _sizes(ctx, x, 2), axis=0))
    rows.shape = ir.Shape([None, *ctx.shape(x)[2:]])
    y = ctx.call(layer.layer, (rows,))[0]
    leading = ctx.op("Shape", x, start=0, end=2)
    return ctx.op("Reshape", y, ctx.op("Concat", leading, _sizes(ctx, y, 1), axis=0))


def _sizes(ctx: Context, value: ir.Value, start: int) -> ir.Value:
    """The sizes from axis `start` on: a constant where they are all known."""
    sizes = ctx.shape(value)[start:]
    known = [size for size in sizes if isinstance(size, int)]
    return ctx.constant(known) if len(known) == len(sizes) else ctx.op("Shape", value, start=start)
