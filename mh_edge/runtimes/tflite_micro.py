"""TFLite Micro, the interpreter for microcontrollers, on this machine: whether a file runs there, what it computes, and
how much memory it needs.
"""

from __future__ import annotations

import functools
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mh_edge.errors import InputError, UnavailableError
from mh_edge.flatbuffer import read_tables
from mh_edge.packages import require, version
from mh_edge.runtimes.base import Scale, Session, first_line
from mh_edge.runtimes.lite.printed import printed
from mh_edge.runtimes.placement import Placement
from mh_edge.signature import Signature, Tensor

EXTRA = "micro"

ARENA_PER_BYTE, ARENA_BESIDE = 10, 1 << 20
"""How much arena is enough: for each byte of the file, as TFLite Micro itself guesses; and beside that and all tensors.
Too little must not be tried here, see micro_arena.
"""

NODE = re.compile(r"Node (\w+) \(number \d+\) failed")
UNKNOWN = re.compile(r"Didn't find op for builtin opcode '(\w+)'|custom op[^']*'([^']+)'")

LOCATED = re.compile(r"^\S+\.(cc|h)(:\d+)? ")
"""Where in TFLite Micro's own source a check failed."""


@dataclass(frozen=True)
class Arena:
    """bytes: the memory that TFLite Micro needs for a file; None when it does not run it, or cannot be asked. reason:
    why, as a sentence that does not name the file; empty when it runs.
    """

    bytes: int | None
    reason: str = ""


class MicroError(InputError):
    """TFLite Micro does not run a file; `reason` is a sentence that does not name it."""

    def __init__(self, path: Path, reason: str, hint: str) -> None:
        super().__init__(f"{str(path)!r} does not run: {reason}", hint)
        self.reason = reason


def arena(path: Path) -> Arena:
    """Whether TFLite Micro runs a .tflite file, and in how much memory. Raises InputError for a damaged file."""
    try:
        with MicroSession(path) as session:
            # Some of its kernels find out only now that they have no such type.
            inputs = session.signature.inputs
            session.run({one.name: np.zeros([int(dim) for dim in one.shape], one.dtype) for one in inputs})
            return Arena(session.arena_bytes)
    except MicroError as error:
        return Arena(None, error.reason)
    except UnavailableError as error:
        return Arena(None, str(error))


class MicroSession(Session):
    """A .tflite file in the TFLite Micro interpreter. Its sizes are fixed: a file with free ones is refused."""

    device = "tflite-micro"
    runtime = "TFLite Micro"
    formats = ("tflite",)
    packages = ("tflite-micro",)
    extra = EXTRA

    @classmethod
    def load(cls) -> str:
        require("tflite_micro", cls.extra, f"the device {cls.device!r}")
        return version(cls.packages[0]) or ""

    def _read_beside(self) -> None:
        self._module = require("tflite_micro", EXTRA, f"running {self.path} in {self.runtime}").runtime
        tables = read_tables(self.path, self._module.schema_fb)
        self._told, self._nodes = tables.signature, len(tables.ops)
        for tensor in self._told.inputs:
            if any(isinstance(dim, str) for dim in tensor.shape):
                raise MicroError(
                    self.path,
                    f"{self.runtime} needs fixed sizes, and the input {tensor.name!r} has the free shape "
                    f"({', '.join(map(str, tensor.shape))}).",
                    "Export it with --batch 1 and --sequence N (or --dim NAME=N).",
                )
        self._content = self.path.read_bytes()
        model = self._module.convert_bytearray_to_object(self._content)
        self.input_places, self.output_places = self._places(model)
        self._enough = len(self._content) * ARENA_PER_BYTE + ARENA_BESIDE + _tensor_bytes(model)
        if any(tensor.quantization and tensor.quantization.scale is not None for tensor in model.subgraphs[0].tensors):
            self.precision = "integers"

    def _open(self) -> Signature:
        self._interpreter = self._made()
        told = self._told
        self.input_scales = _scales(told.inputs, map(self._interpreter.get_input_details, self.input_places))
        self.output_scales = _scales(told.outputs, map(self._interpreter.get_output_details, self.output_places))
        return told

    def _places(self, model: Any) -> tuple[list[int], list[int]]:
        """Where each input and output of the signature stands among those of the graph that is run."""
        graph = model.subgraphs[0]
        if not model.signatureDefs:
            return list(range(len(graph.inputs))), list(range(len(graph.outputs)))
        definition = model.signatureDefs[0]
        if definition.subgraphIndex != 0:
            raise MicroError(self.path, f"{self.runtime} runs the main graph, and the signature is of another.", "")

        def places(of: Sequence[Any], among: Sequence[int]) -> list[int]:
            return [list(among).index(one.tensorIndex) for one in of]

        return places(definition.inputs, graph.inputs), places(definition.outputs, graph.outputs)

    def _made(self) -> Any:
        """The interpreter, with an arena that is large enough."""
        failed = None
        with printed() as said:
            try:
                return self._module.Interpreter.from_bytes(self._content, arena_size=self._enough)
            except RuntimeError as error:
                failed = error
        raise self._unreadable("".join(said)) from failed

    def _unreadable(self, said: str) -> MicroError:
        if unknown := UNKNOWN.search(said):
            return MicroError(
                self.path,
                f"{self.runtime} has no operation {unknown[1] or unknown[2]}.",
                "Build the model without the layer that needs it, or run it in LiteRT.",
            )
        node = NODE.search(said)
        why = LOCATED.sub("", first_line(said)).rstrip(".")
        what = f"its {node[1]}" if node else "it"
        return MicroError(
            self.path,
            f"{self.runtime} does not take {what}: {why}.",
            "It takes float files and full-integer ones (the scheme int8).",
        )

    @functools.cached_property
    def arena_bytes(self) -> int:
        """The least memory for tensors and plans, in bytes, with which the interpreter is made: found by trying sizes.

        What its own print_allocations adds up is what stays in use; planning where tensors lie can take more. Pointers
        have 8 bytes here: a microcontroller of 32 bits needs somewhat less.
        """
        measure = str(Path(__file__).with_name("micro_arena.py"))
        # -P: its folder, which has a module named tflite_micro, is not searched.
        program = [sys.executable, "-P", measure, str(self.path), str(self._enough)]
        done = subprocess.run(program, capture_output=True, text=True, check=False)  # noqa: S603 - our own file
        if done.returncode:
            raise MicroError(self.path, f"its arena cannot be measured: {first_line(done.stderr)}", "")
        return int(done.stdout)

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        failed = None
        with printed() as said:
            try:
                for array, place in zip(feeds.values(), self.input_places, strict=True):
                    self._interpreter.set_input(array, place)
                self._interpreter.invoke()
            except (ValueError, RuntimeError) as error:
                failed = error
        if failed is not None:
            raise self._unreadable("".join(said) or str(failed)) from failed
        return [np.array(self._interpreter.get_output(place)) for place in self.output_places]

    def _prepared(self, feeds: dict[str, np.ndarray]) -> Callable[[], object]:
        given = list(zip(feeds.values(), self.input_places, strict=True))

        def call() -> list[np.ndarray]:
            for array, place in given:
                self._interpreter.set_input(array, place)
            self._interpreter.invoke()
            return [self._interpreter.get_output(place) for place in self.output_places]

        return call

    def placement(self) -> Placement:
        """All of it: this interpreter has nothing to hand over to."""
        return Placement(self._nodes, self._nodes, 1, (), f"{self.runtime} knows no delegates")

    def close(self) -> None:
        del self._interpreter


def _tensor_bytes(model: Any) -> int:
    """At most: 8 bytes for each entry of each tensor."""
    tensors = (tensor for graph in model.subgraphs for tensor in graph.tensors if tensor.shape is not None)
    return sum(8 * math.prod(map(int, tensor.shape)) for tensor in tensors)


def _scales(tensors: Iterable[Tensor], details: Iterable[dict[str, Any]]) -> dict[str, Scale]:
    quantized = ((tensor, one["quantization_parameters"]) for tensor, one in zip(tensors, details, strict=True))
    return {
        tensor.name: Scale(float(one["scales"][0]), int(one["zero_points"][0]), tensor.dtype)
        for tensor, one in quantized
        if len(one["scales"])
    }
