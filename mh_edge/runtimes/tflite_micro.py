"""TFLite Micro, the interpreter for microcontrollers, on this machine: whether a file runs there, what it computes, and
how much memory it needs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mh_edge.errors import InputError
from mh_edge.flatbuffer import read_tables
from mh_edge.packages import require
from mh_edge.runtimes.base import Scale, Session, first_line
from mh_edge.signature import Signature, Tensor

EXTRA = "micro"

ALIGNMENT = 16
"""TFLite Micro lays tensors at multiples of this."""

FIRST_ARENA = 1 << 16
LARGEST_ARENA = 1 << 30
"""Far more than a microcontroller has: a model that needs more is not meant for one."""

TOO_SMALL = re.compile(r"Arena size is too small|Failed to (allocate|resize)|missing: \d")
UNKNOWN = re.compile(r"Didn't find op for builtin opcode '(\w+)'|custom op[^']*'([^']+)'")


class MicroSession(Session):
    """A .tflite file in the TFLite Micro interpreter. Its sizes are fixed: a file with free ones is refused."""

    runtime = "TFLite Micro"

    def _open(self) -> Signature:
        self._module = require("tflite_micro", EXTRA, f"running {self.path} in {self.runtime}").runtime
        signature = read_tables(self.path, self._module.schema_fb).signature
        for tensor in signature.inputs:
            if any(isinstance(dim, str) for dim in tensor.shape):
                raise InputError(
                    f"input {tensor.name!r} of {self.path} has the free shape ({', '.join(map(str, tensor.shape))}); "
                    f"{self.runtime} needs fixed sizes.",
                    "Export it with --batch 1 and --sequence N (or --dim NAME=N).",
                )
        self._content = self.path.read_bytes()
        self._inputs, self._outputs = self._places()
        self._interpreter, self._enough = self._fitting()
        self.input_scales = _scales(signature.inputs, map(self._interpreter.get_input_details, self._inputs))
        self.output_scales = _scales(signature.outputs, map(self._interpreter.get_output_details, self._outputs))
        return signature

    def _places(self) -> tuple[list[int], list[int]]:
        """Where each input and output of the signature stands among those of the graph that is run."""
        model = self._module.convert_bytearray_to_object(self._content)
        graph = model.subgraphs[0]
        if not model.signatureDefs:
            return list(range(len(graph.inputs))), list(range(len(graph.outputs)))
        definition = model.signatureDefs[0]
        if definition.subgraphIndex != 0:
            raise InputError(f"the signature of {self.path} is not that of its main graph.")

        def places(of: Sequence[Any], among: Sequence[int]) -> list[int]:
            return [list(among).index(one.tensorIndex) for one in of]

        return places(definition.inputs, graph.inputs), places(definition.outputs, graph.outputs)

    def _fitting(self) -> tuple[Any, int]:
        """An interpreter with an arena that is large enough, and the arena's size."""
        size = FIRST_ARENA
        while True:
            interpreter, said = self._tried(size)
            if interpreter is not None:
                return interpreter, size
            if not TOO_SMALL.search(said) or size >= LARGEST_ARENA:
                raise self._unreadable(said)
            size *= 2

    def _tried(self, arena: int) -> tuple[Any | None, str]:
        """An interpreter with an arena of that many bytes, None if it fails, and what it printed."""
        with _printed() as said:
            try:
                made = self._module.Interpreter.from_bytes(self._content, arena_size=arena)
            except RuntimeError:
                made = None
        return made, "".join(said)

    def _unreadable(self, said: str) -> InputError:
        if unknown := UNKNOWN.search(said):
            return InputError(
                f"{self.runtime} has no operation {unknown[1] or unknown[2]}, which {self.path} needs.",
                "Build the model without the layer that needs it, or run it in LiteRT.",
            )
        return InputError(
            f"{self.runtime} cannot run {self.path}: {first_line(said)}",
            "It takes float files and full-integer ones (the scheme int8).",
        )

    @functools.cached_property
    def arena_bytes(self) -> int:
        """The least memory for tensors and plans, in bytes, with which the interpreter is made: found by trying sizes.

        What its own print_allocations adds up is what stays in use; planning where tensors lie can take more. Pointers
        have 8 bytes here: a microcontroller of 32 bits needs somewhat less.
        """
        least, enough = 0, self._enough
        while enough - least > ALIGNMENT:
            middle = (least + enough) // 2 // ALIGNMENT * ALIGNMENT
            if self._tried(middle)[0] is None:
                least = middle
            else:
                enough = middle
        return enough

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        failed = None
        with _printed() as said:
            try:
                for array, place in zip(feeds.values(), self._inputs, strict=True):
                    self._interpreter.set_input(array, place)
                self._interpreter.invoke()
            except (ValueError, RuntimeError) as error:
                failed = error
        if failed is not None:
            raise self.refuse("".join(said) or failed) from failed
        return [np.array(self._interpreter.get_output(place)) for place in self._outputs]

    def close(self) -> None:
        del self._interpreter


def _scales(tensors: Iterable[Tensor], details: Iterable[dict[str, Any]]) -> dict[str, Scale]:
    quantized = ((tensor, one["quantization_parameters"]) for tensor, one in zip(tensors, details, strict=True))
    return {
        tensor.name: Scale(float(one["scales"][0]), int(one["zero_points"][0]), tensor.dtype)
        for tensor, one in quantized
        if len(one["scales"])
    }


@contextlib.contextmanager
def _printed() -> Iterator[list[str]]:
    """Within it nothing reaches descriptor 2, where TFLite Micro writes why it failed; the list has it afterwards."""
    said: list[str] = []
    with tempfile.TemporaryFile() as lines, open(os.dup(2), "wb") as kept:
        os.dup2(lines.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept.fileno(), 2)
            lines.seek(0)
            said.append(lines.read().decode(errors="replace"))
