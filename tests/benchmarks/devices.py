"""Our files on every device that works in this environment, as `mh-edge profile` measures them.

python -m benchmarks.devices prepare            # with the extra export: writes the files
python -m benchmarks.devices measure -o X.md    # with the devices' packages, without TensorFlow
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np

import mh_edge
from benchmarks.machine import described
from benchmarks.models import Model, Point, grid
from mh_edge.profiling.result import Row
from mh_edge.units import duration, percent

CACHE = Path(".bench/devices")

MODELS = (
    "attention ours d=64 padding", "attention ours d=256 both", "LSTM heads=4 units=16 masked",
    "Conv1D in=32 filters=32 kernels=3-5-7", "example digits medium", "encoder layers=6 masked",
)  # fmt: skip

FORMS = ("cpu", "plugins", "cuda")
"""The forms of --runtime that are measured."""

PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-ep-openvino", "onnxruntime-ep-webgpu", "onnxruntime-qnn",
    "ai-edge-litert", "openvino", "tflite-micro",
)  # fmt: skip

HEAD = ("file", "device", "p50", "time / first", "nodes there", "error", "remark")

INTRODUCTION = """# Our files on devices

`{command}`, {day}. {machine}

Batch 1, the lengths of the models' first point, one thread, weights and inputs of fixed seeds, some steps masked. Every
file is opened five times, in processes of its own, in turn with the others; the times are medians, the ratios are to
the first row of each model, with their 95 % interval. Nodes there: how many of the graph's the device itself ran.
Error: the largest difference from the CPU, as a share of the largest output. Remarks say where times are those of a
simulator or a software GPU, which prove places and numbers alone.
"""


def models() -> Iterator[tuple[Model, Point]]:
    """The models measured, each at its first point."""
    return ((model, model.points[0]) for model in grid() if model.name in MODELS)


def prepare() -> None:
    """Write the files of every model: each form of ONNX, and TFLite, all of fixed sizes."""
    from benchmarks.building import build

    for model, point in models():
        folder = CACHE / model.folder
        fixed = {"batch": point.batch, "sequence": point.time}
        for form in FORMS:
            mh_edge.export(build(model), folder, formats=("onnx",), runtime=form, name=form, verify=False, **fixed)
        mh_edge.export(build(model), folder, formats=("tflite",), name="tflite", verify=False, **fixed)
        np.savez(folder / "feeds.npz", **model.feeds(point))  # type: ignore[arg-type]
        print(model.name, flush=True)


def measure(devices: Sequence[str], seconds: float) -> Iterator[str]:
    """The lines of the page."""
    for model, point in models():
        folder = CACHE / model.folder
        files = [folder / f"{form}.onnx" for form in FORMS] + [folder / "tflite.tflite"]
        found = mh_edge.profile(files, devices, feeds=folder / "feeds.npz", seconds=seconds, allow_fallback=True)
        print(model.name, flush=True)
        yield f"\n## {model.name}, {point.label}\n"
        yield f"Noise: a factor of {found.noise:.2f}.\n"
        yield f"| {' | '.join(HEAD)} |"
        yield f"|{'---|' * len(HEAD)}"
        yield from (f"| {' | '.join(cells(row))} |" for row in found.rows)


def cells(row: Row) -> Iterator[str]:
    """What the table says of a row."""
    yield Path(row.artifact).name
    yield f"`{row.device}`"
    yield "" if row.latency is None else duration(row.latency.p50)
    yield (
        "" if row.ratio is None else f"{row.ratio.ratio:.2f} ({row.ratio.interval[0]:.2f}-{row.ratio.interval[1]:.2f})"
    )
    yield "" if row.placement is None else f"{row.placement.on_device} of {row.placement.nodes}"
    yield "" if row.agreement is None or row.agreement.error is None else percent(row.agreement.error)
    yield "; ".join(row.notes) if row.failure is None else f"not timed: {row.failure.message}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=("prepare", "measure"))
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--device", action="append", help="default: all that work here")
    parser.add_argument("--seconds", type=float, default=1.0)
    asked = parser.parse_args(arguments)
    if asked.step == "prepare":
        prepare()
        return
    devices = asked.device or [one.name for one in mh_edge.devices().devices if one.available]
    introduction = INTRODUCTION.format(
        command="make bench-devices", day=date.today().isoformat(), machine=described(PACKAGES)
    )
    text = "\n".join([introduction, *measure(devices, asked.seconds)]) + "\n"
    if asked.output is None:
        sys.stdout.write(text)
    else:
        asked.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
