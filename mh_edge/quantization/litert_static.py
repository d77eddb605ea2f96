"""What int8 and int16x8 of TFLite share: every operation in integers, activations by calibrated ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mh_edge.artifact import Artifact
from mh_edge.packages import require
from mh_edge.quantization import litert
from mh_edge.quantization.litert_masks import keep_masks
from mh_edge.quantization.litert_rewriting import rewrite
from mh_edge.quantization.scheme import Options, Quantized, Range, RangeChange, Ranges

WEIGHT_BITS = 8

PRODUCTS = frozenset({"BATCH_MATMUL", "FULLY_CONNECTED"})
"""What a loop keeps most of its weights in: they are 8-bit there too, the activations being float."""


def quantize_static(
    source: Artifact, ranges: Ranges, options: Options, *, bits: int, margin: float, declined: Mapping[str, str]
) -> Quantized:
    """Weights in 8 bits, activations in `bits`. margin: scores this far below the greatest weigh nothing. declined:
    kinds of operations that stay in float -> why.
    """
    model = litert.read(source.path)
    zero_or_one = rewrite(model)
    operations = litert.operations(model)
    reasons = {one.name: declined[one.kind] for one in operations if one.kind in declined}
    reasons |= _quotients(model, operations, ranges, bits)
    reasons |= litert.kept_in_loops(operations) | litert.kept_as_asked(operations, options)
    adjusted, changes = keep_masks(model, {**ranges, **dict.fromkeys(zero_or_one, Range(0.0, 1.0))}, margin)
    content = litert.pack(model)
    if ranges:
        content = litert.quantized(content, _recipe(model, operations, options, reasons, bits), adjusted)
    changed = {change.tensor: change for change in changes}
    told = [changed.pop(name, RangeChange(name, seen, adjusted[name])) for name, seen in ranges.items()]
    return Quantized(
        litert.saving(content), (*told, *changed.values()), litert.still_float(operations, content, reasons)
    )


def _quotients(model: Any, operations: Sequence[litert.Operation], ranges: Ranges, bits: int) -> dict[str, str]:
    """Divisions whose divisor comes nearer to 0 than a step: it would be 0, at which the kernel stops."""
    names = [tensor.name.decode() for tensor in model.subgraphs[0].tensors]
    reasons = {}
    for one in operations:
        if one.kind != "DIV" or one.graph > 0:
            continue
        values = litert.constant(model, one.inputs[1])
        seen = ranges.get(names[one.inputs[1]]) if values is None else Range(float(values.min()), float(values.max()))
        least = 0.0 if seen is None or seen.low <= 0 <= seen.high else min(abs(seen.low), abs(seen.high))
        greatest = 1.0 if seen is None else max(abs(seen.low), abs(seen.high))
        if least < 2 * greatest / (2**bits - 1):
            reasons[one.name] = "its divisor may come so near to 0 that it would be 0 in integers"
    return reasons


def _recipe(
    model: Any, operations: Sequence[litert.Operation], options: Options, reasons: Mapping[str, str], bits: int
) -> list[litert.Entry]:
    """All that can be in integers; inputs and outputs of the main graph too if asked, those of loops never."""
    granularity = require("litert_quantizer.qtyping", litert.EXTRA, litert.PURPOSE).QuantGranularity
    manager = require("litert_quantizer.recipe_manager", litert.EXTRA, litert.PURPOSE)

    weights = granularity.CHANNELWISE if options.per_channel else granularity.TENSORWISE

    def static(regex: str, operation: str) -> list[litert.Entry]:
        entries = manager.RecipeManager()
        entries.add_static_config(regex, operation, bits, WEIGHT_BITS, weights)
        return list(entries.get_quantization_recipe())

    recipe = [*static(".*", "*"), litert.no_quantize("^", "INPUT"), litert.no_quantize("^", "OUTPUT")]
    recipe += litert.leave_float(operations, reasons)
    for one in operations:
        if one.graph > 0 and one.kind in PRODUCTS and not one.belongs(options.keep_float):
            entries = manager.RecipeManager()
            entries.add_dynamic_config(litert.exactly(one.made), one.kind, WEIGHT_BITS, weights)
            recipe += entries.get_quantization_recipe()
    if options.integer_io:
        graph = model.subgraphs[0]
        for kind, tensors in (("INPUT", graph.inputs), ("OUTPUT", graph.outputs)):
            recipe += static(litert.exactly(graph.tensors[index].name.decode() for index in tensors), kind)
    return recipe
