"""Activation: y = f(x)."""

from __future__ import annotations

import keras
import onnx_ir as ir

from mh_edge.rules import Case, rule
from mh_edge_onnx.context import Context, Inputs, Masks


def _case(name: str, **ops: int) -> Case:
    def build() -> keras.Model:
        # The matrix product gives each case a weight, so that a wrong one can be told.
        return keras.Sequential([keras.Input((None, 6)), keras.layers.Dense(6), keras.layers.Activation(name)])

    absent = {"Cast", "Greater", "Shape", "ConstantOfShape", "Min", "Max", "Neg", "Pow"} - set(ops)
    return Case(name, build, {"MatMul": 1, "Add": 1} | ops, tuple(sorted(absent)))


@rule(
    "onnx",
    keras.layers.Activation,
    cases=(
        _case("celu", Elu=1),
        _case("gelu", Gelu=1, Mul=0),
        _case("glu", Split=1, Sigmoid=1, Mul=1),
        _case("hard_shrink", ThresholdedRelu=2, Neg=1, Sub=1),
        _case("hard_sigmoid", HardSigmoid=1),
        _case("hard_silu", HardSwish=1),
        _case("hard_tanh", Clip=1),
        _case("mish", Mish=1),
        _case("relu6", Clip=1),
        _case("silu", Sigmoid=1, Mul=1),
        _case("soft_shrink", Clip=1, Sub=1),
        _case("sparse_plus", HardSigmoid=1, Mul=1, Less=1, Where=1),
        _case("sparse_sigmoid", HardSigmoid=1, Mul=0),
        _case("sparsemax", TopK=1, CumSum=1, Sub=3, Div=2, Greater=1, Cast=1, Mul=1, ReduceSum=2, Relu=1),
        _case("squareplus", Mul=2, Add=3, Sqrt=1),
    ),
)
def lower(ctx: Context, layer: keras.layers.Activation, inputs: Inputs, masks: Masks) -> ir.Value:
    """x: any shape -> the same shape (glu: half of the last axis)."""
    del masks
    return ctx.activation(layer.activation, inputs[0])
