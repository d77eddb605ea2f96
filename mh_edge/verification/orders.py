"""The second yardstick: how far float32 results of the same model lie apart when they are computed in another order.

Orders that can be had within one process: the graph (the value itself), eager, XLA, one row of the batch at a time, and
the graph on inputs one unit in the last place away. (oneDNN's kernels can only be chosen before TensorFlow is imported,
so they stay as they are.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from mh_edge.program import Program
from mh_edge.verification.evaluate import REFUSALS, Evaluator, reason
from mh_edge.verification.feeds import batch_name, nudged
from mh_edge.verification.reference import Refused

Order = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]

NUDGES = 2
XLA_SHAPES = 6  # XLA compiles anew for every shape, which takes seconds


class Orders:
    """Other float32 evaluations of a program."""

    def __init__(self, program: Program, evaluator: Evaluator) -> None:
        self.program = program
        self._evaluator = evaluator
        self._xla = Evaluator(program, xla=True)

    def runs(self, feeds: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Outputs by name of every order that the model allows."""
        orders: list[Order] = [self.eager, *(partial(self._nudged, seed) for seed in range(NUDGES))]
        if self._xla.traces(feeds) <= XLA_SHAPES:
            orders.append(self._xla.run)
        if batch_name(self.program.signature) is not None:
            orders.append(self._by_row)
        for order in orders:
            try:
                yield order(feeds)
            except Refused:
                continue  # this order is not to be had; the others speak for it

    def eager(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One operation at a time."""
        try:
            return self.program.run(feeds)
        except REFUSALS as error:
            raise Refused(reason(error)) from error

    def _nudged(self, seed: int, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._evaluator.run(nudged(self.program.signature, feeds, seed))

    def _by_row(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = next(iter(feeds.values())).shape[0]
        single = [
            self._evaluator.run({name: array[row : row + 1] for name, array in feeds.items()}) for row in range(rows)
        ]
        return {name: np.concatenate([outputs[name] for outputs in single]) for name in single[0]}
