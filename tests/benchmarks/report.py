"""Markdown of what was timed: targets, means over groups, where we are slower, and every cell."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.columns import Column, column, load, parts
from benchmarks.figures import Ratio
from benchmarks.machine import described
from benchmarks.models import GROUPS, Model, grid
from benchmarks.reasons import why
from benchmarks.targets import Target, targets

TITLES = {
    "control": "control",
    "branches": "`--no-merge`",
    "beside": "ours, no mask",
    "floor": "bare products",
    "tf2onnx": "tf2onnx",
    "keras": "Keras export",
    "optimizer": "tf2onnx, ORT optimizer",
    "onnxslim": "tf2onnx, onnxslim",
    "openvino": "OpenVINO",
    "torch": "PyTorch",
    "function": "tf.function",
    "xla": "tf.function, XLA",
    "predict": "Keras predict",
    "converter": "tf.lite converter",
}
"""Candidates in the order of the tables. The first four are no peers: nobody would pick them instead."""

OWN = ("control", "branches", "beside", "floor")


def number(ratio: Ratio | None) -> str:
    """0.45 ±0.02, the half of the 95 % interval; a dash where nothing was measured."""
    if ratio is None:
        return "-"
    digits = max(0, 1 - math.floor(math.log10(ratio.mean))) if ratio.mean < 1 else 2
    shown = f"{ratio.mean:.{digits}f}"
    return shown if ratio.runs == 1 else f"{shown} ±{ratio.mean * ratio.spread:.{digits}f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def target_row(target: Target, columns: Sequence[Column]) -> tuple[str, ...]:
    """title, limit, mean, interval, verdict: met when the interval reaches the limit."""
    measured = column(columns, 1, target.denormals)
    ratio = measured.ratio([cell for cell in measured.cells if target.takes(cell)], target.peer, target.ours)
    limit = "" if target.limit is None else f"{target.limit:.3g}"
    if ratio is None:
        return target.title, limit, "-", "-", "not measured"
    span = f"{ratio.low:.3g} to {ratio.high:.3g}" if ratio.runs > 1 else "one run"
    if target.limit is None:
        verdict = "shown"
    else:
        verdict = "met" if ratio.low <= target.limit else f"missed by {ratio.low / target.limit - 1:.0%}"
    return target.title, limit, f"{ratio.mean:.3g}", span, verdict


@dataclass(frozen=True)
class Loss:
    """A cell in which another candidate is faster than ours. bound: how far the control differs from ours there."""

    cell: str
    column: Column
    peer: str
    ratio: Ratio
    bound: float

    def row(self) -> tuple[str, ...]:
        name, kind, point = parts(self.cell)
        return (
            name, kind, point, self.column.title, TITLES[self.peer], number(self.ratio), f"{self.bound:.2f}",
            why(self.cell, self.peer),
        )  # fmt: skip


def losses(columns: Sequence[Column]) -> list[Loss]:
    """Wherever the interval of ours / peer lies above what the control differs from ours."""
    found = []
    for measured in columns:
        for cell in measured.cells:
            control = measured.ratio([cell], "control")
            bound = max(control.high, 1 / control.low) if control else 1.0
            for peer in TITLES:
                ratio = None if peer in OWN and peer != "branches" else measured.ratio([cell], peer)
                if ratio is not None and ratio.low > bound:
                    found.append(Loss(cell, measured, peer, ratio, bound))
    return found


def verdict_rows(columns: Sequence[Column], partitions: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The targets that are about every cell: merges, peers, partitions; in the columns of 1 thread."""
    lost = [loss for loss in losses(columns) if loss.column.threads == 1]
    rows = []
    for title, chosen in (
        ("no merge loses to N branches", [loss for loss in lost if loss.peer == "branches"]),
        ("no peer is faster, beyond the control", [loss for loss in lost if loss.peer != "branches"]),
    ):
        worst = max(chosen, key=lambda loss: loss.ratio.low, default=None)
        shown = "-" if worst is None else f"{worst.ratio.low:.3g} to {worst.ratio.high:.3g} ({worst.cell})"
        cells = len({loss.cell for loss in chosen})
        rows.append((title, "0", f"{cells} cells", shown.replace(" | ", ", "), "missed" if cells else "met"))
    several = sum(count != "1" for *_, count in partitions)
    verdict = "missed" if several else "met" if partitions else "not measured"
    rows.append(("TFLite attention in one XNNPACK partition", "1", f"{several} files with more", "-", verdict))
    return rows


def means(columns: Sequence[Column]) -> list[tuple[str, ...]]:
    """Each group and format against each peer, geometric means over the cells."""
    rows = []
    for group, models in GROUPS.items():
        names = {model.name for model in models()}
        for kind in ("onnx", "tflite"):
            for peer, title in TITLES.items():
                ratios, count = [], 0
                for threads, zero in ((1, False), (1, True), (2, False), (2, True)):
                    measured = column(columns, threads, zero, peer)
                    cells = [cell for cell in measured.cells if parts(cell)[0] in names and parts(cell)[1] == kind]
                    # A peer that failed somewhere is averaged over the rest.
                    cells = [cell for cell in cells if measured.ratio([cell], peer)]
                    ratios.append(measured.ratio(cells, peer))
                    count = max(count, len(cells))
                if count:
                    rows.append((group, kind, title, str(count), *map(number, ratios)))
    return rows


def cells_table(columns: Sequence[Column], models: Sequence[Model], kind: str, threads: int) -> str:
    """Every model and point: our time, and ours / peer for each, plain / denormals as zero; "" without any."""

    def pair(cell: str, peer: str) -> str:
        ratios = [column(columns, threads, zero, peer).ratio([cell], peer) for zero in (False, True)]
        return " / ".join(map(number, ratios)) if any(ratios) else "-"

    sessions = [column(columns, threads, zero) for zero in (False, True)]
    order = {model.name: index for index, model in enumerate(models)}
    chosen = [cell for cell in sessions[0].cells if parts(cell)[0] in order and parts(cell)[1] == kind]
    chosen.sort(key=lambda cell: order[parts(cell)[0]])
    shown = {cell: {peer: pair(cell, peer) for peer in TITLES} for cell in chosen}
    peers = [peer for peer in TITLES if any(ratios[peer] != "-" for ratios in shown.values())]
    rows = []
    for cell, ratios in shown.items():
        times = " / ".join(_duration(session.seconds(cell)) for session in sessions)
        rows.append((parts(cell)[0], parts(cell)[2], times, *(ratios[peer] for peer in peers)))
    return table(("model", "fed", "ours", *(TITLES[peer] for peer in peers)), rows) if rows else ""


def failures(cache: Path, models: Sequence[Model]) -> list[tuple[str, ...]]:
    """(candidate, reason, models) of everything that could not be made, opened, or does not compute the same."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for model in models:
        for key, entry in _meta(cache, model).items():
            name = " ".join(key.split()[:2]) if key.startswith("tflite") else key
            if entry["error"]:
                found[name, entry["error"]].append(model.name)
            for label, wrong in entry["points"].items():
                if wrong:
                    found[name, wrong].append(f"{model.name} {label}")
    return [
        (name, text, f"{len(where)}: {', '.join(where[:3])}{', ...' if len(where) > 3 else ''}")
        for (name, text), where in sorted(found.items())
    ]


def _meta(cache: Path, model: Model) -> dict[str, Any]:
    path = cache / model.folder / "meta.json"
    return json.loads(path.read_text()) if path.exists() else {}  # type: ignore[no-any-return]


def partitions(cache: Path, models: Sequence[Model]) -> list[tuple[str, ...]]:
    """(model, point, XNNPACK partitions) of our TFLite files with attention."""
    from ai_edge_litert.interpreter import Interpreter

    rows = []
    for model in models:
        for key, entry in _meta(cache, model).items():
            if key.startswith("tflite ours") and not entry["error"] and model.group in ("attention", "encoders"):
                interpreter = Interpreter(model_path=str(cache / model.folder / entry["file"]), num_threads=1)
                interpreter.allocate_tensors()
                kinds = [item["op_name"] for item in interpreter._get_ops_details()]
                rows.append((model.name, key.partition("ours ")[2], str(kinds.count("DELEGATE"))))
    return rows


HOW = """\
Ratios are time of our artifact / time of the peer: below 1 ours is faster. Each is measured within the rounds of one
process, the candidates of a model in turn and in a new random order each round; the figure of a run is the 20th
percentile of its samples, and `±` half of the 95 % interval over the runs. 1 thread is CPU time of the process, a run
is a process of its own. 2 threads is wall time, because a waiting worker spins and CPU time would count it; workers may
spin within a run and not beyond it. With 2 threads, and with TensorFlow, the runs are {repeats} passes of one process.
Points at which a round takes more than a second are measured once in these, and with all peers in the first process
alone. TensorFlow is kept out of the other processes; ours runs beside it. The control is our artifact opened a second
time. `a / b` is a plain session / one with denormals as zero, in processes of their own: ONNX Runtime's
`session.set_denormal_as_zero` holds for the process, so all candidates have it. OpenVINO computes in float32 as the
others do. A candidate whose outputs are not those of Keras, on the first call and on the second, is not timed. ONNX
files have free batch and time, TFLite files fixed ones. The bare products are the matrix products of the model alone
in one ONNX graph. "no mask" is ours on the same feeds without their mask.
"""


def write(cache: Path, output: Path, repeats: int) -> list[Path]:
    """The result files -> their paths."""
    columns = load(cache / "timings")
    models = grid()
    output.mkdir(parents=True, exist_ok=True)
    entries = [entry for model in models for entry in _meta(cache, model).values()]
    states = sorted({entry["converters"] for entry in entries if "converters" in entry})
    if len(states) > 1:
        states = [f"**{len(states)} states, so not all of one kind**: `prepare --fresh`"]
    measured = "; ".join(f"{len(found.runs)} of {found.side}, {found.title}" for found in columns)
    heading = f"Made by `make bench`. {described()}\nConverters: {', '.join(states)}. Runs: {measured}.\n"
    delegated = partitions(cache, models)
    rows = [*(target_row(target, columns) for target in targets()), *verdict_rows(columns, delegated)]
    loss_header = ("model", "format", "fed", "column", "faster", "ours / it", "control within", "why")
    means_header = ("group", "format", "ours /", "cells", "1 thread", "1, zero", "2 threads", "2, zero")
    sections = [
        "# Speed\n",
        heading,
        HOW.format(repeats=repeats),
        "## Targets\n\nMet when the 95 % interval reaches the limit. 1 thread, geometric means over the points.\n",
        table(("target", "at most", "measured", "95 % interval", ""), rows),
        "\n## Means over the groups\n",
        table(means_header, means(columns)),
        "\n## Where something else is faster\n\nEvery cell whose interval lies above what the control differs.\n",
        table(loss_header, [loss.row() for loss in losses(columns)]),
        "\n## TFLite: partitions of XNNPACK\n",
        table(("model", "fed", "partitions"), delegated),
        "\n## What could not be measured\n",
        table(("candidate", "why", "models"), failures(cache, models)),
    ]
    files = {output / "speed.md": sections}
    for group, of in GROUPS.items():
        texts = [f"# Speed: {group}\n", heading, "How it is measured: [speed.md](speed.md).\n"]
        for kind in ("onnx", "tflite"):
            for threads in (1, 2):
                if text := cells_table(columns, of(), kind, threads):
                    texts += [f"## {kind}, {threads} thread{'s' * (threads > 1)}\n", f"{text}\n"]
        files[output / f"speed_{group}.md"] = texts
    for path, texts in files.items():
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return list(files)
