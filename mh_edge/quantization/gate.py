"""The gate of `--max-drop`: how much a quantized model may lose before it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gate:
    """kind "points": accuracy (without labels, top-1 agreement) may be at most `limit` percentage points below the
    float model's (below 100 %). kind "db": the SQNR of every output must be at least `limit` decibels.
    """

    kind: str
    limit: float

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "limit": self.limit}
