"""What an export costs: seconds and memory, against Keras's own `model.export`, on an encoder of 100 MB of weights.

    python -m benchmarks.export_cost [--megabytes 100] [--rounds 3] [--output results/export_cost.md]

Time: both tools in one process, in turn, after one round that is not counted; the median of each and of their ratio.
Memory: each tool in a process of its own, the growth of the peak resident size over what was resident with the model
built, in units of the weights. `mh-edge` is measured without verification; with it in a column of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import described

MEGABYTE = 1e6
KERAS_FORMAT = {"onnx": "onnx", "tflite": "litert"}
WIDTH, INNER, LENGTH = 1024, 4096, 16


def encoder(megabytes):
    """Blocks of attention and two Dense, each 12.6 M weights (50 MB), as many as fit, the last one narrower."""
    import keras

    from mh_edge.layers import MultiHeadAttention

    keras.utils.set_random_seed(0)
    rows = keras.Input((LENGTH, WIDTH), name="rows")
    x, left = rows, int(megabytes * MEGABYTE / 4)
    while left > 4 * WIDTH * WIDTH:
        inner = min(INNER, (left - 4 * WIDTH * WIDTH) // (2 * WIDTH))
        x = keras.layers.LayerNormalization()(x + MultiHeadAttention(8)(x))
        x = keras.layers.LayerNormalization()(
            x + keras.layers.Dense(WIDTH)(keras.layers.Dense(inner, activation="gelu")(x))
        )
        left -= 4 * WIDTH * WIDTH + 2 * WIDTH * inner
    model = keras.Model(rows, x, name="encoder")
    model(keras.ops.zeros((1, LENGTH, WIDTH)))  # Keras exports no model that was never called
    return model


def run(tool, kind, model, folder, verify=False):
    if tool == "mh-edge":
        import mh_edge

        mh_edge.export(model, folder, formats=(kind,), verify=verify)
    else:
        model.export(str(folder / f"keras.{kind}"), format=KERAS_FORMAT[kind], verbose=False)


def resident(field):
    """VmRSS or VmHWM of this process in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def measure_memory(tool, kind, megabytes):
    model = encoder(megabytes)
    weights = sum(variable.value.numpy().nbytes for variable in model.variables)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run(tool, kind, model, Path(folder))
        seconds = time.perf_counter() - started
        size = max(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return {"growth": (resident("VmHWM") - before) / weights, "weights": weights, "size": size, "seconds": seconds}


def measure_time(kind, megabytes, rounds):
    model = encoder(megabytes)
    seconds = {"mh-edge": [], "keras": []}
    verified = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for tool in sorted(seconds, reverse=bool(turn % 2)):
                started = time.perf_counter()
                run(tool, kind, model, Path(folder))
                if turn:
                    seconds[tool].append(time.perf_counter() - started)
        started = time.perf_counter()
        run("mh-edge", kind, model, Path(folder), verify=True)
        verified.append(time.perf_counter() - started)
    ratios = [ours / theirs for ours, theirs in zip(seconds["mh-edge"], seconds["keras"], strict=True)]
    return {
        "mh-edge": statistics.median(seconds["mh-edge"]),
        "keras": statistics.median(seconds["keras"]),
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "verified": verified[0],
    }


def child(*arguments, module="benchmarks.export_cost"):
    """The result of the module's `--child` in a process of its own."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-m", module, "--child", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def table(megabytes, rounds):
    lines = [
        "| format | tool | seconds | ratio to Keras (min to max) | peak memory, x weights | file, MB | with proof, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in KERAS_FORMAT:
        print(f"measuring {kind}", file=sys.stderr)
        timed = child("time", kind, megabytes, rounds)
        if "error" in timed:
            lines.append(f"| {kind} | both | {timed['error']} | | | | |")
            continue
        for tool in ("mh-edge", "keras"):
            memory = child("memory", tool, kind, megabytes)
            ours = tool == "mh-edge"
            ratio = f"{timed['ratio']:.2f} ({timed['spread'][0]:.2f} to {timed['spread'][1]:.2f})" if ours else "1"
            proof = f"{timed['verified']:.1f}" if ours else ""
            lines.append(
                f"| {kind} | {tool} | {timed[tool]:.1f} | {ratio} | {memory['growth']:.1f} | "
                f"{memory['size'] / MEGABYTE:.1f} | {proof} |"
            )
    return "\n".join(lines)


def heading(megabytes, rounds):
    return (
        f"# Cost of an export\n\nEncoder of {megabytes:g} MB of weights, {rounds} rounds. "
        f"{described(('tensorflow', 'keras', 'tf2onnx', 'numpy'))}\n"
        "Made by `python -m benchmarks.export_cost`.\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, *rest = options.child
        if what == "memory":
            print(json.dumps(measure_memory(rest[0], rest[1], float(rest[2]))))
        else:
            print(json.dumps(measure_time(rest[0], float(rest[1]), int(rest[2]))))
        return
    text = f"{heading(options.megabytes, options.rounds)}\n{table(options.megabytes, options.rounds)}\n"
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
