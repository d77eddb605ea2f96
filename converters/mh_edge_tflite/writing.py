"""The finishing of a flatbuffer: Keras's names, nothing that differs from one conversion to the next.

TensorFlow names inputs and outputs after its graph, numbers its loops through the life of the process, and stores a
hash of the graph's text. Here the file gets a signature with the model's own names in their order, subgraphs are named
by their number, and the metadata that is left says which runtime version it needs and which rules made it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from mh_edge.flatbuffer import METADATA
from mh_edge.signature import Signature, Tensor
from mh_edge_tflite.standins import Kernels

IDENTIFIER = b"TFL3"
ALIGNMENT = 16
"""Of every buffer, as TFLite's schema demands (force_align); kernels map weights in place and read whole vectors."""

SIGNATURE_KEY = "serving_default"
RUNTIME_VERSION = b"min_runtime_version"
UNTAKEN = {schema.TensorType.BOOL, schema.TensorType.INT32, schema.TensorType.INT64}
"""Types of masks and positions, which XNNPACK leaves to the runtime's own operations."""

SLACK = 1 << 20
"""Bytes added to the size of the first allocation, for the tables."""


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """A buffer that is packed with the schema's alignment, which the generated code forgets.

    kernel: the numbers that go there instead of `data`, which is as long; they are laid out in place, without a copy.
    """

    kernel: Callable[[], np.ndarray] | None = None

    def Pack(self, builder: Any) -> Any:  # noqa: N802 (the generated name)
        data = None
        if self.data is not None:
            builder.StartVector(1, len(self.data), ALIGNMENT)
            builder.head -= len(self.data)
            values = self.data if self.kernel is None else self.kernel()
            np.ndarray(values.shape, values.dtype, builder.Bytes, builder.head)[...] = values
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def finished(content: bytes, kernels: Kernels, signature: Signature, rules: Mapping[str, int]) -> memoryview:
    """The flatbuffer with the signature's names and order, the same bytes for the same model.

    content: as the converter wrote it, its main graph's inputs and outputs in the signature's order. kernels: what goes
    into its buffers in the place of stand-ins, by the number of the buffer.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    main = model.subgraphs[0]
    _put_masks_first(main)
    model.signatureDefs = [_definition(main, signature)]
    for number, graph in enumerate(model.subgraphs):
        graph.name = "main" if number == 0 else f"subgraph_{number}"
    _rewrite_metadata(model, rules)
    model.buffers = [_aligned(buffer, kernels.get(number)) for number, buffer in enumerate(model.buffers)]
    model.description = "mh-edge"
    builder = flatbuffers.Builder(len(content) + SLACK)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    # A view: builder.Output() would copy the weights once more.
    return memoryview(builder.Bytes)[builder.Head() :]


def _put_masks_first(main: Any) -> None:
    """What reads the model's inputs alone, and booleans or integers there or makes them, becomes the first operations.

    A runtime with a delegate begins with the kind of the first operation, all of it that can be computed. The converter
    orders by names: were a product of an input the first, XNNPACK would compute it in a partition of its own, before
    the mask that the rest waits for.
    """
    made = {index for operator in main.operators for index in operator.outputs}

    def waits(operator: Any) -> bool:
        read = set(() if operator.inputs is None else operator.inputs)
        kinds = {main.tensors[index].type for index in [*(read & set(main.inputs)), *operator.outputs]}
        return not (made.isdisjoint(read) and kinds & UNTAKEN)

    main.operators.sort(key=waits)


def _definition(main: Any, signature: Signature) -> Any:
    """A SignatureDef over the main graph, whose inputs and outputs take the same names."""

    def maps(indices: Any, tensors: tuple[Tensor, ...]) -> list[Any]:
        entries = []
        for index, tensor in zip(indices, tensors, strict=True):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = tensor.name, int(index)
            entries.append(entry)
        return entries

    definition = schema.SignatureDefT()
    definition.signatureKey = SIGNATURE_KEY
    definition.subgraphIndex = 0
    definition.inputs = maps(main.inputs, signature.inputs)
    definition.outputs = maps(main.outputs, signature.outputs)
    for entry in [*definition.outputs, *definition.inputs]:
        main.tensors[entry.tensorIndex].name = entry.name
    return definition


def _rewrite_metadata(model: Any, rules: Mapping[str, int]) -> None:
    """Keep the runtime version the file needs, drop the hash of the conversion, add the rules."""
    kept = [entry for entry in model.metadata or [] if entry.name == RUNTIME_VERSION]
    for entry in model.metadata or []:
        if entry not in kept:
            model.buffers[entry.buffer].data = None
    rows = schema.MetadataT()
    rows.name = METADATA
    rows.buffer = len(model.buffers)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(json.dumps({"rules": dict(sorted(rules.items()))}).encode(), np.uint8)
    model.buffers.append(buffer)
    model.metadata = [*kept, rows]


def _aligned(buffer: Any, kernel: Callable[[], np.ndarray] | None) -> _Buffer:
    if buffer.offset or buffer.size:
        raise ValueError("the converter stored weights outside the flatbuffer, which it was not asked to do")
    result = _Buffer()
    result.data, result.kernel = buffer.data, kernel
    return result
