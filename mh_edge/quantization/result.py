"""What a quantization wrote, and what it found on the way."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mh_edge.artifact import Artifact
from mh_edge.errors import NotEqualError
from mh_edge.quantization.judging.gate import Gate
from mh_edge.quantization.judging.verdict import Verdict
from mh_edge.quantization.scheme import KeptFloat, RangeChange

if TYPE_CHECKING:
    from mh_edge.quantization.auto.ladder import Ladder
    from mh_edge.runtimes.tflite_micro import Arena


@dataclass(frozen=True)
class Quantization:
    """The outcome of `mh_edge.quantize`.

    source: the float file. scheme: as it was asked for; made: the scheme of the file written (another one after
    "auto"). artifact: what was written; None when a gate was not passed. verdict: float against quantized; None when a
    recipe was repeated without data. gate, min_speedup: what it had to pass; failed: the sentences about what it did
    not. ranges, kept_float: what `--explain` prints. arena: whether TFLite Micro runs it, and in how much memory; None
    where that was not tried. ladder: what "auto" tried.
    """

    source: Artifact
    scheme: str
    made: str
    artifact: Artifact | None
    verdict: Verdict | None
    gate: Gate | None = None
    min_speedup: float | None = None
    failed: tuple[str, ...] = ()
    ranges: tuple[RangeChange, ...] = ()
    kept_float: tuple[KeptFloat, ...] = ()
    notes: tuple[str, ...] = ()
    arena: Arena | None = None
    ladder: Ladder | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "command": "quantize",
            "source": str(self.source.path),
            "scheme": self.scheme,
            "made": self.made,
            "artifact": None if self.artifact is None else self.artifact.to_json(),
            "metrics": None if self.verdict is None else self.verdict.to_json(),
            "gate": None if self.gate is None else self.gate.to_json(),
            "min_speedup": self.min_speedup,
            "passed": not self.failed,
            "failed": list(self.failed),
            "ranges": [asdict(change) for change in self.ranges],
            "kept_float": [asdict(kept) for kept in self.kept_float],
            "notes": list(self.notes),
            "arena_bytes": None if self.arena is None else self.arena.bytes,
            "ladder": None if self.ladder is None else self.ladder.to_json(),
        }


class GateError(NotEqualError):
    """The quantized model lost more, or is slower, than the gates allow; nothing was written. outcome: all figures."""

    def __init__(self, outcome: Quantization, hint: str) -> None:
        super().__init__(f"nothing was written: {'; '.join(outcome.failed)}.", hint)
        self.outcome = outcome
