"""A Keras model as the reference, with its float64 truth where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mh_edge.errors import InputError
from mh_edge.program import Program
from mh_edge.streaming import Stream, over_calls
from mh_edge.verification.evaluate import Evaluator
from mh_edge.verification.orders import Orders
from mh_edge.verification.reference import EXPLICIT, FLOAT64, ORDERS, Arrays, Expected
from mh_edge.verification.truth import float64_truth


class KerasReference:
    """A Keras model; explicit: tolerances were given, so no yardstick is needed."""

    def __init__(self, program: Program, *, explicit: bool) -> None:
        self.signature = program.signature
        self.yardstick = EXPLICIT
        self._program = program
        self._explicit = explicit
        self._evaluator = Evaluator(program)
        self._truth: Evaluator | None = None
        self._prepared = False
        self._orders = Orders(program, self._evaluator)

    def prepare(self, feeds: Arrays) -> None:
        """Raises InputError when the model gives something else each time it runs."""
        if self._prepared:
            return
        self._prepared = True
        once, twice = self._evaluator.run(feeds), self._evaluator.run(feeds)
        for name, value in once.items():
            if not np.array_equal(value, twice[name], equal_nan=value.dtype.kind == "f"):
                raise InputError(
                    f"the model {self._program.model.name!r} gives another {name!r} each time it runs on one input.",
                    "A model with random layers, or one that keeps state, cannot be compared; take them out.",
                )
        if self._explicit:
            return
        truth = float64_truth(self._program, feeds)
        if isinstance(truth, str):
            self.yardstick = f"{ORDERS}, because {truth}"
        else:
            self._truth = truth
            self.yardstick = FLOAT64

    def expected(self, feeds: Arrays) -> Expected:
        plain = self._evaluator.run(feeds)
        return Expected(plain, None if self._truth is None else self._truth.run(feeds))

    def eager(self, feeds: Arrays) -> Expected:
        return Expected(self._orders.eager(feeds), None if self._truth is None else self._truth.run(feeds))

    def plain(self, feeds: Arrays) -> Arrays:
        return self._evaluator.run(feeds)

    def orders(self, feeds: Arrays) -> Iterator[Arrays]:
        return self._orders.runs(feeds)

    def over_calls(self) -> KerasReference | None:
        if not isinstance(self._program, Stream):
            return None
        return KerasReference(over_calls(self._program), explicit=self._explicit)
