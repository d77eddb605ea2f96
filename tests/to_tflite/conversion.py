"""Converting for a test: a Keras model -> a TFLite file, and what is in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

import mh_edge_tflite
from mh_edge.flatbuffer import read_tables
from mh_edge.program import Program, program
from mh_edge.verification import Verification, verify
from mh_edge.verification.domains import derive


def convert(model, path: Path, **sizes) -> tuple[Program, Path]:
    """The program of a model and its file; the batch is 1 unless told."""
    source = derive(program(model))
    converted = mh_edge_tflite.convert(source, source.signature.pin({"batch": 1} | sizes))
    assert converted.save(path) == [path]
    return source, path


def proven(model, path: Path, **sizes) -> Verification:
    """Convert, then verify against the model: every feed twice, in any order, on one interpreter."""
    source, file = convert(model, path, **sizes)
    return verify(source, [file])


def operations(path: Path) -> Counter:
    """Operation -> count, subgraphs included."""
    return Counter(name for name, _ in read_tables(path, schema).ops)


def tables(path: Path) -> Any:
    """The whole file as objects of TFLite's schema."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))


def twins(path: Path) -> list[str]:
    """Products and boolean operations of one tensor with itself, which LiteRT's GPU accelerator does not survive, or
    does not take.
    """
    model = tables(path)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    parted = {getattr(schema.BuiltinOperator, name) for name in ("BATCH_MATMUL", "LOGICAL_AND", "LOGICAL_OR")}
    found = [one for graph in model.subgraphs for one in graph.operators if codes[one.opcodeIndex] in parted]
    return [str(one.inputs) for one in found if len(set(one.inputs)) < len(one.inputs)]
