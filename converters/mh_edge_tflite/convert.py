"""Keras program -> TFLite file: capture with the rules in place, bind the weights, convert, finish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mh_edge.artifact import Converted
from mh_edge.capture import Capture, capture, replaced, split_arguments
from mh_edge.errors import ConversionError
from mh_edge.program import Program
from mh_edge.rules import Rule, RuleSet, rules_for
from mh_edge.signature import Signature
from mh_edge.wording import said
from mh_edge_tflite.bridge import quiet, to_flatbuffer, way_on
from mh_edge_tflite.context import Context, scope
from mh_edge_tflite.writing import finished

RULE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, tf.errors.OpError)
"""What a mistake in a rule raises, or a size that it needs and that is free."""

LARGEST = 2_000_000_000
"""Bytes of weights; a flatbuffer addresses 2 GiB, and the graph around the weights takes its share."""


def convert(program: Program, signature: Signature, *, merge: bool = True) -> Converted:
    """The program as a TFLite file of built-in operations waiting to be written.

    signature: program.signature with the batch pinned; names that are left are lengths which stay free. merge: whether
    parallel heads may become one operation.
    Raises ConversionError when an operation has no built-in form or the weights pass 2 GB, InputError when the model
    draws random numbers or keeps state.
    """
    _refuse_large(program)
    context = Context(merge)

    def lowered(rule: Rule, layer: keras.Layer, arguments: Mapping[str, Any], body: Callable[[], Any]) -> Any:
        del body
        inputs, masks = split_arguments(arguments)
        try:
            with context.within(rule, layer, arguments), tf.name_scope(scope(rule.name)):
                return rule.lower(context, layer, inputs, masks)
        except RULE_ERRORS as error:
            where = f"the TFLite rule for {rule.name} ({rule.lower.__module__}), applied to layer {layer.name!r},"
            raise ConversionError(f"{where} raised {type(error).__name__}: {said(error)}", way_on(signature)) from error

    def traced(flat: Sequence[Any]) -> list[Any]:
        with replaced(program.layers, rules_for("tflite"), lowered):
            return program.call(flat)

    with quiet():
        captured = _captured(traced, program, signature)
        content = finished(*to_flatbuffer(program, captured, signature), signature, context.used)

    def save(path: Path) -> list[Path]:
        path.write_bytes(content)
        return [path]

    rules = dict(sorted(context.used.items()))
    return Converted("tflite", None, signature, rules, rules_for("tflite").broken, save, tuple(context.choices))


def _captured(traced: Callable[[Sequence[Any]], list[Any]], program: Program, signature: Signature) -> Capture:
    """The traced program, no layer marked: the rules have already put their operations in the layers' place.

    Raises ConversionError for a model that runs eagerly and cannot be traced, or not for these free sizes.
    """
    try:
        return capture(traced, signature.inputs, variables=program.variables, rules=RuleSet("tflite", {}))
    except ConversionError as error:
        if error.hint:
            raise
        # Raised within a layer's call, where Keras wraps the sentence in words of its own and drops the hint.
        raise ConversionError(said(error), way_on(signature)) from error
    except (ValueError, TypeError, NotImplementedError, tf.errors.OpError) as error:
        message = f"TensorFlow cannot trace the model {program.model.name!r}: {said(error)}"
        raise ConversionError(message, way_on(signature)) from error


def _refuse_large(program: Program) -> None:
    size = sum(int(tf.as_dtype(v.dtype).size) * int(v.value.shape.num_elements()) for v in program.variables)
    if size > LARGEST:
        raise ConversionError(
            f"the weights take {size / 1e9:.2f} GB; a TFLite file holds at most {LARGEST / 1e9:.0f} GB.",
            "Export to ONNX, which keeps large weights in a file beside the model, or make the model smaller.",
        )
