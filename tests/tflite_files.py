"""Small .tflite files, written table by table with the classes of TFLite's schema: TensorFlow is not needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mh_edge.runtimes.base import Session

Make = Callable[[Path], Path]

RNG = np.random.default_rng(0)
DIM, UNITS, HIDDEN = 16, 8, 32

DTYPES = {"float32": "FLOAT32", "int32": "INT32", "int8": "INT8", "bool": "BOOL"}


@dataclass
class Graph:
    """One graph of a file. tensors: name -> index, in order."""

    tensors: list[Any] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    operators: list[Any] = field(default_factory=list)
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()


class File:
    """A file in the making; `graphs[0]` is the main graph."""

    def __init__(self, graphs: int = 1) -> None:
        self.graphs = [Graph() for _ in range(graphs)]
        self._buffers = [schema.BufferT()]
        self._codes: list[Any] = []

    def tensor(
        self,
        name: str,
        dtype: str,
        shape: Sequence[int],
        value: np.ndarray | None = None,
        graph: int = 0,
        **scales: Any,
    ) -> str:
        """Add a tensor, a constant when it has a value; -1 is a free size. scales: scale, zeroPoint, ..."""
        made = schema.TensorT()
        made.name, made.type = name.encode(), vars(schema.TensorType)[DTYPES[dtype]]
        made.shape, made.hasRank = [abs(size) for size in shape], True
        if min(shape, default=1) < 0:
            made.shapeSignature = list(shape)
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
            made.buffer = len(self._buffers)
            self._buffers.append(buffer)
        if scales:
            made.quantization = schema.QuantizationParametersT()
            for key, number in scales.items():
                setattr(made.quantization, key, number)
        owner = self.graphs[graph]
        owner.names[name] = len(owner.tensors)
        owner.tensors.append(made)
        return name

    def operator(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        graph: int = 0,
        version: int = 1,
        **options: Any,
    ) -> None:
        """Add an operation; options: of its table, which `table` names."""
        code, owner = schema.OperatorCodeT(), self.graphs[graph]
        code.builtinCode = vars(schema.BuiltinOperator)[kind]
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
        made = schema.OperatorT()
        made.opcodeIndex = len(self._codes)
        self._codes.append(code)
        made.inputs, made.outputs = ([owner.names[name] for name in end] for end in (inputs, outputs))
        if "table" in options:
            table = options.pop("table")
            made.builtinOptionsType = vars(schema.BuiltinOptions)[table]
            made.builtinOptions = vars(schema)[f"{table}T"]()
            for key, value in options.items():
                setattr(made.builtinOptions, key, value)
        owner.operators.append(made)

    def write(self, path: Path) -> Path:
        """Write the file, with a signature whose names are those of the tensors."""
        model = schema.ModelT()
        model.version, model.buffers, model.operatorCodes, model.subgraphs = 3, self._buffers, self._codes, []
        for graph in self.graphs:
            made = schema.SubGraphT()
            made.tensors, made.operators = graph.tensors, graph.operators
            made.inputs, made.outputs = ([graph.names[name] for name in end] for end in (graph.inputs, graph.outputs))
            model.subgraphs.append(made)
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs, signature.outputs = (
            [self._named(name) for name in end] for end in (self.graphs[0].inputs, self.graphs[0].outputs)
        )
        model.signatureDefs = [signature]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path

    def _named(self, name: str) -> Any:
        made = schema.TensorMapT()
        made.name, made.tensorIndex = name.encode(), self.graphs[0].names[name]
        return made


def weights(rows: int, columns: int) -> np.ndarray:
    return (RNG.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)


def dense(path: Path, batch: int = 1) -> Path:
    """y = softmax(V tanh(W x)), 4 operations, made by the rule Dense. batch: -1 leaves it free."""
    file = File()
    file.tensor("x", "float32", (batch, DIM))
    file.tensor("W", "float32", (HIDDEN, DIM), weights(HIDDEN, DIM))
    file.tensor("V", "float32", (UNITS, HIDDEN), weights(UNITS, HIDDEN))
    a = file.tensor("m/mh_edge.Dense/a", "float32", (batch, HIDDEN))
    b = file.tensor("m/tanh", "float32", (batch, HIDDEN))
    c = file.tensor("m/mh_edge.Dense/c", "float32", (batch, UNITS))
    file.tensor("y", "float32", (batch, UNITS))
    file.operator("FULLY_CONNECTED", ("x", "W"), (a,), table="FullyConnectedOptions")
    file.operator("TANH", (a,), (b,))
    file.operator("FULLY_CONNECTED", (b, "V"), (c,), table="FullyConnectedOptions")
    file.operator("SOFTMAX", (c,), ("y",), table="SoftmaxOptions", beta=1.0)
    file.graphs[0].inputs, file.graphs[0].outputs = ("x",), ("y",)
    return file.write(path)


def masked(path: Path, batch: int = 1) -> Path:
    """y = tanh(x) * cast(not hidden): XNNPACK has neither LOGICAL_NOT nor CAST; OpenVINO and the GPU have."""
    file = File()
    file.tensor("x", "float32", (batch, DIM))
    file.tensor("hidden", "bool", (batch, DIM))
    shown = file.tensor("shown", "bool", (batch, DIM))
    number = file.tensor("number", "float32", (batch, DIM))
    a = file.tensor("a", "float32", (batch, DIM))
    file.tensor("y", "float32", (batch, DIM))
    file.operator("LOGICAL_NOT", ("hidden",), (shown,))
    file.operator("CAST", (shown,), (number,))
    file.operator("TANH", ("x",), (a,))
    file.operator("MUL", (a, number), ("y",), table="MulOptions")
    file.graphs[0].inputs, file.graphs[0].outputs = ("x", "hidden"), ("y",)
    return file.write(path)


def broken(path: Path) -> Path:
    """y = tanh(x + [x != 0 anywhere]), 6 operations. OpenVINO takes no REDUCE_ANY, LiteRT's GPU no LOGICAL_OR of one
    tensor twice.
    """
    file = File()
    file.tensor("x", "float32", (1, DIM))
    file.tensor("zero", "float32", (), np.zeros((), np.float32))
    file.tensor("axis", "int32", (1,), np.array([1], np.int32))
    some = file.tensor("some", "bool", (1, DIM))
    one = file.tensor("one", "bool", (1, 1))
    same = file.tensor("same", "bool", (1, 1))
    number = file.tensor("number", "float32", (1, 1))
    a = file.tensor("a", "float32", (1, DIM))
    file.tensor("y", "float32", (1, DIM))
    file.operator("NOT_EQUAL", ("x", "zero"), (some,))
    file.operator("REDUCE_ANY", (some, "axis"), (one,), table="ReducerOptions", keepDims=True)
    file.operator("LOGICAL_OR", (one, one), (same,))
    file.operator("CAST", (same,), (number,))
    file.operator("ADD", ("x", number), (a,), table="AddOptions")
    file.operator("TANH", (a,), ("y",))
    file.graphs[0].inputs, file.graphs[0].outputs = ("x",), ("y",)
    return file.write(path)


def running_sum(path: Path) -> Path:
    """y = the sum of all x before: LiteRT's GPU adds its own x to each."""
    file = File()
    file.tensor("x", "float32", (1, DIM))
    file.tensor("axis", "int32", (), np.array(1, np.int32))
    file.tensor("y", "float32", (1, DIM))
    file.operator("CUMSUM", ("x", "axis"), ("y",), table="CumsumOptions", exclusive=True)
    file.graphs[0].inputs, file.graphs[0].outputs = ("x",), ("y",)
    return file.write(path)


def loop(path: Path) -> Path:
    """y = 8 x, by three times x + x in a WHILE."""
    file = File(3)
    shapes = {"i": ("int32", ()), "x": ("float32", (1, DIM))}
    for graph in range(3):
        for name, (dtype, shape) in shapes.items():
            value = np.zeros((), np.int32) if (graph, name) == (0, "i") else None
            file.tensor(name, dtype, shape, value, graph)
        file.graphs[graph].inputs = ("x",) if graph == 0 else ("i", "x")
    file.tensor("n", "int32", ())
    file.tensor("y", "float32", (1, DIM))
    file.operator("WHILE", ("i", "x"), ("n", "y"), table="WhileOptions", condSubgraphIndex=1, bodySubgraphIndex=2)
    file.graphs[0].outputs = ("y",)
    file.tensor("three", "int32", (), np.array(3, np.int32), 1)
    file.tensor("more", "bool", (), graph=1)
    file.operator("LESS", ("i", "three"), ("more",), 1)
    file.graphs[1].outputs = ("more",)
    file.tensor("one", "int32", (), np.array(1, np.int32), 2)
    for name, (dtype, shape) in shapes.items():
        file.tensor(f"{name}_next", dtype, shape, graph=2)
    file.operator("ADD", ("i", "one"), ("i_next",), 2, table="AddOptions")
    file.operator("ADD", ("x", "x"), ("x_next",), 2, table="AddOptions")
    file.graphs[2].outputs = ("i_next", "x_next")
    return file.write(path)


def weights_in_int8(path: Path, version: int = 1) -> Path:
    """y = W x with W in int8, a scale for each row of it. version: of FULLY_CONNECTED; 12 is the one that has such."""
    file = File()
    kernel = weights(UNITS, DIM)
    scale = np.abs(kernel).max(1) / 127
    file.tensor("x", "float32", (1, DIM))
    whole = np.rint(kernel / scale[:, None]).astype(np.int8)
    scales = {"scale": scale.tolist(), "zeroPoint": [0] * UNITS, "quantizedDimension": 0}
    file.tensor("W", "int8", (UNITS, DIM), whole, **scales)
    file.tensor("y", "float32", (1, UNITS))
    file.operator("FULLY_CONNECTED", ("x", "W"), ("y",), version=version, table="FullyConnectedOptions")
    file.graphs[0].inputs, file.graphs[0].outputs = ("x",), ("y",)
    return file.write(path)


def feeds(session: Session, batch: int = 1) -> dict[str, np.ndarray]:
    """Arrays for the inputs of the files above; no number of them is 0."""
    known = {
        "x": np.random.default_rng(1).standard_normal((batch, DIM)).astype(np.float32),
        "hidden": np.arange(batch * DIM).reshape(batch, DIM) % 3 == 0,
    }
    return {tensor.name: known[tensor.name] for tensor in session.signature.inputs}
