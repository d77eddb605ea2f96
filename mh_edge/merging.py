"""Which heads of a MultiHead compute the same thing with other weights, so that one wide operation can do them all.

groups(layer) cuts the heads into groups that agree in everything but their weights. What a merged operation needs of
them, whatever the target: the weights side by side. Channel u of head n becomes channel u·N + n, so that the wide
result (..., u·N) is already (..., u, N).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from mh_edge.layers import MultiHead
from mh_edge.layers.keras2_hard_sigmoid import keras2_hard_sigmoid
from mh_edge.recurrence import zeroed_elsewhere

_act = keras.activations

ELEMENTWISE = frozenset(
    {
        *(_act.linear, _act.relu, _act.relu6, _act.leaky_relu, _act.elu, _act.selu, _act.celu, _act.gelu, _act.silu),
        *(_act.mish, _act.sigmoid, _act.hard_sigmoid, _act.hard_silu, _act.hard_tanh, _act.tanh, _act.tanh_shrink),
        *(_act.softplus, _act.softsign, _act.exponential, _act.squareplus, keras2_hard_sigmoid),
    }
)
"""Activations that act on each number alone, and so on interleaved channels too."""

DENSE, CONVOLUTION, RECURRENT, BIDIRECTIONAL = "dense", "convolution", "recurrent", "bidirectional"
"""The kinds of groups that have a merged form."""

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_RECURRENT_LAYERS = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)


@dataclass(frozen=True)
class Group:
    """Heads that agree. kind: DENSE, CONVOLUTION, RECURRENT, BIDIRECTIONAL, or None where there is no merged form;
    numbers: their places among all heads; heads: the layers, TimeDistributed(Dense) as the Dense it is; reason: why
    they are alone, in a sentence, or None.
    """

    kind: str | None
    numbers: tuple[int, ...]
    heads: tuple[Any, ...]
    reason: str | None = None


def groups(layer: MultiHead) -> tuple[Group, ...]:
    """The heads of a MultiHead, those that can be one operation together, in the order of their first heads."""
    heads = [_inner(head) for head in layer.layers]
    traits = [_traits(head) for head in heads]
    found: list[list[int]] = []
    for number, one in enumerate(traits):
        match = [group for group in found if isinstance(one, dict) and traits[group[0]] == one]
        if match:
            match[0].append(number)
        else:
            found.append([number])
    made = []
    for numbers in found:
        one = traits[numbers[0]]
        kind = one["kind"] if isinstance(one, dict) else None
        reason = one if isinstance(one, str) else None
        if len(numbers) == 1 and reason is None and len(heads) > 1:
            reason = _difference(traits, numbers[0])
        made.append(Group(kind, tuple(numbers), tuple(heads[number] for number in numbers), reason))
    return tuple(made)


def kind_of(layer: Any) -> str | None:
    """The kind of group that a layer can be in; None for one that has no merged form."""
    traits = _traits(_inner(layer))
    return None if isinstance(traits, str) else str(traits["kind"])


def _inner(head: Any) -> Any:
    wrapped = type(head) is keras.layers.TimeDistributed and type(head.layer) is keras.layers.Dense
    return head.layer if wrapped else head


def _difference(traits: Sequence[dict[str, Any] | str], number: int) -> str:
    """What sets this head apart from another one."""
    own = traits[number]
    other, other_traits = next((at, one) for at, one in enumerate(traits) if at != number)
    if not isinstance(own, dict) or not isinstance(other_traits, dict):
        return f"no other head is like head {number}"
    name = next(name for name, value in own.items() if other_traits.get(name) != value)
    return f"head {number} has {name}={_said(own[name])}, head {other} has {_said(other_traits.get(name))}"


def _said(value: Any) -> str:
    return str(getattr(value, "__name__", value)) if callable(value) else str(value)


def _traits(head: Any) -> dict[str, Any] | str:
    """What two heads must have in common to be one operation, or why this one never is."""
    kind, name = type(head), type(head).__name__
    common = {"layer": name, "dtype": (head.compute_dtype, head.variable_dtype)}
    if kind is keras.layers.Dense:
        return _adapted(head) or _elementwise(head) or {**common, "kind": DENSE, **_affine(head)}
    if kind in (*_CONVOLUTIONS, *_SEPARABLE, *_DEPTHWISE):
        if head.data_format != "channels_last":
            return f"its data_format is {head.data_format}"
        return _adapted(head) or _elementwise(head) or {**common, "kind": CONVOLUTION, **_convolution(head)}
    if kind in _RECURRENT_LAYERS:
        return zeroed_elsewhere(head) or _elementwise(head) or {**common, "kind": RECURRENT, **_recurrent(head)}
    if kind is keras.layers.Bidirectional and type(head.forward_layer) in _RECURRENT_LAYERS:
        first, second = head.forward_layer, head.backward_layer
        if (reason := zeroed_elsewhere(first) or zeroed_elsewhere(second)) is not None:
            return reason
        if type(first) is not type(second) or {**_recurrent(first), "go_backwards": True} != _recurrent(second):
            return "its two directions are not of one kind and size"
        if (reason := _elementwise(first)) is not None:
            return reason
        wrapped = {"layer": f"Bidirectional({type(first).__name__})", "merge_mode": head.merge_mode}
        return {**common, "kind": BIDIRECTIONAL, **wrapped, **_recurrent(first)}
    return f"no form of several {name} at once is known to be faster"


def _adapted(head: Any) -> str | None:
    if getattr(head, "quantization_mode", None) is not None:
        return f"its kernel is quantized ({head.quantization_mode})"
    return "its kernel is adapted by LoRA" if getattr(head, "lora_enabled", False) else None


def _elementwise(head: Any) -> str | None:
    functions = [head.activation, getattr(head, "recurrent_activation", None) or _act.linear]
    joining = [_said(function) for function in functions if function not in ELEMENTWISE]
    return f"its activation {joining[0]} is not known to act on each number alone" if joining else None


def _affine(head: Any) -> dict[str, Any]:
    return {"activation": head.activation, "use_bias": head.use_bias}


def _recurrent(head: Any) -> dict[str, Any]:
    """Everything the operation is told beyond its weights."""
    names = ("units", "activation", "recurrent_activation", "reset_after", "return_sequences", "go_backwards")
    return {name: getattr(head, name, None) for name in (*names, "zero_output_for_mask", "use_bias", "stateful")}


def _convolution(head: Any) -> dict[str, Any]:
    axes = taps(head)
    shifting = head.padding == "same" and max(head.strides) > 1
    return {
        "strides": tuple(head.strides),
        "groups": channel_groups(head),
        **_affine(head),
        # Where 'same' meets a stride, the place of the first tap depends on the length.
        "kernel_size": tuple(head.kernel_size) if shifting else None,
        "dilation_rate": tuple(head.dilation_rate) if shifting else None,
        "steps lost at the ends": None if shifting else tuple(axis.lost for axis in axes),
    }


def channel_groups(head: Any) -> int:
    """In how many groups the convolution's channels are cut: as many as channels where it is depthwise."""
    return int(head.kernel.shape[-2]) if type(head) in _DEPTHWISE else int(getattr(head, "groups", 1))


def by_channel(head: Any) -> bool:
    """Whether each channel is convolved for itself, before they are mixed or without that."""
    return type(head) in (*_SEPARABLE, *_DEPTHWISE)


def channels(head: Any) -> tuple[int, int]:
    """(channels in, channels out) of a convolution; each channel out reads in / channel_groups of those in."""
    if type(head) in _SEPARABLE:
        return int(head.depthwise_kernel.shape[-2]), int(head.pointwise_kernel.shape[-1])
    *_, inner, outer = head.kernel.shape
    return (
        (int(inner), int(inner * outer))
        if type(head) in _DEPTHWISE
        else (int(inner) * channel_groups(head), int(outer))
    )


@dataclass(frozen=True)
class Taps:
    """Output step i of a convolution along one axis reads inputs i·stride + first, + step, ..., count of them; `lost`
    is how many steps fewer than inputs there are with stride 1.
    """

    first: int
    step: int
    count: int
    lost: int

    @property
    def last(self) -> int:
        return self.first + self.step * (self.count - 1)


def taps(head: Any) -> tuple[Taps, ...]:
    """Where a convolution reads, axis by axis; for padding 'same' with stride 1."""
    found = []
    for size, dilation in zip(head.kernel_size, head.dilation_rate, strict=True):
        extent = (size - 1) * dilation
        first = {"valid": 0, "causal": -extent, "same": -(extent // 2)}[head.padding]
        found.append(Taps(first, dilation, size, extent if head.padding == "valid" else 0))
    return tuple(found)


def common_taps(heads: Sequence[Any]) -> tuple[Taps, ...]:
    """The coarsest taps, axis by axis, that hold those of every head of a group."""
    common = []
    for axes in zip(*map(taps, heads), strict=True):
        first, last = min(axis.first for axis in axes), max(axis.last for axis in axes)
        gaps = [axis.first - first for axis in axes] + [axis.step for axis in axes if axis.count > 1]
        step = math.gcd(*gaps) or 1
        common.append(Taps(first, step, (last - first) // step + 1, axes[0].lost))
    return tuple(common)


def interleaved(*arrays: np.ndarray) -> np.ndarray:
    """N of (..., u) -> (..., u·N) with channel u·N + n."""
    return np.stack(arrays, axis=-1).reshape(*arrays[0].shape[:-1], -1)


def block_diagonal(*arrays: np.ndarray) -> np.ndarray:
    """N of (u, v) -> (u·N, v·N), nonzero where row and column belong to one head: [u·N + n, v·N + n]."""
    count, (rows, columns) = len(arrays), arrays[0].shape
    wide = np.zeros((rows, count, columns, count), arrays[0].dtype)
    for number, array in enumerate(arrays):
        wide[:, number, :, number] = array
    return wide.reshape(rows * count, columns * count)


def kernel_of(head: Any) -> tuple[list[keras.Variable], Callable[..., np.ndarray]]:
    """The variables of a convolution, and the function that makes of them its kernel (k..., in / groups, out)."""
    if type(head) in _SEPARABLE:
        return [head.depthwise_kernel, head.pointwise_kernel], _joined
    if type(head) in _DEPTHWISE:
        return [head.kernel], lambda kernel: kernel.reshape(*kernel.shape[:-2], 1, -1)
    return [head.kernel], lambda kernel: kernel


def _joined(depthwise: np.ndarray, pointwise: np.ndarray) -> np.ndarray:
    """A depthwise (k..., in, m) and a pointwise (1..., in·m, out) kernel as one (k..., in, out)."""
    *_, channels, multiplier = depthwise.shape
    mixing = pointwise.reshape(channels, multiplier, -1)
    return np.asarray(np.einsum("...cm,cmo->...co", depthwise, mixing))


def placed(kernel: np.ndarray, own: Sequence[Taps], common: Sequence[Taps]) -> np.ndarray:
    """The kernel (k..., in, out) on common taps, zero where it has none of its own."""
    wide = np.zeros((*(axis.count for axis in common), *kernel.shape[-2:]), kernel.dtype)
    where = []
    for axis, every in zip(own, common, strict=True):
        start, step = (axis.first - every.first) // every.step, max(1, axis.step // every.step)
        where.append(slice(start, start + step * (axis.count - 1) + 1, step))
    wide[tuple(where)] = kernel
    return wide


def folded(
    kernel: np.ndarray, bias: np.ndarray | None, outer: np.ndarray, shift: np.ndarray | None, number: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Kernel and bias of head `number` with MultiHead's hidden layer in them: (x W_n + b_n) K_n + c_n =
    x (W_n K_n) + (b_n K_n + c_n), computed in float64.

    outer: W; shift: b or None. kernel: (k..., in, out); b_n K_n is summed over the taps k. A GRU's bias has a second
    row, for the state, which stays.
    """
    inner = kernel.astype(np.float64)
    own = slice(number * inner.shape[-2], (number + 1) * inner.shape[-2])
    if shift is not None:
        more = (shift[own] @ inner).reshape(-1, inner.shape[-1]).sum(axis=0)
        rows = [more] if bias is None else [bias + more] if bias.ndim == 1 else [bias[0] + more, bias[1]]
        bias = np.stack(rows).reshape(more.shape if bias is None else bias.shape).astype(kernel.dtype)
    return (outer[:, own] @ inner).astype(kernel.dtype), bias
