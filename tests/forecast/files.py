"""Small files as other exporters write them: .onnx by onnx.helper, .tflite by LiteRT's own schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None]
FLOAT, HALF, BOOL, INT32, INT64 = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64,
)  # fmt: skip


def node(op: str, inputs: Sequence[str], *outputs: str, **attributes: object) -> onnx.NodeProto:
    domain, _, name = op.rpartition(".")
    return helper.make_node(name, inputs, outputs, name=outputs[0], domain=domain, **attributes)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Shape]],
    constants: Mapping[str, np.ndarray] | None = None,
    outputs: Mapping[str, int] | None = None,
    opset: int = 17,
) -> Path:
    """outputs: name -> type; "y", a float, unless said otherwise."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in (outputs or {"y": FLOAT}).items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return path


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def dense(path: Path, batch: int | str | None = 1, **options: int) -> Path:
    """y = softmax(relu(x W) V): four nodes that every delegate has."""
    nodes = [
        node("MatMul", ["x", "W"], "a"),
        node("Relu", ["a"], "b"),
        node("MatMul", ["b", "V"], "c"),
        node("Softmax", ["c"], "y", axis=-1),
    ]
    return save(path, nodes, {"x": (FLOAT, [batch, 8])}, {"W": weights(8, 16), "V": weights(16, 4)}, **options)


def attention(path: Path, mask: int = FLOAT) -> Path:
    """The Attention of opset 23 with a mask of this type, between two products."""
    nodes = [
        node("MatMul", ["x", "W"], "q"),
        node("Attention", ["q", "q", "q", "m"], "a", q_num_heads=2, kv_num_heads=2),
        node("MatMul", ["a", "W"], "y"),
    ]
    inputs = {"x": (FLOAT, [1, 5, 8]), "m": (mask, [1, 1, 5, 5])}
    return save(path, nodes, inputs, {"W": weights(8, 8)}, opset=23)


def quantized(path: Path, *, back: bool) -> Path:
    """An int8 Gemm between DequantizeLinear and, if `back`, QuantizeLinear."""
    scale, zero = np.float32(0.1), np.uint8(128)
    constants = {
        "scale": scale, "zero": zero, "W8": np.ones((8, 4), np.int8), "Wscale": scale, "Wzero": np.int8(0),
        "V": weights(4, 8),
    }  # fmt: skip
    nodes = [
        node("Relu", ["x"], "r"),
        node("QuantizeLinear", ["r", "scale", "zero"], "x8"),
        node("DequantizeLinear", ["x8", "scale", "zero"], "xf"),
        node("DequantizeLinear", ["W8", "Wscale", "Wzero"], "Wf"),
        node("Gemm", ["xf", "Wf"], "g"),
    ]
    if back:
        nodes += [
            node("QuantizeLinear", ["g", "scale", "zero"], "g8"),
            node("DequantizeLinear", ["g8", "scale", "zero"], "h"),
        ]
    nodes += [node("MatMul", ["h" if back else "g", "V"], "y")]
    return save(path, nodes, {"x": (FLOAT, [1, 8])}, constants)


def lstm(path: Path, lengths: bool = False, **attributes: object) -> Path:
    """lengths: with sequence_lens computed from an input."""
    inputs: dict[str, tuple[int, Shape]] = {"x": (FLOAT, [5, 1, 3])}
    nodes = [node("LSTM", ["x", "W", "R", "B", *(["n"] if lengths else [])], "y", hidden_size=4, **attributes)]
    if lengths:
        inputs["lengths"] = (INT64, [1])
        nodes.insert(0, node("Cast", ["lengths"], "n", to=INT32))
    return save(path, nodes, inputs, {"W": weights(1, 16, 3), "R": weights(1, 16, 4), "B": weights(1, 32)})


def exported_by_others(path: Path) -> Path:
    """As PyTorch's exporter writes it: slashes in names, Constant nodes, a shape that is computed, sizes without a
    name, an optional input left out.
    """
    nodes = [
        node("Constant", [], "/Constant_output_0", value=numpy_helper.from_array(np.array([0, -1, 2, 4]))),
        node("Constant", [], "/high", value=numpy_helper.from_array(np.float32(6))),
        node("MatMul", ["input", "fc.weight"], "/fc/MatMul_output_0"),
        node("Clip", ["/fc/MatMul_output_0", "", "/high"], "/act/Clip_output_0"),
        node("Reshape", ["/act/Clip_output_0", "/Constant_output_0"], "/Reshape_output_0"),
        node("Transpose", ["/Reshape_output_0"], "y", perm=[0, 2, 1, 3]),
    ]
    return save(path, nodes, {"input": (FLOAT, [None, "tokens", 8])}, {"fc.weight": weights(8, 8)})


def loop(path: Path) -> Path:
    """Relu, then a Loop whose body has a Tanh."""
    body = helper.make_graph(
        [node("Tanh", ["state"], "next"), node("Identity", ["condition"], "again")],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("condition", BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, [1, 8]),
        ],
        [helper.make_tensor_value_info("again", BOOL, []), helper.make_tensor_value_info("next", FLOAT, [1, 8])],
    )
    nodes = [node("Relu", ["x"], "r"), node("Loop", ["times", "", "r"], "y", body=body)]
    return save(path, nodes, {"x": (FLOAT, [1, 8])}, {"times": np.array(3)})


def tflite(
    path: Path,
    operations: Sequence[tuple[str, Sequence[int], Sequence[int]]],
    tensors: Sequence[tuple[str, Shape, bool]],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> Path:
    """operations: (name, inputs, outputs); a name that LiteRT does not know is a custom operation's. tensors: (type,
    shape, whether it is stored in the file); a size of None is free.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    codes = vars(schema.BuiltinOperator)
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.description, model.buffers = 3, "test", [schema.BufferT()]
    model.operatorCodes, graph.operators, graph.tensors = [], [], []
    for place, (name, into, out) in enumerate(operations):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = codes.get(name, schema.BuiltinOperator.CUSTOM)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        code.customCode = None if name in codes else name
        operator.opcodeIndex, operator.inputs, operator.outputs = place, list(into), list(out)
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    for place, (kind, shape, stored) in enumerate(tensors):
        tensor = schema.TensorT()
        tensor.name, tensor.type = f"t{place}", vars(schema.TensorType)[kind.upper()]
        tensor.shape = [1 if size is None else size for size in shape]
        tensor.shapeSignature = [-1 if size is None else size for size in shape] if None in shape else None
        if stored:
            buffer = schema.BufferT()
            buffer.data = np.ones(shape, kind).view(np.uint8).ravel() if shape else np.ones(1, kind).view(np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(tensor)
    graph.inputs, graph.outputs, graph.name = list(inputs), list(outputs), "main"
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path
