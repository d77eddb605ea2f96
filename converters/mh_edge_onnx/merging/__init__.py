"""Heads of a MultiHead that agree in everything but their weights, as one wide operation; one module for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from mh_edge.layers import MultiHead
from mh_edge.merging import BIDIRECTIONAL, CONVOLUTION, DENSE, RECURRENT, Group
from mh_edge_onnx.context import Context
from mh_edge_onnx.merging import convolution, dense, recurrent

Merge = Callable[[Context, MultiHead, Group, ir.Value, ir.Value | None], ir.Value | str]
"""(builder, layer, group, x, mask) -> the group's outputs (..., heads of the group), or why they stay apart."""

MERGES: Mapping[str, Merge] = {
    DENSE: dense.merge,
    CONVOLUTION: convolution.merge,
    RECURRENT: recurrent.merge,
    BIDIRECTIONAL: recurrent.merge,
}
