"""BatchNormalization at inference: y = s x + t, s = gamma / sqrt(moving_variance + epsilon), t = beta - s moving_mean.

The clean-up folds both into the Dense or Conv before them, or the Dense after.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks


def _model(*stack: Callable[[], keras.Layer], shape: tuple[int | None, ...] = (None, 6)) -> keras.Model:
    layers = [make() for make in stack]
    model = keras.Sequential([keras.Input(shape), *layers])
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(keras.random.uniform(weight.shape, 0.5, 2.0))
    return model


def _dense(activation: str | None = None) -> Callable[[], keras.Layer]:
    return lambda: keras.layers.Dense(5, activation=activation)


def _conv(**options: object) -> Callable[[], keras.Layer]:
    return lambda: keras.layers.Conv1D(5, 3, **options)


_NORM = keras.layers.BatchNormalization
_FOLDED = {"MatMul": 1, "Add": 1}


@rule(
    "onnx",
    keras.layers.BatchNormalization,
    cases=(
        Case("alone", lambda: _model(_NORM), ops={"Mul": 1, "Add": 1}, absent=("Sqrt", "Sub", "Reciprocal")),
        Case("inner_axis", lambda: _model(lambda: _NORM(axis=1), shape=(5, None)), ops={"Mul": 1, "Add": 1}),
        Case("after_dense", lambda: _model(_dense(), _NORM), ops=_FOLDED, absent=("Mul",)),
        Case("before_dense", lambda: _model(_NORM, _dense()), ops=_FOLDED, absent=("Mul",)),
        Case("after_conv", lambda: _model(_conv(padding="same"), _NORM), ops={"Conv": 1}, absent=("Mul", "Add")),
        Case("after_bare_conv", lambda: _model(_conv(use_bias=False), _NORM), ops={"Conv": 1}, absent=("Mul", "Add")),
        Case(
            "after_relu",
            lambda: _model(_dense("relu"), _NORM, _dense()),
            ops={"MatMul": 2, "Add": 2, "Relu": 1},
            absent=("Mul",),
        ),
        Case("after_relu_alone", lambda: _model(_dense("relu"), _NORM), ops={"Mul": 1, "Add": 2, "Relu": 1}),
    ),
)
def lower(ctx: Context, layer: keras.layers.BatchNormalization, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: any shape -> the same shape."""
    del masks
    x = inputs[0]
    rank = len(ctx.shape(x))
    sizes = [-1] + [1] * (rank - 1 - layer.axis % rank)
    statistics = [layer.moving_variance, *([layer.gamma] if layer.scale else ())]

    def factor(variance: np.ndarray, gamma: np.ndarray | float = 1.0) -> np.ndarray:
        return np.asarray(gamma / np.sqrt(variance.astype("float64") + layer.epsilon))

    def scale(*values: np.ndarray) -> np.ndarray:
        return factor(*values).astype("float32").reshape(sizes)

    def shift(mean: np.ndarray, *values: np.ndarray) -> np.ndarray:
        beta, rest = (values[0], values[1:]) if layer.center else (0.0, values)
        return np.asarray(beta - mean * factor(*rest)).astype("float32").reshape(sizes)

    offsets = [layer.moving_mean, *([layer.beta] if layer.center else ()), *statistics]
    y = ctx.op("Mul", x, ctx.weight(statistics, scale, "scale"))
    return ctx.op("Add", y, ctx.weight(offsets, shift, "shift"))
