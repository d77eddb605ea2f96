"""Converting for a test: a Keras model -> an ONNX file, and what is in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx

import mh_edge_onnx
from mh_edge.program import Program, program
from mh_edge.verification import Verification, verify
from mh_edge.verification.domains import derive


def convert(model, path: Path, *, opset=None, runtime="cpu", **sizes) -> tuple[Program, Path]:
    """The program of a model and its file, checked by ONNX's own checker."""
    source = derive(program(model))
    mh_edge_onnx.convert(source, source.signature.pin(sizes), opset=opset, runtime=runtime).save(path)
    checked(path)
    return source, path


def checked(path: Path) -> None:
    """ONNX's own full check, and its shape inference, which must find nothing that contradicts."""
    onnx.checker.check_model(str(path), full_check=True)
    onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True, data_prop=True)


def proven(model, path: Path, **options) -> Verification:
    """Convert, then verify against the model."""
    source, file = convert(model, path, **options)
    return verify(source, [file])


def operations(path: Path) -> Counter:
    return Counter(node.op_type for node in onnx.load(path).graph.node)
