"""The kernels and biases of heads, MultiHead's hidden layer folded in or not, as initializers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from mh_edge.layers import MultiHead
from mh_edge.merging import Group, folded, interleaved
from mh_edge_onnx.context import Context

Array = np.ndarray

Source = Callable[[Any], tuple[list[keras.Variable], Callable[..., Array]]]
"""A head -> the variables of its kernel, and the function that makes the kernel of them."""

Join = Callable[..., Array]
"""The arrays of all heads -> the one that the operation takes."""


def own_kernel(head: Any) -> tuple[list[keras.Variable], Callable[..., Array]]:
    """The kernel as it is."""
    return [head.kernel], lambda kernel: kernel


@dataclass(frozen=True)
class Affine:
    """layer, group: whose heads; fold: whether W and b are part of them; source: what a head's kernel is made of."""

    layer: MultiHead
    group: Group
    fold: bool = False
    source: Source = own_kernel

    def kernel(self, ctx: Context, join: Join = interleaved, label: str = "heads") -> ir.Value:
        """join(kernel of each head) as an initializer."""
        return ctx.weight(
            self._variables(), lambda *arrays: join(*(kernel for kernel, _ in self._read(arrays))), f"{label}_kernel"
        )

    def bias(self, ctx: Context, join: Join = interleaved, label: str = "heads") -> ir.Value | None:
        """join(bias of each head) as an initializer; None when there is none. Heads of a group all have one or none."""
        if not (self.group.heads[0].use_bias or (self.fold and self.layer.b is not None)):
            return None
        return ctx.weight(
            self._variables(), lambda *arrays: join(*(bias for _, bias in self._read(arrays))), f"{label}_bias"
        )

    def _variables(self) -> list[keras.Variable]:
        hidden = [self.layer.W, self.layer.b] if self.fold else []
        own = [[*self.source(head)[0], head.bias if head.use_bias else None] for head in self.group.heads]
        return [variable for variable in chain(hidden, *own) if variable is not None]

    def _read(self, arrays: Sequence[Array]) -> Iterator[tuple[Array, Any]]:
        rest = iter(arrays)
        outer = next(rest) if self.fold else None
        shift = next(rest) if self.fold and self.layer.b is not None else None
        for number, head in zip(self.group.numbers, self.group.heads, strict=True):
            variables, make = self.source(head)
            kernel = make(*(next(rest) for _ in variables))
            bias = next(rest) if head.use_bias else None
            if outer is not None:
                kernel, bias = folded(kernel, bias, outer, shift, number)
            yield kernel, bias
