"""What was timed, by column: how a session is opened and on how many threads."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engines import TENSORFLOW
from benchmarks.figures import Ratio, interval, per_run

Cells = Mapping[str, Mapping[str, float]]
"""cell -> candidate -> seconds; a cell is "model | format | point"."""


@dataclass(frozen=True)
class Column:
    """What the processes of one kind measured, one mapping for each run."""

    side: str
    threads: int
    denormals: bool
    runs: tuple[Cells, ...]

    @property
    def title(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"{threads}, {'denormals as zero' if self.denormals else 'plain'}"

    @property
    def cells(self) -> list[str]:
        return sorted({cell for run in self.runs for cell in run})

    def ratio(self, cells: Sequence[str], peer: str, ours: str = "ours") -> Ratio | None:
        """time(ours) / time(peer), over the runs that measured the peer; None where none did."""
        runs = [run for run in self.runs if any(peer in run.get(cell, {}) for cell in cells)]
        ratios = per_run(runs, cells, ours, peer)
        return interval(ratios) if ratios else None

    def seconds(self, cell: str, name: str = "ours") -> float | None:
        """The least of the runs."""
        taken = [run[cell][name] for run in self.runs if name in run.get(cell, {})]
        return min(taken) if taken else None


def load(timings: Path) -> list[Column]:
    found: dict[tuple[str, int, bool], list[Cells]] = defaultdict(list)
    for file in sorted(timings.glob("*.json")):
        content = json.loads(file.read_text())
        plan = content["plan"]
        found[plan["side"], plan["threads"], plan["denormals"]] += content["runs"]
    return [Column(*key, tuple(runs)) for key, runs in sorted(found.items())]


def column(columns: Sequence[Column], threads: int, denormals: bool, peer: str = "") -> Column:
    """The one in which this peer was measured; an empty one where it was not."""
    side = "tensorflow" if peer in TENSORFLOW else "runtimes"
    for found in columns:
        if (found.side, found.threads, found.denormals) == (side, threads, denormals):
            return found
    return Column(side, threads, denormals, ())


def parts(cell: str) -> tuple[str, str, str]:
    """(model, format, point)."""
    model, kind, point = cell.split(" | ")
    return model, kind, point
