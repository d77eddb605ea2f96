"""Sessions that look their outputs up in a table, so that every figure can be computed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from mh_edge.quantization.data.sets import Batch, Data
from mh_edge.runtimes.base import Scale, Session
from mh_edge.runtimes.placement import Placement
from mh_edge.signature import Dim, Signature, Tensor


class Table(Session):
    """i: (batch,) -> row i of each array. calls: how many samples each call brought."""

    runtime = "a table"

    def __init__(
        self,
        outputs: Mapping[str, np.ndarray],
        *,
        batch: int | str = "batch",
        dtype: str = "int64",
        scales: Mapping[str, Scale] | None = None,
    ) -> None:
        self.path, self.threads = "table.tflite", None  # type: ignore[assignment]
        self.outputs = outputs
        self.input_scales, self.output_scales = {}, scales or {}
        self.calls: list[int] = []
        shapes: dict[str, tuple[Dim, ...]] = {name: (batch, *array.shape[1:]) for name, array in outputs.items()}
        self.signature = Signature(
            (Tensor("i", dtype, (batch,)),),
            tuple(Tensor(name, str(outputs[name].dtype), shape) for name, shape in shapes.items()),
        )

    @classmethod
    def load(cls) -> str:
        return "1"

    def _open(self) -> Signature:
        return self.signature

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.calls.append(len(feeds["i"]))
        return [array[feeds["i"]] for array in self.outputs.values()]

    def placement(self) -> Placement:
        return Placement(1, 1, 1, (), "a table")

    def close(self) -> None:
        """Nothing to let go."""


def samples(
    count: int,
    labels: np.ndarray | None = None,
    *,
    named: Mapping[str, np.ndarray] | None = None,
    batch: int = 2,
    fill: bool = False,
) -> Data:
    """The indices 0 to count - 1. fill: the last batch is filled up with index 0."""

    def batches() -> Iterator[Batch]:
        for first in range(0, count, batch):
            indices = np.arange(first, min(first + batch, count))
            filled = batch - len(indices) if fill else 0
            feeds = {"i": np.concatenate([indices, np.zeros(filled, np.int64)])}
            of = {name: array[indices] for name, array in (named or {}).items()}
            yield Batch(feeds, None if labels is None else labels[indices], first, filled, of)

    return Data("a table", batches, count)
