"""What is measured: a grid of models, each with the points (time, batch) at which it is fed.

Weights come from a fixed seed, biases included, so that every candidate computes the same function. Building imports
Keras; the grid itself does not, so that a process that only measures time stays without TensorFlow.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

HEADS = {64: 4, 256: 8, 768: 12}
"""Attention heads for each width."""

MASKS = ("none", "padding", "history", "both")
"""padding: a boolean input over the keys. history: no key after the query. both: both."""

Sizes = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One set of feeds: `batch` sequences of `time` steps. holes: masks with gaps instead of padding on the right."""

    time: int
    batch: int
    holes: bool = False

    @property
    def label(self) -> str:
        return f"T={self.time} batch={self.batch}" + (" holes" if self.holes else "")


@dataclass(frozen=True)
class Model:
    """One model of the grid.

    kind, sizes: which function of `benchmarks.building` makes it, and its arguments; `benchmarks.torch_models` and
    `benchmarks.floors` know some kinds too. inputs: name -> width of a (batch, time, width) float input, or None for a
    (batch, time) mask. branches: also export with parallel heads kept apart. tflite: the points at which a TFLite file
    of fixed sizes is measured. tensorflow: whether Keras itself is measured. beside: a model whose artifact is timed
    in the same rounds.
    """

    name: str
    group: str
    kind: str
    sizes: Sizes
    points: tuple[Point, ...]
    inputs: Mapping[str, int | None]
    branches: bool = False
    tflite: tuple[Point, ...] = ()
    tensorflow: bool = False
    beside: str | None = None

    @property
    def folder(self) -> str:
        return self.name.replace(" ", "-").replace("=", "")

    def feeds(self, point: Point) -> dict[str, np.ndarray]:
        """Arrays by input name, the same in every process."""
        rng = np.random.default_rng(zlib.crc32(f"{self.name} {point.label}".encode()))
        return {name: _array(rng, point, width) for name, width in self.inputs.items()}


def _array(rng: np.random.Generator, point: Point, width: int | None) -> np.ndarray:
    if width is not None:
        return rng.normal(size=(point.batch, point.time, width)).astype("float32")
    if point.holes:
        mask = rng.random((point.batch, point.time)) < 0.75
    else:  # on average three quarters are valid, as in a batch of sentences
        lengths = rng.integers(point.time // 2, point.time, endpoint=True, size=point.batch)
        lengths[0] = max(1, round(point.time * 0.75)) if point.batch == 1 else point.time
        mask = np.arange(point.time) < lengths[:, None]
    mask[:, 0] = True
    return mask


ONE, EIGHT = 1, 8


def _points(times: tuple[int, ...], batches: tuple[int, ...] = (ONE, EIGHT), holes: bool = False) -> tuple[Point, ...]:
    return tuple(Point(time, batch, holes) for time in times for batch in batches)


def attention() -> list[Model]:
    models = []
    for layer in ("ours", "keras"):
        for width in HEADS:
            for mask in MASKS:
                prefix = f"attention {layer} d={width}"
                inputs: dict[str, int | None] = {"x": width}
                if mask in ("padding", "both"):
                    inputs["mask"] = None
                on_device = mask in ("none", "both") and layer == "ours"
                models.append(
                    Model(
                        f"{prefix} {mask}",
                        "attention",
                        "attention",
                        {"layer": layer, "width": width, "heads": HEADS[width], "mask": mask},
                        _points((16, 128, 512)),
                        inputs,
                        tflite=(Point(16, 1), Point(128, 1)) if on_device else (),
                        tensorflow=layer == "ours" and mask in ("none", "both"),
                        beside=None if mask == "none" else f"{prefix} none",
                    )
                )
    return models


RECURRENT_INPUT, RECURRENT_TIME = 32, 64


def recurrent() -> list[Model]:
    """Four heads that give their last output, and a single layer that gives its whole sequence."""
    models = []
    for cell in ("LSTM", "GRU"):
        for heads, units_tried in ((4, (8, 16, 32, 64, 256)), (1, (16, 32, 64, 256))):
            for units in units_tried:
                for masked in (False, True):
                    prefix = f"{cell} heads={heads} units={units}"
                    points = _points((RECURRENT_TIME,))
                    models.append(
                        Model(
                            f"{prefix} {'masked' if masked else 'plain'}",
                            "recurrent",
                            "recurrent",
                            {"cell": cell, "heads": heads, "units": units, "masked": masked},
                            (*points, Point(RECURRENT_TIME, EIGHT, holes=True)) if masked else points,
                            {"x": RECURRENT_INPUT} | ({"mask": None} if masked else {}),
                            branches=heads > 1,
                            tflite=(Point(RECURRENT_TIME, 1),) if heads > 1 and units in (16, 32, 64) else (),
                            tensorflow=heads > 1 and units in (16, 64),
                            beside=f"{prefix} plain" if masked else None,
                        )
                    )
    return models


def parallel() -> list[Model]:
    models = []
    for width, units, heads in ((64, 16, 4), (256, 32, 8), (512, 64, 4), (256, 256, 4)):
        for hidden in (None, 16):
            models.append(
                Model(
                    f"Dense d={width} units={units} heads={heads}" + (f" hidden={hidden}" if hidden else ""),
                    "parallel",
                    "dense",
                    {"width": width, "units": units, "heads": heads, "hidden": hidden},
                    (Point(1, 1), Point(64, 1), Point(64, 8)),
                    {"x": width},
                    branches=True,
                    tflite=(Point(64, 1),) if hidden is None else (),
                    tensorflow=width == 256 and units == 32,
                )
            )
    for filters, width in ((16, 8), (16, 32), (32, 32), (64, 64), (128, 128)):
        for kernels in ((3, 3, 3), (3, 5, 7)):
            models.append(
                Model(
                    f"Conv1D in={width} filters={filters} kernels={'-'.join(map(str, kernels))}",
                    "parallel",
                    "convolution",
                    {"width": width, "filters": filters, "kernels": kernels},
                    (Point(64, 1), Point(64, 8), Point(512, 1)),
                    {"x": width},
                    branches=True,
                    tflite=(Point(64, 1),),
                    tensorflow=filters == 32,
                )
            )
    return models


SCALES = {"small": (1, 8, 1), "medium": (4, 32, 1), "large": (8, 128, 8)}
"""Size of an example: factor of its widths, time, batch."""


def examples() -> list[Model]:
    """The models of the examples as they are, and larger."""
    models = []
    for size, (factor, time, batch) in SCALES.items():
        rows: dict[str, int | None] = {"rows": 8 * factor}
        lookup: dict[str, int | None] = {"query": 6 * factor, "key": 7 * factor, "value": 4 * factor}
        for kind in ("digits", "lstm_heads", "conv_heads", "hidden_heads", "bidirectional_heads", "self", "lookup"):
            point = Point(time, batch)
            models.append(
                Model(
                    f"example {kind} {size}",
                    "examples",
                    f"example_{kind}",
                    {"factor": factor} | ({"flat": time} if kind in ("conv_heads", "self") else {}),
                    (point,),
                    lookup if kind == "lookup" else rows,
                    branches="heads" in kind or kind == "digits",
                    tflite=(Point(time, 1),),
                    tensorflow=True,
                )
            )
    return models


def encoders() -> list[Model]:
    """Post-norm blocks of attention and two Dense with relu: tf2onnx writes no valid file for Keras's gelu."""
    models = []
    for layers in (6, 12):
        for masked in (False, True):
            models.append(
                Model(
                    f"encoder layers={layers} {'masked' if masked else 'plain'}",
                    "encoders",
                    "encoder",
                    {"layers": layers, "width": 256, "heads": 8, "inner": 1024, "masked": masked},
                    (Point(16, 1), Point(128, 1), Point(128, 8)),
                    {"x": 256} | ({"mask": None} if masked else {}),
                    tflite=(Point(128, 1),) if layers == 6 else (),
                    tensorflow=layers == 6,
                    beside=f"encoder layers={layers} plain" if masked else None,
                )
            )
    return models


GROUPS: Mapping[str, Callable[[], list[Model]]] = {
    "attention": attention,
    "recurrent": recurrent,
    "parallel": parallel,
    "examples": examples,
    "encoders": encoders,
}


def grid(only: str = "") -> list[Model]:
    """All models, or those whose name holds one of the comma-separated words of `only`."""
    words = [word for word in only.split(",") if word]
    models = [model for group in GROUPS.values() for model in group()]
    return [model for model in models if not words or any(word in model.name for word in words)]


QUICK = ("attention ours d=64 none", "attention ours d=64 both", "LSTM heads=4 units=16", "Dense d=64 units=16 heads=4",
         "Conv1D in=32 filters=32", "example lookup small", "encoder layers=6 masked")  # fmt: skip
"""What --quick measures: one or two of every group."""
