"""Keras program -> ONNX model: capture, bridge, lift, expand, clean."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import tensorflow as tf

from mh_edge.artifact import Converted
from mh_edge.capture import Capture, capture
from mh_edge.errors import ConversionError
from mh_edge.opsets import IR_VERSION, resolve_opset
from mh_edge.program import Program
from mh_edge.rules import rules_for
from mh_edge.signature import Signature
from mh_edge.wording import said
from mh_edge_onnx.bridge import NEWEST_TF2ONNX_OPSET, to_ir
from mh_edge_onnx.cleanup import clean
from mh_edge_onnx.context import OWN_DOMAIN, OWN_VERSION, Job
from mh_edge_onnx.expand import expand
from mh_edge_onnx.writing import save

PRODUCER = "mh-edge"

NEWEST_CONVERTED_OPSET = 25
"""onnxscript 0.7 converts no further; opset 26 adds BitCast and CumProd to 25 and changes nothing."""


def convert(
    program: Program, signature: Signature, *, opset: int | None = None, runtime: str = "cpu", merge: bool = True
) -> Converted:
    """The program as an ONNX file waiting to be written; see `build`."""
    model, job = build(program, signature, opset=opset, runtime=runtime, merge=merge)
    return Converted(
        format="onnx",
        opset=job.opset,
        signature=signature,
        rules=dict(sorted(job.used.items())),
        notes=job.rules.notes(program.layers),
        save=lambda path: save(model, path),
        choices=tuple(job.choices),
        session_options=dict(sorted(job.session_options.items())),
    )


def build(
    program: Program, signature: Signature, *, opset: int | None = None, runtime: str = "cpu", merge: bool = True
) -> tuple[ir.Model, Job]:
    """The finished onnx_ir model of a program, and the job that tells which rules were used.

    signature: program.signature, some dims pinned. opset: see mh_edge.opsets. merge: whether parallel heads may become
    one operation.
    Raises UsageError for an opset or runtime that does not exist, ConversionError when something has no
    conversion or cannot be traced.
    """
    job = Job(resolve_opset(opset, runtime), runtime, merge, _convert)
    model = _convert(_captured(program, signature), job)
    job.register(model.graph)
    # Without a node of this domain the clean-up drops it.
    model.opset_imports[OWN_DOMAIN] = OWN_VERSION
    if runtime == "plugins":
        _any_by_maximum(model)
    clean(model, signature)
    model.producer_name, model.producer_version = PRODUCER, None
    model.graph.name = program.model.name
    return model, job


def _any_by_maximum(model: ir.Model) -> None:
    """Whether any of x is not 0, as max |x| instead of sum |x|: OpenVINO opens no file with ReduceL1 before a Cast, QNN
    has none, and in float16 the sum of large numbers is infinite.
    """
    for node in list(model.graph):
        x, users = node.inputs[0] if node.inputs else None, node.outputs[0].consumers()
        if node.op_type != "ReduceL1" or x is None or not all(_to_truth(user) for user in users):
            continue
        size = ir.node("Abs", [x], name=f"{node.name}_Abs", metadata_props=dict(node.metadata_props))
        (absolute,) = size.outputs
        absolute.name, absolute.type, absolute.shape = f"{node.name}_Abs:0", x.type, x.shape
        model.graph.insert_before(node, size)
        node.replace_input_with(0, absolute)
        node.op_type = "ReduceMax"


def _to_truth(node: ir.Node) -> bool:
    return node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.BOOL


def _captured(program: Program, signature: Signature) -> Capture:
    """The traced program. Raises ConversionError for a model that runs eagerly and cannot be traced."""
    try:
        return capture(
            program.call,
            signature.inputs,
            layers=program.layers,
            variables=program.variables,
            rules=rules_for("onnx"),
        )
    except (ValueError, TypeError, NotImplementedError, tf.errors.OpError) as error:
        raise ConversionError(
            f"TensorFlow cannot trace the model {program.model.name!r}: {said(error)}",
            "Where sizes are the reason, fix them (--sequence N, --dim NAME=N); otherwise change that layer.",
        ) from error


def _convert(captured: Capture, job: Any) -> ir.Model:
    model = to_ir(captured, job.opset)
    if job.opset > NEWEST_TF2ONNX_OPSET:
        lift(model, job.opset)
    expand(model, dict(captured.calls), job)
    model.ir_version = IR_VERSION[job.opset]
    return model


def lift(model: ir.Model, opset: int) -> None:
    """Raise the model's opset in place; marked nodes, being of a private domain, pass through."""
    from onnxscript import version_converter

    version_converter.convert_version(model, min(opset, NEWEST_CONVERTED_OPSET))
    model.opset_imports[""] = opset
