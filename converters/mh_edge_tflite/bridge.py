"""From a captured TensorFlow graph to a TFLite flatbuffer through TensorFlow's converter, built-in operations only."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from mh_edge.capture import Capture
from mh_edge.errors import ConversionError
from mh_edge.signature import Signature, Tensor

STDERR = 2
OPERATION = re.compile(r"'?\btf\.([A-Z]\w*)'?")
"""An operation as the converter's messages name it: 'tf.Erf'."""


def bind(captured: Capture, signature: Signature) -> Any:
    """The captured graph (a tf.GraphDef, changed in place) with each weight input turned into a constant.

    TensorFlow's own freezing would copy the weights five times more. An input that nothing reads is put back, for the
    file shall have it too.
    """
    weights = {_node(name): weight for name, weight in captured.weights.items()}
    for node in captured.graph.node:
        if node.name in weights:
            value = weights[node.name].read()
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
            tensor = node.attr["value"].tensor
            tensor.dtype = node.attr["dtype"].type
            tensor.tensor_shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
            tensor.tensor_content = value.tobytes()
    present = {node.name for node in captured.graph.node}
    for name, described in zip(captured.inputs, signature.inputs, strict=True):
        if _node(name) not in present:
            node = captured.graph.node.add(name=_node(name), op="Placeholder")
            node.attr["dtype"].type = tf.as_dtype(described.dtype).as_datatype_enum
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(_shape(described)).as_proto())
    return captured.graph


def to_flatbuffer(graph: Any, captured: Capture, signature: Signature) -> bytes:
    """The converter's flatbuffer of a bound graph; inputs and outputs in the capture's order.

    Raises ConversionError, naming the operations, when something has no built-in form.
    """
    with tf.Graph().as_default():
        inputs = _stand_ins(captured.inputs, signature.inputs)
        outputs = _stand_ins(captured.outputs, signature.outputs)
    # The converter for frozen graphs: the others freeze again and take twice the time and memory.
    converter = tf.compat.v1.lite.TFLiteConverter(graph, inputs, outputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    # Lets a loop write its outputs in place (DYNAMIC_UPDATE_SLICE); without it a list is cut and joined at every step.
    converter._experimental_enable_dynamic_update_slice = True
    try:
        with _silence():
            return converter.convert()  # type: ignore[no-any-return]
    except Exception as error:
        raise _refusal(error, signature) from error


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
def _silence() -> Iterator[None]:
    """The converter's C++ prints remarks, and on failure the whole graph, to the process's standard error."""
    kept = os.dup(STDERR)
    with tempfile.TemporaryFile() as nowhere:
        os.dup2(nowhere.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)


def _refusal(error: Exception, signature: Signature) -> ConversionError:
    operations = sorted(set(OPERATION.findall(str(error))))
    return ConversionError(str(operations))
