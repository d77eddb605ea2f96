"""Calibrated quantization of ONNX graphs: QuantizeLinear and DequantizeLinear around what is to run in integers."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mh_edge.artifact import Artifact
from mh_edge.packages import require
from mh_edge.quantization.onnx import model as onnxmodel
from mh_edge.quantization.onnx.matmuls import as_plain_gemms
from mh_edge.quantization.onnx.model import drop_unused, graphs, load, nodes, replace_nodes, restore
from mh_edge.quantization.scheme import Range, RangeChange
from mh_edge.quiet import loggers_at

if TYPE_CHECKING:
    import onnx

MATRIX_RANK = 2

LEAST_OPSET = 13
"""From here DequantizeLinear has a scale per channel."""

UNROUNDED = "it lies between operations that stay in float, or inside a kernel that rounds what it ends in"

OUTPUT = "/float"
"""Ending of what a graph's output was before it was rounded."""

SHORT = {
    "_QuantizeLinear_Input": OUTPUT,
    "_QuantizeLinear_Output": "/q",
    "_QuantizeLinear": "/q",
    "_DequantizeLinear_Output": "/dq",
    "_DequantizeLinear": "/dq",
    "_quantized_zero_point": "/int/zero",
    "_quantized_scale": "/int/scale",
    "_zero_point": "/zero",
    "_scale": "/scale",
    "_quantized": "/int",
}
"""Endings that onnxruntime.quantization gives names, and ours: they are a tenth of a small quantized model."""


def opened(source: Artifact) -> onnx.ModelProto:
    """The model of a file in an opset that has scales per channel, with plain Gemms."""
    onnx = require("onnx", "quantize", "static quantization")
    model = load(source)
    opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), LEAST_OPSET)
    if opset < LEAST_OPSET:
        model = onnx.version_converter.convert_version(model, LEAST_OPSET)
    as_plain_gemms(model)
    return model


def typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model given, with the types of its inner tensors, by which the quantizer goes."""
    known = onnxmodel.inferred(model)  # by what the rewriting knew: not all of it can be inferred again
    del model.graph.value_info[:]
    model.graph.value_info.extend(known.values())
    return model


def quantize(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    chosen: Collection[str],
    *,
    activations: str,
    weights: str = "QInt8",
    per_channel: bool,
    float_results: Collection[str] = (),
    options: Mapping[str, Any] | None = None,
) -> onnx.ModelProto:
    """The model with the operations `chosen` (by name) in integers: weights and activations of the types named
    (QInt8, QUInt8, QUInt16), activations by their ranges.

    float_results: types of operations whose results are left as they come. options: more of
    onnxruntime.quantization's extra options.
    """
    calibrate = require("onnxruntime.quantization.calibrate", "quantize,cpu", "static quantization")
    quantization = require("onnxruntime.quantization", "quantize,cpu", "static quantization")
    mark = _mark(model)
    seen = {
        f"{name}{mark}": calibrate.TensorData(lowest=np.float32(found.low), highest=np.float32(found.high))
        for name, found in ranges.items()
    }
    outputs = {value.name for value in model.graph.output}
    # The quantizer makes them the end of the range of what they read, the model's output too.
    ends = {node.name for node in model.graph.node if node.op_type in ("Clip", "Relu") and node.input[0] in outputs}
    chosen = sorted(set(chosen) - ends)
    more = dict(options or {})
    overrides = _one_scale(model, quantization.QuantType[weights]) | more.pop("TensorQuantOverrides", {})
    _rename(model, lambda name: f"{name}{mark}")
    with loggers_at(logging.ERROR, "root"):  # it speaks of preprocessing
        quantizer = quantization.QDQQuantizer(
            model,
            per_channel,
            False,  # reduce_range: only for processors without VNNI, at half the resolution
            quantization.QuantType[weights],
            quantization.QuantType[activations],
            calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, seen),
            chosen,
            [],
            sorted({node.op_type for node in model.graph.node}),
            {
                "OpTypesToExcludeOutputQuantization": sorted(float_results),
                **more,
                "TensorQuantOverrides": {f"{name}{mark}": how for name, how in overrides.items()},
            },
        )
        result: onnx.ModelProto = quantizer.quantize_model()
        quantizer.model.topological_sort()
    if float_results:
        _spare(result, chosen, float_results)
    for marked in (model, result):
        _rename(marked, lambda name: name.removesuffix(mark))
    if float_results:
        _unfuse(result, chosen, float_results)
        _set_rows_apart(result)
    _trim(result, model, mark)
    return result


def _mark(model: onnx.ModelProto) -> str:
    """What no name of a tensor holds: with it behind them, none is one that the quantizer makes of another."""
    names = {name for node in nodes(model) for name in (*node.input, *node.output)}
    mark = "'"
    while any(mark in name for name in names):
        mark += "'"
    return mark


def _rename(model: onnx.ModelProto, rename: Callable[[str], str]) -> None:
    """Give its tensors, those of bodies included, other names."""
    for graph in graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = rename(value.name)
        for node in graph.node:
            node.input[:] = [name and rename(name) for name in node.input]
            node.output[:] = [name and rename(name) for name in node.output]


def _one_scale(model: onnx.ModelProto, weight_type: Any) -> dict[str, list[dict[str, Any]]]:
    """Weights that get one scale. Matrices in stacks, (heads, K, N): ONNX Runtime loads a file that has one for each
    column, and then fails to run it. And those that are read in several ways, transposed or as a table too: it takes
    the scales of the one for those of the other. And transposed convolutions in groups: fewer columns than outputs.
    """
    from onnx import TensorProto

    constants = onnxmodel.weights(model)
    uses: dict[str, set[str]] = defaultdict(set)
    for node in model.graph.node:
        turned = any(one.name == "transB" and one.i for one in node.attribute)
        kind = {"MatMul": "product", "Gemm": "turned" if turned else "product"}.get(node.op_type, node.op_type)
        for name in constants.keys() & set(node.input[:2]):  # no bias
            uses[name].add(kind)
    several = {name for name, kinds in uses.items() if len(kinds) > 1}
    stacks = {name for name, kinds in uses.items() if "product" in kinds and len(constants[name].dims) != MATRIX_RANK}
    grouped = {
        node.input[1]
        for node in model.graph.node
        if node.op_type == "ConvTranspose" and any(one.name == "group" and one.i > 1 for one in node.attribute)
    }
    one = (several | stacks | grouped) & constants.keys()
    floats = sorted(name for name in one if constants[name].data_type == TensorProto.FLOAT)
    return {name: [{"quant_type": weight_type}] for name in floats}


def _spare(model: onnx.ModelProto, chosen: Collection[str], float_results: Collection[str]) -> None:
    """Give operations that stay float the numbers before they were rounded, where there are such: the quantizer hands
    the rounded ones to every reader, residual sums included.
    """
    names = frozenset(chosen)
    integers = {
        name
        for node in model.graph.node
        if node.name in names and node.op_type not in float_results
        for name in node.output
    }
    rounded = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    exact = {
        node.output[0]: rounded[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and rounded.get(node.input[0], "") not in {"", *integers}
    }
    # A result of the model has its name behind the rounding; let it have it before.
    swapped: dict[str, str] = {}
    for name in exact.keys() & {result.name for result in model.graph.output}:
        swapped |= {exact[name]: name, name: f"{name}_DequantizeLinear_Output"}
    for node in model.graph.node:
        rounds = node.name in names or node.op_type == "QuantizeLinear"
        renamed = swapped if rounds else {name: exact[name] for name in exact if name not in swapped}
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [swapped.get(name, name) for name in node.output]


def _unfuse(model: onnx.ModelProto, chosen: Collection[str], float_results: Collection[str]) -> None:
    """Relu -> Max(·, 0) and Clip -> Min(Max(·, low), high), behind a product whose result is float.

    ONNX Runtime makes no integer product where a Relu or Clip alone reads the result, unless rounding follows that does
    the same: it computes in float then, and dequantizes the weights at every call. As Max and Min they take no longer.
    """
    from onnx import helper, numpy_helper

    graph, names = model.graph, frozenset(chosen)
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    results = {node.output[0] for node in graph.node if node.name in names and node.op_type in float_results}
    written = []
    for node in graph.node:
        value = next(iter(node.input), "")
        bounds: list[tuple[str, str]] = []
        if value in results and len(readers[value]) == 1:
            if node.op_type == "Clip":
                bounds = [(kind, name) for kind, name in zip(("Max", "Min"), node.input[1:], strict=False) if name]
            elif node.op_type == "Relu" and [one.op_type for one in readers[node.output[0]]] != ["QuantizeLinear"]:
                bounds = [("Max", f"{node.name}/least")]
                graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), bounds[0][1]))
        if not bounds:
            written.append(node)
        for kind, bound in bounds[:-1]:
            written.append(helper.make_node(kind, [value, bound], [f"{node.output[0]}/{kind}"], f"{node.name}/{kind}"))
            value = written[-1].output[0]
        for kind, bound in bounds[-1:]:
            written.append(helper.make_node(kind, [value, bound], node.output, node.name))
    replace_nodes(graph, written)


def _set_rows_apart(model: onnx.ModelProto) -> None:
    """Take rows out of a table before they are made float, where others read it too: ONNX Runtime would make all of it
    float at every call.
    """
    from onnx import helper

    constants = onnxmodel.weights(model)
    floats = {
        node.output[0]: node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    readers = Counter(name for node in model.graph.node for name in node.input)
    written = []
    for node in model.graph.node:
        written.append(node)
        if node.op_type == "Gather" and node.input[0] in floats and readers[node.input[0]] > 1:
            table, *scale = floats[node.input[0]].input
            result = node.output[0]
            node.input[0], node.output[0] = table, f"{result}/rows"
            written.append(
                helper.make_node("DequantizeLinear", [node.output[0], *scale], [result], f"{node.name}/rows")
            )
    replace_nodes(model.graph, written)


def _trim(model: onnx.ModelProto, source: onnx.ModelProto, mark: str) -> None:
    """Drop what the quantizer leaves over: shapes that it inferred, constants held twice, long names.

    Zero points of zero stay, though a file could go without: ONNX Runtime then no longer joins a product with its
    DequantizeLinear, and is three times slower.
    """
    from onnx import numpy_helper

    restore(model, source, "")
    given = {value.name for value in (*source.graph.input, *source.graph.output, *source.graph.initializer)}
    given.update(name for node in nodes(source) for name in (*node.input, *node.output))
    operations = {node.name for node in nodes(source)}
    held: dict[tuple[object, ...], str] = {}
    names: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if tensor.name not in given:
            content = (tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes())
            names[tensor.name] = held.setdefault(content, _shortened(tensor.name, given, mark))
            tensor.name = names[tensor.name] if names[tensor.name] == _shortened(tensor.name, given, mark) else ""
    for index in reversed(range(len(model.graph.initializer))):
        if not model.graph.initializer[index].name:
            del model.graph.initializer[index]
    for node in model.graph.node:
        node.input[:] = [names.get(name) or _shortened(name, given, mark) for name in node.input]
        node.output[:] = [_shortened(name, given, mark) for name in node.output]
        node.name = _shortened(node.name, operations, mark)
    drop_unused(model)


def _shortened(name: str, given: Collection[str], mark: str) -> str:
    """The name with a short ending and no mark, where it is none of those given and becomes none of them."""
    end = next((end for end in SHORT if name.endswith(end)), "")
    wanted = name.removesuffix(end).removesuffix(mark) + SHORT.get(end, "")
    return name if name in given or wanted in given else wanted


def holds_integers(model: onnx.ModelProto) -> bool:
    """Whether the quantizer found anything to do."""
    return any(node.op_type == "DequantizeLinear" for node in model.graph.node)


def changes(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    *,
    rounded: Mapping[str, str] | None = None,
    left: Mapping[str, str] | None = None,
) -> tuple[RangeChange, ...]:
    """What became of the calibrated ranges in a quantized model. rounded, left: reasons by tensor, for those that are
    rounded and for those that stay float.

    An integer stands for 0 exactly, so that a range is moved by up to half a step.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    after = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
            limits = np.iinfo(zero.dtype)
            low, high = (float(scale) * (limit - int(zero)) for limit in (limits.min, limits.max))
            name = node.input[0]
            after[name if name in ranges else name.removesuffix(OUTPUT)] = Range(low, high)
    why = dict.fromkeys(ranges, UNROUNDED) | dict(left or {}) | dict.fromkeys(after, "") | dict(rounded or {})
    return tuple(RangeChange(name, seen, after.get(name), why[name]) for name, seen in ranges.items())
