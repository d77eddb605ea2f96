"""LSTM, GRU, SimpleRNN and Bidirectional heads as one wider layer whose recurrent kernel is block-diagonal."""

from __future__ import annotations

from math import ceil

import numpy as np
import onnx_ir as ir

from mh_edge.layers import MultiHead
from mh_edge.merging import Group, wide_recurrent
from mh_edge_onnx.context import Context
from mh_edge_onnx.merging import costs


def merge(ctx: Context, layer: MultiHead, group: Group, x: ir.Value, mask: ir.Value | None) -> ir.Value | str:
    """x: (batch, time, in) -> (batch, units, heads of the group) or (batch, time, units, heads), or why they stay
    apart.
    """
    head = group.heads[0]
    single = getattr(head, "forward_layer", head)
    kind, units = type(single).__name__, single.units
    if units > (most := costs.RECURRENT_UNITS[kind]):
        return (
            f"{units} units: from {most + 1} on, the zeros of a block-diagonal kernel cost more than one {kind} saves"
        )
    fold = layer.W is not None
    if fold and not (cost := costs.Fold.of(layer, single.cell.kernel.shape[-1])).pays:
        return cost.reason
    count = ceil(len(group.numbers) * units / costs.RECURRENT_WIDTH)
    blocks = [block for block in np.array_split(group.numbers, count) if len(block)]
    told = f"{type(head).__name__} layers of {', '.join(str(len(block) * units) for block in blocks)} units"
    ctx.chose(
        f"{len(group.numbers)} heads as {told}", f"{units} units a head are few enough for block-diagonal kernels"
    )
    parts = []
    for block in blocks:
        y, *_ = ctx.call(wide_recurrent(layer, block.tolist(), fold), (x,), (mask,))
        leading = len(ctx.shape(y)) - 1
        parts.append(ctx.op("Reshape", y, ctx.constant([*[0] * leading, -1, len(block)])))
    return parts[0] if len(parts) == 1 else ctx.op("Concat", *parts, axis=-1)
