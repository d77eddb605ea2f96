"""Rewriting a float TFLite model so that litert-quantizer can take all of it; what it computes stays the same.

    CAST of booleans to floats                    ->  SELECT_V2(b, 1, 0)
    exp(x − max x) / (Σ exp(x − max x) + 1e-7)    ->  SOFTMAX(x)        (the sum is 1 at least: 1e-7 is lost in it)
    one number −10000 for several masks           ->  one each, so that each mask gets a range of its own
    a / b, where b > 0                            ->  a / MAXIMUM(b, least): integer kernels stop at 0

Tensors keep their names, so that ranges seen on the file stay good for it. And afterwards, in the quantized model:

    REDUCE_ANY(b)                                 ->  REDUCE_MAX(CAST(b)) > 0           (TFLite Micro has no REDUCE_ANY)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mh_edge.quantization.tflite.mask_sites import MASK_LEVEL
from mh_edge.quantization.tflite.model import NO_BUFFER, Operation, add_constant, constant, operations, schema

ROUNDING = 1e-6
"""What is added to a sum of at least 1 and not greater changes a 32-bit quotient by its last bits only."""

SCALE = 0.5
"""Of booleans as integers: any would do, but LiteRT's comparisons end the process when it is not below 1."""


def rewrite(model: Any) -> tuple[str, ...]:
    """Rewrite in place -> the tensors that are 0 or 1 by a SELECT_V2 now."""
    _join_softmax(model)
    _separate_mask_numbers(model)
    return _choose_booleans(model)


def _choose_booleans(model: Any) -> tuple[str, ...]:
    names = schema()
    graph = model.subgraphs[0]
    casts = [
        one
        for one in operations(model)
        if one.graph == 0
        and one.kind == "CAST"
        and graph.tensors[one.inputs[0]].type == names.TensorType.BOOL
        and graph.tensors[one.outputs[0]].type == names.TensorType.FLOAT32
    ]
    bits = [_number(model, value, f"mh_edge.quantize/{value:g}") for value in ((1.0, 0.0) if casts else ())]
    for cast in casts:
        graph.operators[cast.index] = _operator(model, "SELECT_V2", "SelectV2", [cast.inputs[0], *bits], cast.outputs)
    return tuple(cast.name for cast in casts)


def _join_softmax(model: Any) -> None:
    """DIV(EXP(SUB(x, REDUCE_MAX(x))), ADD(SUM(the same EXP), small)), both over the last axis."""
    graph = model.subgraphs[0]
    main = [one for one in operations(model) if one.graph == 0]
    maker = {made: one for one in main for made in one.outputs}
    gone: set[int] = set()

    def made_by(kind: str, tensor: int) -> Operation | None:
        one = maker.get(tensor)
        return one if one is not None and one.kind == kind else None

    for quotient in main:
        if quotient.kind != "DIV" or (exponential := made_by("EXP", quotient.inputs[0])) is None:
            continue
        total = quotient.inputs[1]
        padded = made_by("ADD", total)
        if padded is not None:
            added = [index for index in padded.inputs if _at_most(model, index, ROUNDING)]
            total = next((index for index in padded.inputs if index not in added), total) if added else total
        summed, difference = made_by("SUM", total), made_by("SUB", exponential.inputs[0])
        if summed is None or difference is None or summed.inputs[0] != exponential.outputs[0]:
            continue
        greatest = made_by("REDUCE_MAX", difference.inputs[1])
        if greatest is None or greatest.inputs[0] != difference.inputs[0]:
            continue
        if not all(_over_last(model, one) for one in (summed, greatest)):
            continue
        softmax = _operator(model, "SOFTMAX", "Softmax", [difference.inputs[0]], quotient.outputs)
        softmax.builtinOptions.beta = 1.0
        graph.operators[quotient.index] = softmax
        gone |= {one.index for one in (exponential, padded, summed, difference, greatest) if one is not None}
    if gone:
        _drop_unused(graph, gone)


def _separate_mask_numbers(model: Any) -> None:
    tensors = model.subgraphs[0].tensors
    taken: set[int] = set()
    for one in operations(model):
        for place, index in enumerate(one.inputs if one.graph == 0 else ()):
            values = None if index < 0 else constant(model, index)
            if values is None or values.size != 1 or abs(values.item()) < MASK_LEVEL:
                continue
            if index in taken:
                tensors.append(copy.copy(tensors[index]))
                tensors[-1].name = f"{one.name}/mask_{place}".encode()
                model.subgraphs[0].operators[one.index].inputs[place] = len(tensors) - 1
            taken.add(index)


def keep_from_zero(model: Any, least: Mapping[str, float]) -> dict[str, str]:
    """Raise the divisors of the quotients named to `least` -> the new tensor's name and that of the divisor."""
    graph = model.subgraphs[0]
    made = {}
    for one in reversed([one for one in operations(model) if one.graph == 0 and one.name in least]):
        dividend, divisor = one.inputs
        name = f"{one.name}/divisor"
        limit = _number(model, least[one.name], f"{name}/least")
        like = graph.tensors[divisor]
        raised = _tensor(model, name, schema().TensorType.FLOAT32, like.shape, like.shapeSignature)
        graph.operators[one.index].inputs = [dividend, raised]
        maximum = _operator(model, "MAXIMUM", "MaximumMinimum", [divisor, limit], [raised])
        graph.operators.insert(one.index, maximum)
        made[name] = like.name.decode()
    return made


def greatest_for_any(model: Any) -> None:
    """Rewrite each REDUCE_ANY of a quantized model in place: before, litert-quantizer leaves REDUCE_MAX in float."""
    graph = model.subgraphs[0]
    for one in reversed([one for one in operations(model) if one.graph == 0 and one.kind == "REDUCE_ANY"]):
        (bits, axes), (result,) = one.inputs, one.outputs
        numbers = _integers(model, f"{one.name}/bits", graph.tensors[bits])
        greatest = _integers(model, f"{one.name}/max", graph.tensors[result])
        zero = _integers(model, f"{one.name}/0", None)
        reduction = _operator(model, "REDUCE_MAX", "Reducer", [numbers, axes], [greatest])
        reduction.builtinOptions.keepDims = graph.operators[one.index].builtinOptions.keepDims
        graph.operators[one.index : one.index + 1] = [
            _operator(model, "CAST", "Cast", [bits], [numbers]),
            reduction,
            _operator(model, "GREATER", "Greater", [greatest, zero], [result]),
        ]


def _integers(model: Any, name: str, like: Any | None) -> int:
    """A new tensor of 8-bit integers, of the shape of another or, without one, the number 0 -> its index."""
    names = schema()
    shape, signature = ([], None) if like is None else (like.shape, like.shapeSignature)
    index = _tensor(model, name, names.TensorType.INT8, shape, signature)
    tensor = model.subgraphs[0].tensors[index]
    if like is None:
        tensor.buffer = add_constant(model, np.zeros((), np.int8))
    tensor.quantization = names.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [SCALE], [0]
    return index


def _drop_unused(graph: Any, candidates: set[int]) -> None:
    """Take out those operations whose results nothing reads any more."""
    shrinking = True
    while shrinking:
        read = {int(tensor) for one in graph.operators for tensor in one.inputs} | {int(one) for one in graph.outputs}
        dead = {index for index in candidates if not read & {int(made) for made in graph.operators[index].outputs}}
        graph.operators = [one for index, one in enumerate(graph.operators) if index not in dead]
        candidates = {index - sum(gone < index for gone in dead) for index in candidates - dead}
        shrinking = bool(dead)


def _over_last(model: Any, reduction: Operation) -> bool:
    graph = model.subgraphs[0]
    rank = len(graph.tensors[reduction.inputs[0]].shape)
    axes = np.frombuffer(model.buffers[graph.tensors[reduction.inputs[1]].buffer].data, np.int32)
    return bool(graph.operators[reduction.index].builtinOptions.keepDims) and axes.tolist() in ([-1], [rank - 1])


def _at_most(model: Any, tensor: int, limit: float) -> bool:
    values = constant(model, tensor)
    return values is not None and bool(np.abs(values).max() <= limit)


def _number(model: Any, value: float, name: str) -> int:
    """A new constant of rank 0 -> its index."""
    index = _tensor(model, name, schema().TensorType.FLOAT32, [], None)
    model.subgraphs[0].tensors[index].buffer = add_constant(model, np.array(value, np.float32))
    return index


def _tensor(model: Any, name: str, kind: int, shape: Any, signature: Any) -> int:
    """A new tensor that is computed -> its index."""
    tensor = schema().TensorT()
    tensor.name, tensor.type, tensor.buffer = name.encode(), kind, NO_BUFFER
    tensor.shape, tensor.shapeSignature = shape, signature
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def _operator(model: Any, kind: str, options: str, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
    """A new operation. options: the name of its table of options in the schema."""
    names = schema()
    operator = names.OperatorT()
    operator.opcodeIndex = _code(model, vars(names.BuiltinOperator)[kind])
    operator.inputs, operator.outputs = list(inputs), list(outputs)
    operator.builtinOptionsType = vars(names.BuiltinOptions)[f"{options}Options"]
    operator.builtinOptions = vars(names)[f"{options}OptionsT"]()
    return operator


def _code(model: Any, number: int) -> int:
    """The index of an operation's code, added where the file has none."""
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
            return index
    code = schema().OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, LAST_OLD_CODE), 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


LAST_OLD_CODE = 127
"""Greater codes do not fit the first field, where this stands for them."""
