"""The targets: what our artifacts may take at most, as ratios to something timed in the same rounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.models import HEADS


@dataclass(frozen=True)
class Target:
    """time(ours) / time(peer) <= limit, a geometric mean over the cells whose name begins with one of `cells`.

    limit: None for what is only shown. denormals: measured with denormals as zero. ours: the numerator.
    """

    title: str
    limit: float | None
    cells: tuple[str, ...]
    peer: str
    denormals: bool = False
    ours: str = "ours"

    def takes(self, cell: str) -> bool:
        return cell.startswith(self.cells)


def _attention() -> list[Target]:
    rows = []
    for layer, owner in (("ours", "MultiHeadAttention"), ("keras", "Keras's MultiHeadAttention")):
        for kind, limits in (("tf2onnx", (0.45, 0.68, 0.95)), ("floor", (2.1, 1.25, 1.2))):
            against = {"tf2onnx": "tf2onnx", "floor": "the bare products"}[kind]
            for width, limit in zip(HEADS, limits, strict=True):
                cells = (f"attention {layer} d={width} none | onnx",)
                rows.append(Target(f"{owner}, d={width}, no mask / {against}", limit, cells, kind))
        for zero in (True, False):
            session = "denormals as zero" if zero else "plain session"
            for width, limit in ((64, 1.2), (256, 1.05)):
                cells = (f"attention {layer} d={width} both | onnx",)
                title = f"{owner}, d={width}, mask and history / no mask, {session}"
                rows.append(Target(title, limit if zero else None, cells, "beside", zero))
    return rows


def _parallel() -> list[Target]:
    dense = tuple(
        f"Dense d={size} | onnx"
        for size in ("64 units=16 heads=4", "256 units=32 heads=8", "512 units=64 heads=4", "256 units=256 heads=4")
    )
    sizes = ("in=8 filters=16", "in=32 filters=16", "in=32 filters=32", "in=64 filters=64", "in=128 filters=128")
    same, mixed = (tuple(f"Conv1D {size} kernels={kernels} | onnx" for size in sizes) for kernels in ("3-3-3", "3-5-7"))
    rows = [
        Target("parallel Dense / the bare product", 1.3, dense, "floor"),
        Target("Conv1D, same kernel size / N branches", 0.64, same, "branches"),
        Target("Conv1D, mixed kernel sizes / N branches", 0.73, mixed, "branches"),
    ]
    for cell in ("LSTM", "GRU"):
        for units in (8, 16):
            cells = (f"{cell} heads=4 units={units} plain | onnx", f"{cell} heads=4 units={units} masked | onnx")
            rows.append(Target(f"4 {cell} heads, units {units} / N branches", 0.72, cells, "branches"))
    return rows


LOOP = {16: 17, 32: 14, 64: 9, 256: 2.5}
"""How many times faster than tf2onnx's Loop an unmasked LSTM is, by units."""


def _recurrent() -> list[Target]:
    rows = []
    for cell in ("LSTM", "GRU"):
        for heads in (1, 4):
            for units in LOOP:
                cells = (f"{cell} heads={heads} units={units} masked | onnx",)
                title = f"masked {cell}, {heads} head{'s' * (heads > 1)}, units {units} / the same without a mask"
                rows.append(Target(title, 1.3, cells, "beside"))
    for units, times in LOOP.items():
        cells = (f"LSTM heads=1 units={units} masked | onnx",)
        title = f"unmasked LSTM, units {units} / tf2onnx's Loop"
        rows.append(Target(title, 1 / times, cells, "tf2onnx", ours="beside"))
        rows.append(Target(f"masked LSTM, units {units} / tf2onnx's Loop", None, cells, "tf2onnx"))
    for units, limit in ((16, 0.12), (32, 0.25), (64, 0.55)):
        cells = (f"LSTM heads=4 units={units} plain | tflite",)
        rows.append(Target(f"TFLite, 4 LSTM heads, units {units} / a WHILE graph", limit, cells, "converter"))
    return rows


TABLES: tuple[Callable[[], list[Target]], ...] = (_attention, _parallel, _recurrent)


def targets() -> list[Target]:
    return [target for table in TABLES for target in table()]
