"""GroupNormalization: y = (x - mean) / sqrt(var + epsilon) * gamma + beta, mean and variance over each group of
channels and all places.
"""

from __future__ import annotations

import keras
import numpy as np
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks


def _channels_last(layer: keras.layers.GroupNormalization) -> str | None:
    return None if layer.axis == -1 else f"its channels are on axis {layer.axis}, not the last"


def _model(shape: tuple[int | None, ...], **options: object) -> keras.Model:
    layer = keras.layers.GroupNormalization(3, **options)
    model = keras.Sequential([keras.Input(shape), layer])
    for weight in layer.weights:
        weight.assign(keras.random.normal(weight.shape, 1.0, 0.5))
    return model


def _behind() -> keras.Model:
    """Behind an operation whose width the converter does not know."""
    inner = keras.layers.TimeDistributed(keras.layers.LayerNormalization())
    return keras.Sequential([keras.Input((None, 6)), inner, keras.layers.GroupNormalization(3)])


_OPS = {"InstanceNormalization": 1, "Reshape": 2, "Transpose": 2, "Mul": 1, "Add": 1}
_LITTER = ("ReduceMean", "Sqrt", "Sub", "Cast")


@rule(
    "onnx",
    keras.layers.GroupNormalization,
    applies=_channels_last,
    cases=(
        Case("rows", lambda: _model((None, 6)), ops=_OPS, absent=(*_LITTER, "Shape")),
        Case("image", lambda: _model((None, None, 6)), ops=_OPS | {"Shape": 1}, absent=_LITTER),
        Case("bare", lambda: _model((None, 6), center=False, scale=False), ops=_OPS | {"Mul": 0, "Add": 0}),
        Case("behind", _behind, ops=_OPS | {"Reshape": 4}, absent=_LITTER),
        Case("vector", lambda: _model((6,)), ops=_OPS | {"Transpose": 0}, absent=_LITTER),
    ),
)
def lower(ctx: Context, layer: keras.layers.GroupNormalization, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: (batch, ..., channels) -> the same, as one InstanceNormalization whose channels are the groups.

    ONNX's own GroupNormalization is no kernel of ONNX Runtime, and began to mean this in opset 21.
    """
    del masks
    x, groups = inputs[0], layer.groups
    width = layer.input_spec.axes[layer.axis]
    sizes = [*ctx.shape(x)[:-1], width]
    places = len(sizes) > 2
    split = [0, -1, groups, width // groups] if places else [0, groups, -1]
    y = ctx.op("Reshape", x, ctx.constant(split))
    if places:
        y = ctx.op("Transpose", y, perm=[0, 2, 1, 3])
    ones, zeros = (ctx.constant(np.full(groups, value), "float32") for value in (1, 0))
    y = ctx.op("InstanceNormalization", y, ones, zeros, epsilon=layer.epsilon)
    if places:
        y = ctx.op("Transpose", y, perm=[0, 2, 1, 3])
    inner = [size if isinstance(size, int) else -1 for size in sizes[1:]]
    y = ctx.op("Reshape", y, ctx.constant([0, *inner]) if inner.count(-1) < 2 else ctx.op("Shape", x))
    if layer.scale:
        y = ctx.op("Mul", y, ctx.weight(layer.gamma))
    return ctx.op("Add", y, ctx.weight(layer.beta)) if layer.center else y
