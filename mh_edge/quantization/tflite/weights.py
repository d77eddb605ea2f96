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
from mh_edge.errors import ConversionError, InputError
from mh_edge.packages import require
from mh_edge.quantization.scheme import KeptFloat, Options, Quantized, Range
from mh_edge.quantization.tflite import model as litert

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

LARGEST_ROW = 1000.0
"""Embeddings are far smaller; -1e4 and -inf hide something, and beside them one scale leaves nothing of the rest."""

MASKING = f"its table holds entries beyond {LARGEST_ROW:.0f}, as masks do"

ONE_SCALE: Mapping[int, tuple[str, ...]] = {8: ("FULLY_CONNECTED", "BATCH_MATMUL"), 4: ("FULLY_CONNECTED",)}
"""Bits -> the kinds of operations that LiteRT has with one scale for all of a weight."""

SMALLEST_AND_GREATEST = "min_max_uniform_quantize"


@dataclass(frozen=True)
class Weight:
    """A constant that an operation reads as a weight. tensor: its index in the operation's graph."""

    operation: litert.Operation
    tensor: int
    values: np.ndarray

    @property
    def place(self) -> tuple[int, int]:
        """Graph and tensor; several operations may read the same."""
        return self.operation.graph, self.tensor


def weights(model: Any) -> list[Weight]:
    """The float weights of a model, in the order of the operations that read them. Raises InputError for those that are
    no numbers.
    """
    refuse_no_numbers(model)
    slots = (
        (one, one.inputs[slot])
        for one in litert.operations(model)
        for slot in SLOTS.get(one.kind, ())
        if slot < len(one.inputs) and one.inputs[slot] >= 0
    )
    read = ((one, tensor, litert.constant(model, tensor, one.graph)) for one, tensor in slots)
    return [Weight(one, tensor, values) for one, tensor, values in read if values is not None]


def refuse_no_numbers(model: Any) -> None:
    """Raises InputError for a weight or a bias with infinite entries or nan: as integers these would be some numbers.
    Tables may hold -inf, see MASKING.
    """
    for one in litert.operations(model):
        for tensor in one.inputs if one.kind in SLOTS else ():
            values = None if tensor < 0 else litert.constant(model, tensor, one.graph)
            if values is None or not (np.isnan(values) if one.kind == TABLE else ~np.isfinite(values)).any():
                continue
            name = model.subgraphs[one.graph].tensors[tensor].name.decode()
            raise InputError(
                f"the tensor {name!r}, which {one.name!r} multiplies with, holds nan or infinite numbers: "
                "the float file gives no numbers either.",
                "Train or export the model again.",
            )


class Recipe:
    """A recipe of litert-quantizer for weights; of two entries that fit an operation, the later one wins."""

    def __init__(self, options: Options) -> None:
        words = require("litert_quantizer.qtyping", litert.EXTRA, litert.PURPOSE).QuantGranularity
        self._one, self._each = words.TENSORWISE, words.CHANNELWISE
        self._per_channel = options.per_channel
        self._manager = require("litert_quantizer.recipe_manager", litert.EXTRA, litert.PURPOSE).RecipeManager()

    def dynamic(self, regex: str, bits: int, algorithm: str = SMALLEST_AND_GREATEST) -> None:
        """What the expression finds, where there is such a kernel: weights in `bits`, activations in 8 bits by their
        range at each call. LiteRT's convolutions take a scale for each channel only.
        """
        self._manager.add_dynamic_config(regex, "*", bits, self._each, algorithm)
        for kind in () if self._per_channel else ONE_SCALE[bits]:
            self._manager.add_dynamic_config(regex, kind, bits, self._one, algorithm)

    def tables(self, regex: str) -> None:
        """Tables in 8 bits. They have one scale: rows are taken while they are integers, and no kernel knows more."""
        self._manager.add_static_config(regex, TABLE, TABLE_BITS, TABLE_BITS, self._one)

    def entries(self) -> list[litert.Entry]:
        return list(self._manager.get_quantization_recipe())


def these(of: Iterable[litert.Operation]) -> str:
    """The regular expression of litert-quantizer for some operations; it finds nothing when there are none."""
    scopes = [litert.exactly(one.made)[1:-1] for one in of]
    return f"^(?:{'|'.join(scopes)})$" if scopes else "(?!)"


def by_recipe(model: Any, options: Options, recipe: Recipe) -> tuple[bytes, Mapping[str, str]]:
    """The file with its weights as the recipe says and its tables in 8 bits; keep_float wins over both. Also: why
    operations stay in float.
    """
    of = litert.operations(model)
    why = litert.kept_as_asked(of, options)
    tables = [one for one in weights(model) if one.operation.kind == TABLE and one.operation.graph == 0]
    masking = {one.operation.name: MASKING for one in tables if not np.abs(one.values).max() < LARGEST_ROW}
    tables = [one for one in tables if one.operation.name not in masking]
    ranges = {one.operation.name: Range(float(one.values.min()), float(one.values.max())) for one in tables}
    if tables:
        recipe.tables(these(one.operation for one in tables))
    entries = [*recipe.entries(), *litert.leave_float(of, why)]
    return litert.quantized(litert.pack(model), entries, ranges or None), masking | why


def told(source: Artifact, found: Sequence[Weight], content: bytes, why: Mapping[str, str], scheme: str) -> Quantized:
    """A file with quantized weights, and which weights stayed in float. found: the weights before. why: by operation;
    the others are none that the scheme takes. Raises ConversionError when all of them stayed.
    """
    reader = require("ai_edge_litert.tools.flatbuffer_utils", litert.EXTRA, litert.PURPOSE)
    names = {one.operation.name: one.operation.kind for one in weights(reader.read_model_from_bytearray(content))}
    if len({one.operation.name for one in found}) == len(names):
        some = next(iter(names), "")
        raise ConversionError(
            f"{source.path} has nothing that the scheme {scheme} for TFLite makes smaller: "
            + (f"{some!r} and all other operations keep their weights." if some else "no operation has weights."),
            "Keep the float file, or keep less in float.",
        )
    return Quantized(
        litert.saving(content),
        kept_float=tuple(
            KeptFloat(name, why.get(name, f"{scheme} has no form of {kind} in LiteRT")) for name, kind in names.items()
        ),
    )
