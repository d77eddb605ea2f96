"""Why another candidate is faster where it is, as far as that was looked into."""

from __future__ import annotations

REASONS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "attention",
        ("openvino", "torch"),
        "not separated: attention in tiles, where ONNX Runtime writes all scores, and no denormals where masked",
    ),
    ("attention", ("function", "xla"), "TensorFlow's exponential gives zero where ours gives a denormal"),
)
"""(beginning of the cell, candidates, reason)."""


def why(cell: str, peer: str) -> str:
    return next((reason for start, peers, reason in REASONS if cell.startswith(start) and peer in peers), "")
