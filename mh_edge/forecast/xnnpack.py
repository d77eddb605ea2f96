"""XNNPACK, the fast kernels of phone CPUs.

.tflite: the interpreter of ai-edge-litert opens the file with XNNPACK, here, and says which nodes it took; on another
processor it may take others. .onnx: the checks of ONNX Runtime's XNNPACK execution provider
(microsoft/onnxruntime, core/providers/xnnpack, of March 2026), which only builds for phones have.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from mh_edge.forecast.delegate import Delegate, main_graph, names, predicted, sizes_fix
from mh_edge.forecast.graph import Graph, Node, first
from mh_edge.forecast.result import Forecast, Refusal, blockers
from mh_edge.packages import require, version
from mh_edge.quiet import quiet
from mh_edge.runtimes.base import first_line
from mh_edge.runtimes.lite import nodes as lite
from mh_edge.runtimes.lite.reasons import why_not

BASIS = "the checks of ONNX Runtime's XNNPACK execution provider (core/providers/xnnpack, March 2026)"
NOTE = "what XNNPACK leaves runs on the same CPU, in ONNX Runtime's own kernels"

OPERATIONS = names("Conv ConvTranspose MaxPool AveragePool Softmax Resize Gemm MatMul QLinearConv")
IMAGES = {"Conv": (3, 4), "ConvTranspose": (3, 4), "MaxPool": (4,), "AveragePool": (4,), "Resize": (4,)}
"""Dimensions that each takes."""


def _listed(node: Node, graph: Graph) -> Refusal | None:
    del graph
    head = node.input(0)
    if node.op not in OPERATIONS:
        return Refusal("the XNNPACK provider has no such operation")
    if head is not None and head.dtype not in ("float32", "uint8", "int8"):
        return Refusal(f"dtype {head.dtype}", "the float32 file" if head.dtype == "float16" else "")
    return None


def _shaped(node: Node, graph: Graph) -> Refusal | None:
    head, weight, bias = node.input(0), node.input(1), node.input(2)
    if head is None or head.shape is None:
        return Refusal("its size is known only at run time", sizes_fix(graph))
    if node.op in IMAGES and len(head.shape) not in IMAGES[node.op]:
        return Refusal(f"{len(head.shape)} dimensions, {' or '.join(map(str, IMAGES[node.op]))} are taken")
    needed = head.shape[1:] if node.op in IMAGES else head.shape[-1:] if node.op == "Softmax" else ()
    if free := [size for size in needed if isinstance(size, str)]:
        return Refusal(f"free size {free[0]!r}", sizes_fix(graph))
    if node.op in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        if weight is None or not weight.constant or not (bias is None or bias.constant):
            return Refusal("a product with something that is no constant")
        if (weight.rank or 0) > 2 and node.op in ("Gemm", "MatMul"):
            return Refusal(f"{weight.rank} dimensions of the weight, at most 2 are taken")
    return None


def _onnx(graph: Graph) -> Forecast:
    return predicted(graph, partial(first, checks=(main_graph, _listed, _shaped)), BASIS, (NOTE,))


LENGTH = 16
"""What free sizes are set to while the interpreter prepares the file; nothing is run."""

UNTOLD = "XNNPACK left it and does not say why"


def _tflite(graph: Graph) -> Forecast:
    module = require("ai_edge_litert.interpreter", "litert", "the forecast for a .tflite file")
    basis = f"XNNPACK of ai-edge-litert {version('ai-edge-litert')}, opened here on this processor"
    with quiet():
        try:
            interpreter = module.Interpreter(model_path=str(graph.path), num_threads=1)
            nodes = lite.listed(interpreter)
            _prepare(interpreter)
        except (ValueError, RuntimeError) as error:
            everything = blockers((node.op, Refusal("LiteRT cannot open the file")) for node in graph.nodes)
            return Forecast(0, len(graph.nodes), 0, everything, basis, (f"LiteRT says: {first_line(error)}",))
        parts = lite.parts(nodes, lite.listed(interpreter)[len(nodes) :])
    taken = {place for part in parts for place in part}
    refused = [(node.op, _refusal(node)) for place, node in enumerate(nodes) if place not in taken]
    bodies = len(graph.nodes) - len(nodes)
    notes = (f"{bodies} operations in bodies of loops are not counted: the interpreter does not list them",)
    return Forecast(len(taken), len(nodes), len(parts), blockers(refused), basis, notes if bodies else ())


def _prepare(interpreter: Any) -> None:
    for item in interpreter.get_input_details():
        shape = [LENGTH if size < 0 else int(size) for size in item["shape_signature"]]
        if -1 in item["shape_signature"]:
            interpreter.resize_tensor_input(item["index"], shape)
    interpreter.allocate_tensors()


def _refusal(node: lite.Node) -> Refusal:
    return Refusal(why_not(node) or UNTOLD, "quantize --scheme int8" if "int16" in node.dtypes else "")


DELEGATES = (Delegate("xnnpack", "onnx", _onnx), Delegate("xnnpack", "tflite", _tflite))
