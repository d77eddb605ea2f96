"""Large models: peak memory of an export in units of the weights, and its time by the number of layers.

    python -m benchmarks.scale [--output tests/benchmarks/results/scale.md]

Each export runs in a process of its own, one at a time; the largest needs 16 GB of free memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.export_cost import MEGABYTE, child, measure_memory
from benchmarks.machine import described

SIZES = {"onnx": (1000, 3000), "tflite": (1000, 1900, 2200)}
"""Megabytes of weights. ONNX files beyond 2 GB keep them in a file beside; TFLite ends there."""

TFLITE_MOST = 2000
"""Megabytes that a TFLite file can hold."""

MOST_GROWTH = 3.5
"""Peak memory growth in units of the weights that an export may need."""

LAYERS = (10, 50, 200)
NARROW = 64
HEADROOM = 1.2
"""Free memory asked for, in units of what the export may need at most."""


def layers_time(kind: str, layers: int) -> dict[str, float]:
    """Seconds of an export of so many narrow encoder layers, after one that is not counted."""
    import keras

    import mh_edge
    from mh_edge.layers import MultiHeadAttention

    def narrow(count: int) -> keras.Model:
        x = rows = keras.Input((16, NARROW), name="rows")
        for _ in range(count):
            x = keras.layers.LayerNormalization()(x + MultiHeadAttention(4)(x))
            x = keras.layers.LayerNormalization()(x + keras.layers.Dense(NARROW, activation="relu")(x))
        return keras.Model(rows, x, name="encoder")

    with tempfile.TemporaryDirectory() as folder:
        mh_edge.export(narrow(1), folder, formats=(kind,), verify=False)
        model = narrow(layers)
        started = time.perf_counter()
        mh_edge.export(model, folder, formats=(kind,), verify=False)
        return {"seconds": time.perf_counter() - started}


def free_megabytes() -> float:
    line = next(x for x in Path("/proc/meminfo").read_text().splitlines() if x.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024 / MEGABYTE


def memory_row(kind: str, megabytes: int) -> str:
    needed = (1 + MOST_GROWTH) * HEADROOM * megabytes
    if (free := free_megabytes()) < needed:
        return f"| {kind} | {megabytes} | not measured: {free:.0f} MB of memory were free, {needed:.0f} wanted | | | |"
    found = child("memory", "mh-edge", kind, megabytes, module="benchmarks.scale")
    if "error" in found:
        refused = kind == "tflite" and megabytes > TFLITE_MOST
        said = found["error"].partition(": ")[2]
        return f"| {kind} | {megabytes} | {said} | | | refused with a sentence: {'met' if refused else 'missed'} |"
    verdict = "met" if found["growth"] <= MOST_GROWTH else "missed"
    return (
        f"| {kind} | {found['weights'] / MEGABYTE:.0f} | {found['seconds']:.0f} | {found['growth']:.2f} | "
        f"{found['size'] / MEGABYTE:.0f} | at most {MOST_GROWTH}: {verdict} |"
    )


def layers_rows() -> list[str]:
    rows = []
    for kind in SIZES:
        for layers in LAYERS:
            seconds = child("layers", kind, layers, module="benchmarks.scale")["seconds"]
            rows.append(f"| {kind} | {layers} | {seconds:.1f} | {1000 * seconds / layers:.0f} |")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--formats", default="onnx,tflite")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        what, *rest = options.child
        if what == "memory":
            print(json.dumps(measure_memory(rest[0], rest[1], float(rest[2]))))
        else:
            print(json.dumps(layers_time(rest[0], int(rest[1]))))
        return
    lines = [
        f"# Scale\n\nMade by `make bench-scale`. {described()}\nWithout verification.\n\n## Memory\n",
        "| format | weights, MB | seconds | peak memory growth, x weights | file, MB | target |",
        "|---|---|---|---|---|---|",
    ]
    for kind in options.formats.split(","):
        for megabytes in SIZES[kind]:
            print(f"{kind}, {megabytes} MB", file=sys.stderr, flush=True)
            lines.append(memory_row(kind, megabytes))
            print(lines[-1], file=sys.stderr, flush=True)
    lines += [
        "\n## Time by layers\n",
        "| format | layers | seconds | ms for each layer |",
        "|---|---|---|---|",
        *layers_rows(),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
