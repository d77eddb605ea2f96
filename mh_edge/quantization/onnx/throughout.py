"""Integers throughout, softmax and masks included: what the schemes of 16-bit activations share.

ONNX Runtime's CPU has no such kernels: it computes in float between roundings, and is slower than with the float file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mh_edge.artifact import Artifact
from mh_edge.quantization.onnx import calibration, qdq
from mh_edge.quantization.onnx.masks import fused
from mh_edge.quantization.onnx.model import INNER, nodes, nothing_to_quantize, saver
from mh_edge.quantization.onnx.taming import Tamed, tame
from mh_edge.quantization.onnx.unfit import HIDDEN_ROWS, holds_infinity, unfit
from mh_edge.quantization.scheme import ASKED, Arrays, KeptFloat, Options, Quantized, Ranges, belongs

if TYPE_CHECKING:
    import onnx

FUSED = "one operation with its scores, mask and softmax inside; a file for the portable runtime has them apart"
NO_KERNEL = "onnxruntime.quantization has no form of it for calibrated ranges"
INFINITE = "infinite numbers go in or come out, or such as have no room in a float's range"
SLOW = "ONNX Runtime's CPU has no kernels for 16-bit activations: there this file is slower than the float one."


def observe(source: Artifact, options: Options, batches: Iterable[Arrays]) -> Ranges:
    """The range of every float tensor."""
    model = qdq.typed(qdq.opened(source))
    tensors = {name for node in model.graph.node for name in (*node.input, *node.output)}
    return calibration.observe(model, tensors, batches)


def _sorted_out(tamed: Tamed, options: Options, types: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """-> the names of the operations to quantize; operation -> why it stays in float. types: of operations that the
    target has in integers.
    """
    model, kept = tamed.model, dict(tamed.kept)
    outermost = {node.name for node in model.graph.node}
    attentions = {node.name for node in fused(model)}
    infinite = {name for name, seen in tamed.ranges.items() if max(-seen.low, seen.high) >= calibration.LARGEST}
    beyond = unfit(model, model.graph.node)
    chosen = []
    for node in nodes(model):
        known = node.op_type in types
        if node.name in attentions:
            kept[node.name] = FUSED
        elif node.op_type in ("LSTM", "GRU", "RNN"):
            kept[node.name] = NO_KERNEL
        elif known and belongs(node.name, options.keep_float):
            kept[node.name] = ASKED
        elif known and node.name not in outermost:
            kept[node.name] = INNER
        elif known and node.name in beyond:
            kept[node.name] = beyond[node.name]
        elif known and not infinite.isdisjoint((*node.input, *node.output)):
            kept[node.name] = INFINITE
        elif known and node.name not in kept:
            chosen.append(node.name)
    return chosen, kept


@dataclass(frozen=True)
class Target:
    """What takes the file. types: of operations that it has in integers. weights: the type of their weights. options:
    extra ones of the quantizer.
    """

    types: Collection[str]
    weights: str = "QInt8"
    options: Mapping[str, Any] = field(default_factory=dict)


def quantize(
    source: Artifact, ranges: Ranges, options: Options, scheme: str, target: Callable[[onnx.ModelProto], Target]
) -> Quantized:
    """Weights in 8-bit, activations in 16-bit integers wherever the target has them, with masks made small for that.

    target: asked about the model that is quantized. Raises ConversionError when there is nothing to quantize.
    """
    model = qdq.typed(qdq.opened(source))
    notes = (SLOW, *((HIDDEN_ROWS,) if holds_infinity(model) else ()))
    tamed = tame(model, ranges)
    wanted = target(tamed.model)
    chosen, kept = _sorted_out(tamed, options, wanted.types)
    result = None
    if chosen:
        result = qdq.quantize(
            tamed.model,
            tamed.ranges,
            chosen,
            activations="QUInt16",
            weights=wanted.weights,
            per_channel=options.per_channel,
            options=wanted.options,
        )
    if result is None or not qdq.holds_integers(result):
        raise nothing_to_quantize(source, scheme, "operation that has integers", kept)
    return Quantized(
        saver(result),
        ranges=qdq.changes(result, ranges, rounded=tamed.why),
        kept_float=tuple(KeptFloat(name, why) for name, why in kept.items()),
        notes=notes,
    )
