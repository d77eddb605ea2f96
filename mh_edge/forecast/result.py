"""What a delegate would take of a model file, foretold from the file: no device has run anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Blocker:
    """Nodes of one operation that the delegate would leave to the CPU. reason: why. fix: the option of `mh-edge export`
    or `mh-edge quantize` that mends it, empty where none does.
    """

    op: str
    count: int
    reason: str
    fix: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Forecast:
    """nodes: those that the delegate would take, of `total`, in so many connected `partitions`. A node is one of the
    graph as its runtime hands it to delegates (ONNX Runtime: after its basic optimizations), bodies of loops included.
    basis: where the knowledge comes from, with its version.
    """

    nodes: int
    total: int
    partitions: int
    blockers: tuple[Blocker, ...]
    basis: str
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it would take everything."""
        return 0 < self.total == self.nodes

    def to_json(self) -> dict[str, Any]:
        return {
            "nodes": self.nodes,
            "total": self.total,
            "partitions": self.partitions,
            "blockers": [blocker.to_json() for blocker in self.blockers],
            "basis": self.basis,
            "notes": list(self.notes),
            "measured": False,
        }


@dataclass(frozen=True)
class Refusal:
    """Why a delegate leaves a node, and what would mend it (see Blocker)."""

    reason: str
    fix: str = ""


def blockers(refused: Iterable[tuple[str, Refusal]]) -> tuple[Blocker, ...]:
    """Refused nodes by operation and reason, the most frequent first."""
    counts = Counter(refused)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0][0], item[0][1].reason))
    return tuple(Blocker(op, count, refusal.reason, refusal.fix) for (op, refusal), count in ordered)
