"""From a captured TensorFlow graph to a TFLite flatbuffer through TensorFlow's converter, built-in operations only."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.lite.python.convert import convert_graphdef
from tensorflow.lite.python.convert_phase import ConverterError

from mh_edge.capture import Capture, Weight
from mh_edge.errors import ConversionError
from mh_edge.program import Program
from mh_edge.quiet import loggers_at
from mh_edge.signature import Signature, Tensor
from mh_edge_tflite.repairs import add_to_channels, compare_signs, expand_new_axes, part_twins, tame_softplus
from mh_edge_tflite.standins import Kernels, StandIn, located, stand_ins

OPTIONS = {
    "target_ops": [tf.lite.OpsSet.TFLITE_BUILTINS],
    # A loop writes its outputs in place (DYNAMIC_UPDATE_SLICE); else it cuts and joins the whole list at every step.
    "enable_dynamic_update_slice": True,
    # Infinities stay infinities; by default the converter writes the largest finite number.
    "canonicalizing_inf_as_min_max_float": False,
}
"""Of the converter's entry for frozen graphs: tf.lite.TFLiteConverter would freeze again, and take twice the memory."""

STDERR = 2
NUMBER = re.compile(r"_\d+$")
"""What TensorFlow adds to a name scope that is entered once more."""


def _bound(captured: Capture, signature: Signature, standing: Mapping[str, StandIn]) -> Any:
    """A copy of the captured graph (a tf.GraphDef) with each weight input turned into a constant, or into its stand-in.

    TensorFlow's own freezing would copy the weights five times more. An input that nothing reads is put back, for the
    file shall have it too.
    """
    graph = type(captured.graph)()
    graph.CopyFrom(captured.graph)
    add_to_channels(graph)
    weights = _weights(captured)
    for node in graph.node:
        if node.name in weights:
            node.op = "Const"
            node.attr.clear()
            tensor = node.attr["value"].tensor
            if stand_in := standing.get(node.name):
                tensor.CopyFrom(stand_in.proto())
            else:
                value = weights[node.name].read()
                tensor.dtype = tf.as_dtype(value.dtype).as_datatype_enum
                tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
                tensor.tensor_content = value.tobytes()
            node.attr["dtype"].type = tensor.dtype
    present = {node.name for node in graph.node}
    for name, described in zip(captured.inputs, signature.inputs, strict=True):
        if _node(name) not in present:
            node = graph.node.add(name=_node(name), op="Placeholder")
            node.attr["dtype"].type = tf.as_dtype(described.dtype).as_datatype_enum
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(_shape(described)).as_proto())
    part_twins(graph, weights)
    expand_new_axes(graph)
    compare_signs(graph)
    tame_softplus(graph)
    return graph


def _weights(captured: Capture) -> dict[str, Weight]:
    """By the names of their nodes."""
    return {_node(name): weight for name, weight in captured.weights.items()}


def to_flatbuffer(program: Program, captured: Capture, signature: Signature) -> tuple[bytes, Kernels]:
    """The converter's flatbuffer of a captured program, inputs and outputs in the signature's order; and the kernels
    that belong into its buffers, by the number of the buffer.

    Raises ConversionError, naming the operations, when something has no built-in form.
    """
    standing = stand_ins(captured.graph, _weights(captured))
    content = _converted(program, captured, signature, standing)
    kernels = located(content, standing)
    if kernels is None:
        return _converted(program, captured, signature, {}), {}
    return content, kernels


def _converted(program: Program, captured: Capture, signature: Signature, standing: Mapping[str, StandIn]) -> bytes:
    with tf.Graph().as_default():
        inputs = _stand_ins(captured.inputs, signature.inputs)
        outputs = _stand_ins(captured.outputs, signature.outputs)
    try:
        return convert_graphdef(_Spent(_bound(captured, signature, standing)), inputs, outputs, **OPTIONS)  # type: ignore[no-any-return]
    except ConverterError as error:
        raise _refusal(error, program, signature) from error


class _Spent:
    """A graph that is given up once it is serialized: its copy of the weights is not needed while the converter
    runs.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph

    def SerializeToString(self) -> bytes:  # noqa: N802 (protobuf's name)
        graph, self._graph = self._graph, None
        return graph.SerializeToString()  # type: ignore[no-any-return]


def _stand_ins(names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> list[Any]:
    """Tensors with the names, types and shapes by which the converter finds the real ones in the graph."""
    return [
        tf.compat.v1.placeholder(tensor.dtype, _shape(tensor), name=_node(name))
        for name, tensor in zip(names, tensors, strict=True)
    ]


def _node(name: str) -> str:
    return name.split(":")[0]


def _shape(tensor: Tensor) -> list[int | None]:
    return [None if isinstance(dim, str) else dim for dim in tensor.shape]


@contextmanager
def quiet() -> Iterator[None]:
    """TensorFlow logs deprecations of its own; the converter's C++ prints remarks, and on failure the whole graph, to
    the process's standard error.
    """
    kept = os.dup(STDERR)
    with loggers_at(logging.ERROR, "tensorflow"), tempfile.TemporaryFile() as nowhere:
        os.dup2(nowhere.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)


def _refusal(error: ConverterError, program: Program, signature: Signature) -> ConversionError:
    known = {layer.name for layer in program.layers}
    found: dict[str, None] = {}
    for fault in error.errors:
        if operation := fault.operator.name.removeprefix("tf."):
            names = [_layer(call.name, known) for call in fault.location.call]
            layer = next(filter(None, names), None)
            found[operation if layer is None else f"{operation} (layer {layer!r})"] = None
    hint = way_on(signature)
    if not found:
        return ConversionError(f"TensorFlow's converter refuses the model: {str(error).splitlines()[0]}", hint)
    operations = ", ".join(sorted(found))
    return ConversionError(f"TFLite has no built-in form of these operations of the model: {operations}.", hint)


def way_on(signature: Signature) -> str:
    """What to do about a model that has no TFLite form."""
    rule = "write a rule for it (mh_edge.rules.rule)"
    free = " ".join("--sequence N" if dim == "sequence" else f"--dim {dim}=N" for dim in signature.free_dims())
    if free:
        return f"With fixed lengths it may have one: {free}. Otherwise replace that layer, or {rule}."
    return f"Replace that layer, or {rule}."


def _layer(path: str, known: Collection[str]) -> str | None:
    """The innermost layer in the name of an operation, whose scopes are layer names, numbered when entered again."""
    for scope in reversed(path.split("/")):
        for name in (scope, NUMBER.sub("", scope)):
            if name in known:
                return name
    return None
