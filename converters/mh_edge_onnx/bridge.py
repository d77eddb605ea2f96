"""From a captured TensorFlow graph to onnx_ir through tf2onnx.

tf2onnx converts everything that no rule took; a marked layer becomes one node `mh_edge::Call` that `expand` replaces
afterwards. What tf2onnx gets wrong for common layers is put right by `repairs`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import onnx_ir as ir

from mh_edge.capture import MARK, Capture
from mh_edge.errors import ConversionError
from mh_edge.quiet import loggers_at
from mh_edge.wording import said
from mh_edge_onnx.initializers import lazy_tensor
from mh_edge_onnx.names import Names
from mh_edge_onnx.repairs import HANDLERS

DOMAIN = "mh_edge"
"""Private domain of the marked nodes; none is left in a finished model."""

NEWEST_TF2ONNX_OPSET = 18
"""tf2onnx 1.17 refuses anything newer; newer opsets are reached by lifting its output."""


ATTEMPTS = 20
"""tf2onnx drops the Squeeze behind a convolution of one channel about one time in six, by the order of its sets."""

HANDLER_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""tf2onnx checks with assertions and its own ValueErrors, and stumbles over what it did not foresee."""


@contextmanager
def _refusals_named() -> Iterator[None]:
    """What tf2onnx's handlers raise for a form of an operation that they do not take becomes a ConversionError."""
    try:
        yield
    except HANDLER_ERRORS as error:
        raise ConversionError(
            f"tf2onnx cannot convert an operation of the model: {said(error)}",
            "Write a rule for the layer that uses it (mh_edge.rules.rule), or replace the layer.",
        ) from error


def _mark(graph: Any, node: Any, name: str, args: Any) -> Any:
    del graph, name, args
    node.domain, node.type = DOMAIN, "Call"
    return node


def to_ir(captured: Capture, opset: int) -> ir.Model:
    """The captured graph as an onnx_ir model of opset min(opset, 18), weights bound as initializers, marked layers as
    Call nodes.

    Inputs and outputs are in the capture's order; their names are tf2onnx's. Raises ConversionError, naming the
    TensorFlow operations, when tf2onnx has no conversion for one.
    """
    import tf2onnx

    wanted = min(opset, NEWEST_TF2ONNX_OPSET)
    for _ in range(ATTEMPTS):
        # Deprecations and guesses of shapes, which say nothing to the user of this package.
        with loggers_at(logging.CRITICAL, "tf2onnx", "tensorflow", "absl"), _refusals_named():
            proto, _ = tf2onnx.convert.from_graph_def(
                captured.graph,
                name="mh_edge",
                input_names=[*captured.inputs, *captured.weights],
                output_names=list(captured.outputs),
                opset=wanted,
                custom_op_handlers={MARK: (_mark, []), **HANDLERS},
                extra_opset=[onnx.helper.make_opsetid(DOMAIN, 1)],
            )
        if _ranks_hold(proto, captured):
            break
    else:
        raise ConversionError(
            "tf2onnx gives an output of the model, or of one of its layers, another number of axes than TensorFlow.",
            "Write a rule for that layer (mh_edge.rules.rule), or replace it.",
        )
    model: ir.Model = ir.from_proto(proto)
    _refuse_unknown(model)
    for value, shape in zip(model.graph.outputs, captured.shapes, strict=True):
        # Behind a marked layer nothing is inferred, and tf2onnx's own claim may have another rank.
        if shape is not None and value.shape is not None and len(value.shape) != len(shape):
            value.shape = ir.Shape(shape)
    _bind(model, captured)
    return model


def _ranks_hold(proto: onnx.ModelProto, captured: Capture) -> bool:
    """Whether each output has as many axes as TensorFlow traced, as far as ONNX can infer it from the operations."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    del bare.graph.value_info[:]
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    kinds = [output.type.tensor_type for output in onnx.shape_inference.infer_shapes(bare).graph.output]
    return all(
        shape is None or not kind.HasField("shape") or len(kind.shape.dim) == len(shape)
        for kind, shape in zip(kinds, captured.shapes, strict=True)
    )


def _refuse_unknown(model: ir.Model) -> None:
    newest = model.opset_imports[""]
    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    unknown = {
        node.op_type
        for node in nodes
        if node.domain == "" and not onnx.defs.has(node.op_type, max_inclusive_version=newest)
    }
    unknown |= {node.op_type for node in nodes if node.domain not in ("", "ai.onnx.ml", DOMAIN)}
    if unknown:
        raise ConversionError(
            f"no ONNX conversion for the TensorFlow operations {', '.join(sorted(unknown))} that the model uses.",
            "Write a rule for the layer that uses them (mh_edge.rules.rule), or replace the layer.",
        )


def _bind(model: ir.Model, captured: Capture) -> None:
    """Turn the graph inputs that carry weights into initializers; values are read from Keras only when they are
    written.
    """
    graph = model.graph
    by_name = {value.name: value for value in graph.inputs}
    inputs = [by_name[name] for name in captured.inputs]
    graph.inputs[:] = inputs
    names = Names()
    for name in graph.initializers:
        names.unique(name)
    for name, weight in captured.weights.items():
        if (value := by_name.get(name)) is None or not (value.uses() or value.is_graph_output()):
            continue
        if value.dtype is None or value.shape is None:
            raise ConversionError(f"the weight {weight.path} has no dtype or shape in the converted graph.")
        value.name = names.unique(weight.path)
        value.const_value = lazy_tensor(value.name, weight.read, value.dtype, value.shape)
        graph.register_initializer(value)
