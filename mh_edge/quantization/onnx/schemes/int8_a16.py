"""int8-a16: 8-bit weights and 16-bit activations by calibrated ranges, for targets that compute in integers throughout.

    x ≈ s · (q − z),    q in 0 … 65535: 256 times the resolution of int8, for the softmax and its mask as well

ONNX Runtime's CPU has no such kernels: it computes in float between roundings, and is slower than with the float file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mh_edge.artifact import Artifact
from mh_edge.packages import require
from mh_edge.quantization.onnx import calibration, qdq
from mh_edge.quantization.onnx.masks import fused
from mh_edge.quantization.onnx.model import nodes, nothing_to_quantize, saver
from mh_edge.quantization.onnx.taming import Tamed, tame
from mh_edge.quantization.onnx.unfit import HIDDEN_ROWS, holds_infinity, unfit
from mh_edge.quantization.scheme import Arrays, KeptFloat, Options, Quantized, Ranges, belongs, scheme

FUSED = "one operation with its scores, mask and softmax inside; a file for the portable runtime has them apart"
INNER = "it lies in the body of a Loop, Scan or If, which are not quantized"
NO_KERNEL = "onnxruntime.quantization has no form of it for calibrated ranges"
INFINITE = "infinite numbers go in or come out, or such as have no room in a float's range"
SLOW = "ONNX Runtime's CPU has no kernels for 16-bit activations: there this file is slower than the float one."


def observe(source: Artifact, options: Options, batches: Iterable[Arrays]) -> Ranges:
    """The range of every float tensor."""
    model = qdq.typed(qdq.opened(source))
    tensors = {name for node in model.graph.node for name in (*node.input, *node.output)}
    return calibration.observe(model, tensors, batches)


def sorted_out(tamed: Tamed, options: Options, types: Collection[str]) -> tuple[list[str], dict[str, str]]:
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
            kept[node.name] = "named by keep_float"
        elif known and node.name not in outermost:
            kept[node.name] = INNER
        elif known and node.name in beyond:
            kept[node.name] = beyond[node.name]
        elif known and not infinite.isdisjoint((*node.input, *node.output)):
            kept[node.name] = INFINITE
        elif known and node.name not in kept:
            chosen.append(node.name)
    return chosen, kept


@scheme("onnx", "int8-a16", calibrate=observe, options=("per_channel", "keep_float"))
def int8_a16(source: Artifact, ranges: Ranges, options: Options) -> Quantized:
    """Weights in 8-bit, activations in 16-bit integers throughout, attention masks included."""
    registry = require("onnxruntime.quantization.registry", "quantize,cpu", "the scheme int8-a16")
    model = qdq.typed(qdq.opened(source))
    notes = (SLOW, *((HIDDEN_ROWS,) if holds_infinity(model) else ()))
    tamed = tame(model, ranges)
    chosen, kept = sorted_out(tamed, options, registry.QDQRegistry.keys() | registry.QLinearOpsRegistry.keys())
    if not chosen:
        raise nothing_to_quantize(source, "int8-a16", "operation that has integers", kept)
    result = qdq.quantize(tamed.model, tamed.ranges, chosen, activations="QUInt16", per_channel=options.per_channel)
    if not qdq.holds_integers(result):
        raise nothing_to_quantize(source, "int8-a16", "operation that has integers", kept)
    return Quantized(
        saver(result),
        ranges=qdq.changes(result, ranges, rounded=tamed.why),
        kept_float=tuple(KeptFloat(name, why) for name, why in kept.items()),
        notes=notes,
    )
