"""Why another candidate is faster where it is, as far as that was looked into."""

from __future__ import annotations

REASONS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "attention",
        ("openvino", "torch"),
        "attention in tiles that stay in the cache; ONNX Runtime's kernel writes the whole matrix of scores",
    ),
    ("attention", ("function", "xla"), "TensorFlow's exponential gives zero where ours gives a denormal"),
)
"""(beginning of the cell, candidates, reason)."""


def why(cell: str, peer: str) -> str:
    return next((reason for start, peers, reason in REASONS if cell.startswith(start) and peer in peers), "")
