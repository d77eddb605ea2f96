"""What the TFLite schemes that store weights in fewer bits share: which constants are weights, and what became of them.

Weights are the constant factors of products, and the tables that rows are taken from. Biases, gains, mask constants
and all else stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mh_edge.artifact import Artifact
from mh_edge.errors import ConversionError
from mh_edge.packages import require
from mh_edge.quantization import litert
from mh_edge.quantization.scheme import KeptFloat, Options, Quantized, Range

TABLE = "GATHER"

SLOTS: Mapping[str, tuple[int, ...]] = {
    "BATCH_MATMUL": (0, 1),
    "CONV_2D": (1,),
    "CONV_3D": (1,),
    "DEPTHWISE_CONV_2D": (1,),
    "EMBEDDING_LOOKUP": (1,),
    "FULLY_CONNECTED": (1,),
    TABLE: (0,),
    "TRANSPOSE_CONV": (1,),
}
"""Kind of operation -> which of its inputs may be weights."""

TABLE_BITS = 8


@dataclass(frozen=True)
class Weight:
    """A constant that an operation reads as a weight. tensor: its index in the operation's graph."""

    operation: litert.Operation
    tensor: int
    values: np.ndarray


def weights(model: Any, of: Iterable[litert.Operation]) -> list[Weight]:
    """The weights of a float model, in the order of the operations that read them."""
    slots = ((one, one.inputs[slot]) for one in of for slot in SLOTS.get(one.kind, ()) if slot < len(one.inputs))
    read = ((one, tensor, litert.constant(model, tensor, one.graph)) for one, tensor in slots if tensor >= 0)
    return [Weight(one, tensor, values) for one, tensor, values in read if values is not None]


def these(of: Iterable[litert.Operation]) -> str:
    """The regular expression of litert-quantizer for some operations; it finds none when there are none."""
    scopes = [litert.exactly(one.made)[1:-1] for one in of]
    return f"^(?:{'|'.join(scopes)})$" if scopes else "(?!)"


def quantize_weights(
    source: Artifact, model: Any, options: Options, scheme: str, recipe: Sequence[litert.Entry]
) -> Quantized:
    """The model with its weights as the recipe says, and its tables in 8 bits. keep_float wins over the recipe.

    Rows are taken from a table while they are integers, with one scale for all of it: no kernel knows several there.
    """
    of = litert.operations(model)
    asked = litert.kept_as_asked(of, options)
    found = weights(model, of)
    tables = [one for one in found if one.operation.kind == TABLE and one.operation.graph == 0]
    ranges = {one.operation.name: Range(float(one.values.min()), float(one.values.max())) for one in tables}
    entries = [*recipe, *_static(these(one.operation for one in tables)), *litert.leave_float(of, asked)]
    content = litert.quantized(litert.pack(model), entries, ranges or None)
    return told(source, found, content, asked, scheme)


def told(
    source: Artifact, found: Sequence[Weight], content: bytes, reasons: Mapping[str, str], scheme: str
) -> Quantized:
    """The bytes of a file with quantized weights, and which weights stayed in float. reasons: by operation, why; the
    others are none that the scheme takes. Raises ConversionError when all of them stayed.
    """
    made = litert.read_bytes(content)
    kept = [one for one in found if _constant_floats(made, one.operation)]
    if len(kept) == len(found):
        raise ConversionError(
            f"{source.path} has nothing that the scheme {scheme} quantizes: "
            f"{len(found) or 'no'} constant weights, all of them in float still.",
            "Keep the float file; or quantize less narrowly (keep_float), or by another scheme.",
        )
    unknown = "{} does not take the weights of {}"
    return Quantized(
        litert.saving(content),
        kept_float=tuple(
            KeptFloat(one.operation.name, reasons.get(one.operation.name, unknown.format(scheme, one.operation.kind)))
            for one in kept
        ),
    )
