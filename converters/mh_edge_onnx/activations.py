"""Keras activations as ONNX operations.

An activation that is not listed is not lost: the caller traces the Keras function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import keras

from mh_edge.layers.keras2_hard_sigmoid import keras2_hard_sigmoid

if TYPE_CHECKING:
    import onnx_ir as ir

    from mh_edge_onnx.context import Context

_act = keras.activations
_FLOAT = 1
"""ONNX's number of float32."""

_SINGLE: Mapping[Callable[..., Any], tuple[str, dict[str, Any]]] = {
    _act.relu: ("Relu", {}),
    _act.sigmoid: ("Sigmoid", {}),
    _act.tanh: ("Tanh", {}),
    _act.softsign: ("Softsign", {}),
    _act.softplus: ("Softplus", {}),
    _act.elu: ("Elu", {"alpha": 1.0}),
    _act.selu: ("Selu", {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}),
    _act.celu: ("Elu", {"alpha": 1.0}),
    _act.leaky_relu: ("LeakyRelu", {"alpha": 0.2}),
    _act.hard_sigmoid: ("HardSigmoid", {"alpha": 1.0 / 6.0, "beta": 0.5}),
    _act.sparse_sigmoid: ("HardSigmoid", {"alpha": 0.5, "beta": 0.5}),
    keras2_hard_sigmoid: ("HardSigmoid", {"alpha": 0.2, "beta": 0.5}),
    _act.exponential: ("Exp", {}),
    _act.softmax: ("Softmax", {"axis": -1}),
    _act.log_softmax: ("LogSoftmax", {"axis": -1}),
    _act.mish: ("Mish", {}),
    _act.hard_silu: ("HardSwish", {}),
}
"""Activation -> (operation, attributes); Keras's own default parameters."""

_SINCE = {"Mish": 18, "Gelu": 20}
"""First opset of the operations that opset 17 does not have."""


class Writer(Protocol):
    """What writes operations: the Context of a rule, and the clean-up."""

    opset: int

    def op(self, op_type: str, *inputs: ir.Value) -> ir.Value: ...

    def constant(self, value: float, dtype: str) -> ir.Value: ...


def lower(ctx: Context, function: Callable[..., Any], x: ir.Value) -> ir.Value | None:
    """The activation's operations, or None when it is not one of Keras's own that ONNX expresses."""
    if function is _act.linear:
        return x
    if function in _SINGLE:
        op_type, attributes = _SINGLE[function]
        if ctx.opset >= _SINCE.get(op_type, 0):
            return ctx.op(op_type, x, **attributes)
    return _SEVERAL[function](ctx, x) if function in _SEVERAL else None


def rectified(
    ctx: Context, x: ir.Value, slope: float = 0.0, maximum: float | None = None, threshold: float = 0.0
) -> ir.Value:
    """Where x > threshold: x, at least 0 and at most `maximum` if there is one; else slope (x - threshold).

    Without a threshold what is above is never negative, so nothing is bounded from below.
    """
    limit = (lambda y: y) if maximum is None else (lambda y: clipped(ctx, y, 0.0, maximum))
    if slope and threshold:
        edge = ctx.constant(threshold, "float32")
        below = ctx.op("Mul", ctx.op("Sub", x, edge), ctx.constant(slope, "float32"))
        return ctx.op("Where", ctx.op("Greater", x, edge), limit(x), below)
    if slope:
        leaky = ctx.op("LeakyRelu", x, alpha=slope)
        return leaky if maximum is None else ctx.op("Min", leaky, ctx.constant(maximum, "float32"))
    if threshold:
        return limit(ctx.op("ThresholdedRelu", x, alpha=threshold))
    return ctx.op("Relu", x) if maximum is None else limit(x)


def clipped(ctx: Context, x: ir.Value, low: float, high: float) -> ir.Value:
    """min(max(x, low), high)."""
    return ctx.op("Clip", x, ctx.constant(low, "float32"), ctx.constant(high, "float32"))


def gelu(ctx: Writer, x: ir.Value) -> ir.Value:
    """x (1 + erf(x / sqrt 2)) / 2; before opset 20 in the form that ONNX Runtime fuses when it opens the file."""
    if ctx.opset >= _SINCE["Gelu"]:
        return ctx.op("Gelu", x)
    erf = ctx.op("Erf", ctx.op("Div", x, ctx.constant(2**0.5, "float32")))
    return ctx.op("Mul", ctx.op("Mul", x, ctx.op("Add", erf, ctx.constant(1, "float32"))), ctx.constant(0.5, "float32"))


def _beyond(ctx: Context, x: ir.Value) -> ir.Value:
    """x above a half, else 0."""
    return ctx.op("ThresholdedRelu", x, alpha=0.5)


def _sparse_plus(ctx: Context, x: ir.Value) -> ir.Value:
    """h(x)^2 below 1, x from there on, h(x) = (x + 1) / 2 within 0 and 1."""
    half = ctx.op("HardSigmoid", x, alpha=0.5, beta=0.5)
    return ctx.op("Where", ctx.op("Less", x, ctx.constant(1, "float32")), ctx.op("Mul", half, half), x)


def _sparsemax(ctx: Context, x: ir.Value) -> ir.Value | None:
    """max(x - t, 0), t = (the sum of c_k over the n taken - 1) / n, where c_k sums the k largest of the last axis, z_k
    is the k-th, and taken is where z_k > (c_k - 1) / k.

    Keras 3.15 sums all c_k taken; Martins and Astudillo (2016) have the last alone.
    """
    size = ctx.shape(x)[-1]
    if not isinstance(size, int):
        return None
    one, last = ctx.constant(1, "float32"), ctx.constant([-1])
    largest, _ = ctx.ops("TopK", x, ctx.constant([size]), outputs=2, axis=-1)
    sums = ctx.op("CumSum", largest, ctx.constant(-1))
    means = ctx.op("Div", ctx.op("Sub", sums, one), ctx.constant(range(1, size + 1), "float32"))
    taken = ctx.op("Cast", ctx.op("Greater", largest, means), to=_FLOAT)
    total = ctx.op("ReduceSum", ctx.op("Mul", sums, taken), last)
    threshold = ctx.op("Div", ctx.op("Sub", total, one), ctx.op("ReduceSum", taken, last))
    return ctx.op("Relu", ctx.op("Sub", x, threshold))


_SEVERAL: Mapping[Callable[..., Any], Callable[[Context, ir.Value], ir.Value | None]] = {
    _act.silu: lambda ctx, x: ctx.op("Mul", x, ctx.op("Sigmoid", x)),
    _act.gelu: gelu,
    # Shrink takes four times as long in ONNX Runtime, value by value.
    _act.hard_shrink: lambda ctx, x: ctx.op("Sub", _beyond(ctx, x), _beyond(ctx, ctx.op("Neg", x))),
    _act.soft_shrink: lambda ctx, x: ctx.op("Sub", x, clipped(ctx, x, -0.5, 0.5)),
    _act.relu6: lambda ctx, x: clipped(ctx, x, 0, 6),
    _act.hard_tanh: lambda ctx, x: clipped(ctx, x, -1, 1),
    _act.sparse_plus: _sparse_plus,
    _act.sparsemax: _sparsemax,
}
"""Activation -> what builds it of several operations, or None where it cannot."""


# What the recurrent operations of ONNX take: name, then alpha and beta where the function has them. Not softplus, whose
# exp overflows within ONNX Runtime's.
_RECURRENT: Mapping[Callable[..., Any], tuple[str, float | None, float | None]] = {
    _act.sigmoid: ("Sigmoid", None, None),
    _act.tanh: ("Tanh", None, None),
    _act.relu: ("Relu", None, None),
    _act.softsign: ("Softsign", None, None),
    _act.elu: ("Elu", 1.0, None),
    _act.leaky_relu: ("LeakyRelu", 0.2, None),
    _act.hard_sigmoid: ("HardSigmoid", 1.0 / 6.0, 0.5),
    keras2_hard_sigmoid: ("HardSigmoid", 0.2, 0.5),
    _act.linear: ("Affine", 1.0, 0.0),
}


def recurrent(functions: list[Callable[..., Any]]) -> dict[str, Any] | None:
    """Attributes `activations`, `activation_alpha`, `activation_beta` of LSTM, GRU and RNN; None when one is not
    expressible.
    """
    if any(function not in _RECURRENT for function in functions):
        return None
    found = [_RECURRENT[function] for function in functions]
    attributes: dict[str, Any] = {"activations": [name for name, _, _ in found]}
    alphas = [alpha for _, alpha, _ in found if alpha is not None]
    betas = [beta for _, _, beta in found if beta is not None]
    if alphas:
        attributes["activation_alpha"] = alphas
    if betas:
        attributes["activation_beta"] = betas
    return attributes
