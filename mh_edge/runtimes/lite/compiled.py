"""What the devices of LiteRT's CompiledModel share: the accelerator asked for alone, buffers, and what it says when it
does not take everything.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from mh_edge.errors import InputError, UnavailableError
from mh_edge.packages import require
from mh_edge.runtimes.base import first_line
from mh_edge.runtimes.lite.file import DEFAULT_SIGNATURE, LiteFile, plain_name
from mh_edge.runtimes.lite.nodes import Node, fallbacks
from mh_edge.runtimes.lite.printed import printed
from mh_edge.runtimes.placement import Fallback, Placement
from mh_edge.signature import Signature

OLDEST = (2, 3)
"""The first LiteRT whose compiled models take options from Python."""

PARTLY = "Some ops are not accelerated"
"""What LiteRT says when the accelerator alone does not take all operations."""

CPU = "LiteRT's CPU kernels"


class CompiledSession(LiteFile):
    """A .tflite file compiled for one accelerator.

    It is opened for the accelerator alone, which LiteRT refuses for a part of a graph. Only then is it opened for the
    accelerator and the CPU, where `is_fully_accelerated()` counts XNNPACK as an accelerator and so proves nothing: what
    ran where comes from what LiteRT printed when it shared the graph out.
    """

    accelerator: ClassVar[str]
    """LiteRT's name for it, "GPU"."""
    others: ClassVar[str]
    """Why it leaves operations to the CPU that it could take."""

    module = "ai_edge_litert"
    packages = ("ai-edge-litert",)

    @classmethod
    def load(cls) -> str:
        found = super().load()
        if tuple(map(int, found.split(".")[:2])) < OLDEST:
            wanted = f"{cls.packages[0]}>={'.'.join(map(str, OLDEST))}"
            raise UnavailableError(
                f"{cls.packages[0]} {found} does not let its {cls.accelerator} be asked for with options",
                f'pip install "{wanted}"',
            )
        return found

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """What is asked of the accelerator, by the names of LiteRT's Options."""

    @abstractmethod
    def _lacks(self, said: str) -> UnavailableError | None:
        """Why the device itself does not work, going by what was printed; None when it does."""

    @abstractmethod
    def _shared_out(self, said: str) -> tuple[int, int, dict[str, str]]:
        """By what was printed when the graph was shared out: how many operations the accelerator took, in how many
        parts, and the reason for each kind of operation that it does not take.
        """

    def _open(self) -> Signature:
        self._alone = True
        try:
            self._compile(self.accelerator)
        except RuntimeError as error:
            lacks = self._lacks(self._said)
            if lacks is not None:
                raise lacks from error
            if PARTLY not in str(error):
                raise self._unreadable(error) from error
            self._alone = False
            self._compile(self.accelerator, "CPU")
        self._shapes: dict[str, tuple[int | str, ...]] = {one.name: one.shape for one in self._told.inputs}
        if not self._told.free_dims():
            self._make_buffers()
        return self._told

    def _compile(self, *accelerators: str) -> None:
        library = require("ai_edge_litert.compiled_model", self.extra, f"the device {self.device!r}")
        named = library.HardwareAccelerator
        chosen = named(sum(named[name] for name in accelerators))
        options = library.Options(hardware_accelerators=chosen, **self._options())
        with self._heard():
            self._model = library.CompiledModel.from_file(str(self.path), options=options)
        names = self._model.get_signature_list()
        self._key = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else next(iter(names))

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """Keep what LiteRT prints."""
        failed = None
        with printed() as said:
            try:
                yield
            except RuntimeError as error:
                failed = error
        self._said = "".join(said)
        if failed is not None:
            raise failed

    def _make_buffers(self) -> None:
        index = self._model.get_signature_index(self._key)
        given = self._model.get_input_tensor_details(self._key)
        taken = self._model.get_output_tensor_details(self._key)
        self._given = dict(zip(map(plain_name, given), self._model.create_input_buffers(index), strict=True))
        self._taken = dict(zip(map(plain_name, taken), self._model.create_output_buffers(index), strict=True))
        shapes = {plain_name(name): tuple(one["shape"]) for name, one in taken.items()}
        self._results = [(self._taken[one.name], one.dtype, shapes[one.name]) for one in self._told.outputs]
        self._call = index, list(self._given.values()), list(self._taken.values())

    def _resize(self, feeds: dict[str, np.ndarray]) -> None:
        names = list(map(plain_name, self._model.get_input_tensor_details(self._key)))
        with self._heard():
            for name, array in feeds.items():
                self._model.resize_input_tensor(names.index(name), array.shape)
            self._make_buffers()
        self._shapes = {name: array.shape for name, array in feeds.items()}

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        try:
            if any(array.shape != self._shapes[name] for name, array in feeds.items()):
                self._resize(feeds)
            for name, array in feeds.items():
                self._given[name].write(array)
            self._model.run_by_index(*self._call)
            return [
                buffer.read(int(np.prod(shape)), np.dtype(dtype)).reshape(shape)
                for buffer, dtype, shape in self._results
            ]
        except (ValueError, RuntimeError) as error:
            raise self.refuse(reason(error)) from error

    def placement(self) -> Placement:
        """By what LiteRT said when it shared the graph out the last time. The body of a loop is its one WHILE."""
        whole = len(self._nodes)
        count, partitions, reasons = self._shared_out(self._said)
        if count == whole and not self._alone:  # it refused that, and what it prints does not tell why
            count, partitions = 0, 0
        refused: list[tuple[Node, str]] = [(node, reasons[node.op]) for node in self._nodes if node.op in reasons]
        named = fallbacks(refused, CPU)
        if (others := whole - count - len(refused)) > 0:
            named += (Fallback("(not named)", others, (), CPU, self.others),)
        if count == whole:
            return Placement(whole, whole, partitions, (), f"LiteRT compiled it for the {self.accelerator} alone")
        return Placement(whole, count, partitions, named, "what LiteRT prints when it shares a graph out")

    def _unreadable(self, error: Exception) -> InputError:
        return super()._unreadable(RuntimeError(reason(error)))

    def close(self) -> None:
        self._given, self._taken, self._results = {}, {}, []
        self._model.close()


def reason(error: Exception) -> str:
    """The sentence in what LiteRT raises, which begins with a line of its own source."""
    lines = [line.strip("└ ").strip() for line in str(error).splitlines()]
    return next((line for line in lines if line and not line.startswith("ERROR: [")), first_line(error))
