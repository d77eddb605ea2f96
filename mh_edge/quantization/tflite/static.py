"""What int8 and int16x8 of TFLite share: every operation in integers, activations by calibrated ranges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from mh_edge.artifact import Artifact
from mh_edge.packages import require
from mh_edge.quantization.scheme import KeptFloat, Options, Quantized, Range, RangeChange, Ranges
from mh_edge.quantization.tflite import model as litert
from mh_edge.quantization.tflite.biases import bounds_for_biases
from mh_edge.quantization.tflite.mask_sites import SAME
from mh_edge.quantization.tflite.masks import keep_masks
from mh_edge.quantization.tflite.rewriting import greatest_for_any, keep_from_zero, rewrite
from mh_edge.quantization.tflite.weights import refuse_no_numbers

WEIGHT_BITS = 8

ONE_SCALE = "BATCH_MATMUL"
"""With integers on both sides LiteRT takes the first scale of a constant for all channels: off by half of its range."""

BOUND = 1e30
"""Scales that far apart abort the process, whatever is asked of the interpreter; no activation gets there."""

POWERS_MATTER = 16

NEARLY = 2e-3
"""LiteRT rounds the logarithm of a scale and calls it a power of two up to .001 off; twice that is safe."""

WIDER = 1.02

NO_LOGARITHM = "its logarithm is taken, in float as well: what rounds to 0 has none"

WHY_BIT = "a boolean as a number: 0 or 1"

COMPARISONS = frozenset({"EQUAL", "NOT_EQUAL"})

PRODUCTS = frozenset({ONE_SCALE, "FULLY_CONNECTED"})
"""What a loop keeps most of its weights in: they are 8-bit there too, the activations being float."""


def quantize_static(source: Artifact, ranges: Ranges, options: Options, *, bits: int, margin: float) -> Quantized:
    """Weights in 8 bits, activations in `bits`. margin: scores this far below the greatest weigh nothing."""
    model = litert.read(source.path)
    refuse_no_numbers(model)
    reasons = litert.kept_as_asked(litert.operations(model), options)
    zero_or_one = rewrite(model)
    least, near = _divisors(model, ranges, bits)
    known = {**ranges, **{raised: ranges[divisor] for raised, divisor in keep_from_zero(model, least).items()}}
    adjusted, changes, refused = keep_masks(model, {**known, **dict.fromkeys(zero_or_one, Range(0.0, 1.0))}, margin)
    operations = litert.operations(model)
    reasons = refused | near | _logarithms(operations) | litert.kept_in_loops(operations) | reasons
    if bits == POWERS_MATTER:
        adjusted = {**adjusted, **_off_powers_of_two(model, operations, adjusted)}
    reasons |= _boundless(model, operations, adjusted)
    content = litert.pack(model)
    if ranges:
        recipe = _recipe(model, operations, options, reasons, bits)
        made = litert.quantized(content, recipe, adjusted)
        if bounds := bounds_for_biases(model, made):
            made = litert.quantized(content, recipe, adjusted, bounds)
        content = _integers_from_integers(made)
    in_float = litert.still_float(operations, content, reasons)
    return Quantized(
        litert.saving(content),
        tuple(_told(ranges, adjusted, changes, litert.float_tensors(content))),
        in_float,
        tuple(_notes(model, operations, reasons, in_float)),
    )


def _told(seen: Ranges, adjusted: Ranges, changes: Iterable[RangeChange], in_float: Set[str]) -> Iterator[RangeChange]:
    """Every range, in the order of the file; then constants that were cut off."""
    changed = {change.tensor: change for change in changes}
    for name, before in seen.items():
        change = changed.pop(
            name, RangeChange(name, before, adjusted[name], "" if before == adjusted[name] else WHY_BIT)
        )
        yield replace(change, after=None) if name in in_float else change
    yield from changed.values()


def _notes(
    model: Any, operations: Sequence[litert.Operation], reasons: Mapping[str, str], in_float: Sequence[KeptFloat]
) -> Iterator[str]:
    """What integers do otherwise than floats, whatever their precision; and where they are not all."""
    if in_float:
        names = litert.some([one.tensor for one in in_float])
        yield f"Not integers throughout; in float: {names}. Hardware that has integers only does not run it."
    for one in operations:
        if one.name in reasons:
            continue
        if one.kind == "DIV":
            yield f"{one.name} divides in integers: by 0 it gives any number, where floats give inf or nan."
        elif one.kind in COMPARISONS and litert.is_float(model, one.inputs[0], one.graph):
            yield f"{one.name} compares in integers: what rounds to a number is equal to it."


def _integers_from_integers(content: bytes) -> bytes:
    """Mend what stops a runtime. litert-quantizer lets whatever reads an output of the model read it behind the
    DEQUANTIZE too, integer operations as well: those read what is before it. And what a SPLIT makes and nothing reads
    is left float: it gets the type of the rest.
    """
    model = litert.read_any(content)
    tensors, operators = model.subgraphs[0].tensors, model.subgraphs[0].operators
    main = [one for one in litert.operations(model) if one.graph == 0]
    before = {one.outputs[0]: one.inputs[0] for one in main if one.kind == "DEQUANTIZE"}
    for one in main:
        if one.kind in litert.MOVERS:
            continue
        integers = [tensors[made] for made in one.outputs if _is_scaled(tensors[made])]
        if integers:
            operators[one.index].inputs = [before.get(tensor, tensor) for tensor in one.inputs]
        for made in (tensors[made] for made in one.outputs if integers and litert.is_float(model, made)):
            made.type, made.quantization = integers[0].type, integers[0].quantization
    greatest_for_any(model)
    return litert.pack(model)


def _is_scaled(tensor: Any) -> bool:
    return tensor.quantization is not None and tensor.quantization.scale is not None


def _extremes(model: Any, tensor: int, ranges: Ranges) -> Range | None:
    """What a float tensor of the main graph reaches; None when that is not known, or it is none."""
    if tensor < 0:
        return None
    values = litert.constant(model, tensor)
    if values is None:
        return ranges.get(model.subgraphs[0].tensors[tensor].name.decode())
    return Range(float(values.min()), float(values.max())) if values.size else None


def _divisors(model: Any, ranges: Ranges, bits: int) -> tuple[dict[str, float], dict[str, str]]:
    """Two steps of each divisor that is above 0, by the name of the quotient: integer kernels stop the process at 0,
    which data of use may bring. And why the other quotients, and those whose divisor came nearer to 0, stay in float.
    """
    least, reasons = {}, {}
    for one in litert.operations(model):
        if one.kind != "DIV" or one.graph > 0:
            continue
        seen = _extremes(model, one.inputs[1], ranges)
        steps = 0.0 if seen is None else 2 * max(-seen.low, seen.high) / (2**bits - 1)
        if seen is None or (seen.low < steps and seen.high > -steps):
            reasons[one.name] = "its divisor may come so near to 0 that it would be 0 in integers"
        elif seen.low > 0 and litert.constant(model, one.inputs[1]) is None:
            least[one.name] = steps
    return least, reasons


def _logarithms(operations: Sequence[litert.Operation]) -> dict[str, str]:
    """What makes the numbers that a logarithm is taken of: x + 1e-9 would round to 0, and its logarithm be infinite."""
    maker = {made: one for one in operations if one.graph == 0 for made in one.outputs}
    reasons = {}
    for one in operations:
        before = maker.get(one.inputs[0]) if one.kind == "LOG" and one.graph == 0 else None
        while before is not None:
            reasons[before.name] = NO_LOGARITHM
            before = maker.get(before.inputs[0]) if before.kind in SAME else None
    return reasons


def _boundless(model: Any, operations: Sequence[litert.Operation], ranges: Ranges) -> dict[str, str]:
    """Operations on numbers at which LiteRT's kernels would end the process."""
    reasons = {}
    for one in operations:
        for tensor in (*one.inputs, *one.outputs) if one.graph == 0 else ():
            seen = _extremes(model, tensor, ranges)
            if seen is not None and max(-seen.low, seen.high) > BOUND:
                reasons[one.name] = f"its numbers pass {BOUND:g}"
    return reasons


def _off_powers_of_two(model: Any, operations: Sequence[litert.Operation], ranges: Ranges) -> dict[str, Range]:
    """Wider ranges for sums of which every scale is a power of two, as those of 0 to 1 are: LiteRT takes 16-bit sums of
    that kind to be of one shape, and ends the process when they are not.
    """
    wider = {}
    for one in operations:
        if one.kind not in ("ADD", "SUB") or one.graph > 0:
            continue
        found = [_extremes(model, tensor, ranges) for tensor in (*one.inputs, *one.outputs)]
        bounds = [max(-each.low, each.high) for each in found if each is not None]
        if len(bounds) == len(found) and all(_is_power_of_two(bound) for bound in bounds) and found[-1] is not None:
            wider[one.name] = Range(found[-1].low * WIDER, found[-1].high * WIDER)
    return wider


def _is_power_of_two(bound: float) -> bool:
    return bound > 0 and abs(math.log2(bound) - round(math.log2(bound))) < NEARLY


def _recipe(
    model: Any, operations: Sequence[litert.Operation], options: Options, reasons: Mapping[str, str], bits: int
) -> list[litert.Entry]:
    """All that can be in integers; inputs and outputs of the main graph too if asked, those of loops never."""
    granularity = require("litert_quantizer.qtyping", litert.EXTRA, litert.PURPOSE).QuantGranularity
    manager = require("litert_quantizer.recipe_manager", litert.EXTRA, litert.PURPOSE)
    scales = granularity.CHANNELWISE if options.per_channel else granularity.TENSORWISE

    def static(regex: str, operation: str, scales: Any = scales) -> list[litert.Entry]:
        entries = manager.RecipeManager()
        entries.add_static_config(regex, operation, bits, WEIGHT_BITS, scales)
        return list(entries.get_quantization_recipe())

    recipe = [*static(".*", "*"), *static("^", ONE_SCALE, granularity.TENSORWISE)]
    recipe += [litert.no_quantize("^", "INPUT"), litert.no_quantize("^", "OUTPUT")]
    recipe += litert.leave_float(operations, reasons)
    for one in operations:
        if one.graph > 0 and one.kind in PRODUCTS and not one.belongs(options.keep_float):
            entries = manager.RecipeManager()
            entries.add_dynamic_config(litert.exactly(one.made), one.kind, WEIGHT_BITS, scales)
            recipe += entries.get_quantization_recipe()
    if options.integer_io:
        graph = model.subgraphs[0]
        for kind, tensors in (("INPUT", graph.inputs), ("OUTPUT", graph.outputs)):
            recipe += static(litert.exactly(graph.tensors[index].name.decode() for index in tensors), kind)
    return recipe
