"""LayerNormalization: y = (x - mean) / sqrt(var + epsilon) * gamma + beta, mean and variance over the axes."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks
from mh_edge_onnx.reducing import trailing


def _plain(layer: keras.layers.LayerNormalization) -> str | None:
    axes = [layer.axis] if isinstance(layer.axis, int) else layer.axis
    if layer.rms_scaling:
        return "rms_scaling divides by the deviation without taking the mean away"
    return f"its axes {axes} count from both ends" if min(axes) < 0 <= max(axes) else None


def _model(shape: tuple[int | None, ...], **options: object) -> keras.Model:
    scattered = keras.initializers.RandomNormal(1.0, 0.5)
    if options.get("scale", True):
        options |= {"gamma_initializer": scattered, "beta_initializer": scattered}
    return keras.Sequential([keras.Input(shape), keras.layers.LayerNormalization(**options)])


_ONE = {"LayerNormalization": 1}
_LITTER = ("ReduceMean", "Sqrt", "Sub", "Mul", "Add", "Reshape", "Cast")


@rule(
    "onnx",
    keras.layers.LayerNormalization,
    applies=_plain,
    cases=(
        Case("last", lambda: _model((None, 6)), ops=_ONE, absent=(*_LITTER, "Transpose")),
        Case("bare", lambda: _model((None, 6), center=False, scale=False), ops=_ONE, absent=(*_LITTER, "Transpose")),
        Case("two_axes", lambda: _model((None, 4, 6), axis=(2, 3)), ops=_ONE, absent=(*_LITTER, "Transpose")),
        Case("inner_axis", lambda: _model((5, None), axis=1), ops=_ONE | {"Transpose": 2}, absent=_LITTER),
    ),
)
def lower(ctx: Context, layer: keras.layers.LayerNormalization, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: any shape -> the same shape, as one operation, which knows the last axes alone."""
    del masks
    return trailing(ctx, inputs[0], layer.axis, partial(_normalised, ctx, layer))


def _normalised(ctx: Context, layer: keras.layers.LayerNormalization, x: ir.Value, first: int) -> ir.Value:
    sizes = [size for size in ctx.shape(x)[first:] if isinstance(size, int)]
    gamma = ctx.constant(np.ones(sizes), "float32") if layer.gamma is None else ctx.weight(layer.gamma)
    beta = None if layer.beta is None else ctx.weight(layer.beta)
    return ctx.op("LayerNormalization", x, gamma, beta, axis=first, epsilon=layer.epsilon)
