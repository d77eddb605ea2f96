"""PyTorch, eager: what a user would write for some kinds of the grid, on the weights of the Keras model.

Attention is `scaled_dot_product_attention`, a recurrent layer is `torch.nn.LSTM` or `GRU`; padding on the right goes
through `pack_padded_sequence`, which is the only mask PyTorch knows there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.models import Model

LAYER_NORM_EPSILON = 1e-3
ADDITIVE_MASK = 10000.0

Function = Callable[[dict[str, torch.Tensor]], torch.Tensor]


def open_torch(model: Model, weights: Sequence[np.ndarray], feeds: dict[str, np.ndarray]) -> Callable[[], Any]:
    """A call of the model on these feeds. Raises ValueError for a mask that PyTorch has no means for."""
    holes = (array.dtype == bool and (np.diff(array.astype(int), axis=1) > 0).any() for array in feeds.values())
    if model.kind == "recurrent" and any(holes):
        raise ValueError("PyTorch's recurrent layers know padding on the right alone")
    function = KINDS[model.kind](map(_tensor, weights), **model.sizes)
    tensors = {name: _tensor(array) for name, array in feeds.items()}

    @torch.inference_mode()
    def call() -> Any:
        return [function(tensors).numpy()]

    return call


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, order="C"))


def _projections(weights: Iterator[torch.Tensor], width: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(kernel (out, in), bias (out,)) of q, k, v and o, from our shapes or from Keras's with an axis for the heads."""
    return [(next(weights).reshape(width, width).T.contiguous(), next(weights).reshape(width)) for _ in range(4)]


def _attend(x: torch.Tensor, mask: torch.Tensor | None, projections: Any, heads: int, history: bool) -> torch.Tensor:
    batch, time, width = x.shape

    def split(kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, kernel, bias).view(batch, time, heads, width // heads).transpose(1, 2)

    q, k, v = (split(*projection) for projection in projections[:3])
    hidden = None
    if mask is not None:
        hidden = (mask.to(x.dtype) - 1.0)[:, None, None, :] * ADDITIVE_MASK
        if history:
            hidden = hidden - ADDITIVE_MASK * torch.ones(time, time).triu(1)
    joined = functional.scaled_dot_product_attention(q, k, v, hidden, is_causal=history and mask is None)
    return functional.linear(joined.transpose(1, 2).reshape(batch, time, width), *projections[3])


def _attention(weights: Iterator[torch.Tensor], layer: str, width: int, heads: int, mask: str) -> Function:
    del layer
    projections = _projections(weights, width)
    history = mask in ("history", "both")
    return lambda feeds: _attend(feeds["x"], feeds.get("mask"), projections, heads, history)


def _encoder(
    weights: Iterator[torch.Tensor], layers: int, width: int, heads: int, inner: int, masked: bool
) -> Function:
    del inner, masked
    blocks = []
    for _ in range(layers):
        attention = _projections(weights, width)
        first = (next(weights), next(weights))
        wide, narrow = ((next(weights).T.contiguous(), next(weights)) for _ in range(2))
        blocks.append((attention, first, wide, narrow, (next(weights), next(weights))))

    def function(feeds: dict[str, torch.Tensor]) -> torch.Tensor:
        x = feeds["x"]
        for attention, first, wide, narrow, second in blocks:
            attended = _attend(x, feeds.get("mask"), attention, heads, history=False)
            x = functional.layer_norm(x + attended, (width,), *first, LAYER_NORM_EPSILON)
            y = functional.linear(functional.relu(functional.linear(x, *wide)), *narrow)
            x = functional.layer_norm(x + y, (width,), *second, LAYER_NORM_EPSILON)
        return x

    return function


GATES = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2)}
"""Where PyTorch's gates are among Keras's: i f c o is its order too, r z n is Keras's z r h."""


def _layer(weights: Iterator[torch.Tensor], cell: str, units: int) -> torch.nn.Module:
    kernel, recurrent, bias = (next(weights) for _ in range(3))
    layer = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU}[cell](kernel.shape[0], units, batch_first=True)

    def ordered(array: torch.Tensor) -> torch.Tensor:
        gates = array.split(units, dim=-1)
        return torch.cat([gates[index] for index in GATES[cell]], dim=-1)

    # A GRU of Keras has a bias of the inputs and one of the state, an LSTM has one.
    inputs_bias, state_bias = bias if bias.ndim == 2 else (bias, torch.zeros_like(bias))
    values = (ordered(kernel).T, ordered(recurrent).T, ordered(inputs_bias), ordered(state_bias))
    with torch.no_grad():
        for parameter, value in zip(layer.parameters(), values, strict=True):
            parameter.copy_(value)
    return layer


def _recurrent(weights: Iterator[torch.Tensor], cell: str, heads: int, units: int, masked: bool) -> Function:
    del masked
    layers = [_layer(weights, cell, units) for _ in range(heads)]

    def run(layer: torch.nn.Module, feeds: dict[str, torch.Tensor]) -> torch.Tensor:
        x, mask = feeds["x"], feeds.get("mask")
        if mask is None:
            sequence, state = layer(x)
        else:
            packed = pack_padded_sequence(x, mask.sum(1), batch_first=True, enforce_sorted=False)
            sequence, state = layer(packed)
        last = (state[0] if cell == "LSTM" else state)[0]
        if heads > 1:
            return last
        if mask is None:
            return sequence
        padded, _ = pad_packed_sequence(sequence, batch_first=True, total_length=x.shape[1])
        return torch.where(mask[:, :, None], padded, last[:, None])

    def function(feeds: dict[str, torch.Tensor]) -> torch.Tensor:
        outputs = [run(layer, feeds) for layer in layers]
        return torch.stack(outputs, dim=-1) if heads > 1 else outputs[0]

    return function


KINDS: dict[str, Callable[..., Function]] = {
    "attention": _attention,
    "encoder": _encoder,
    "recurrent": _recurrent,
}
