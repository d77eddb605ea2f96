"""Timing: all candidates of one model in one process, in turn and in a new random order each round.

1 thread: CPU time of the process. 2 threads: wall time, because a waiting worker spins, and CPU time would count its
wait. Before each sample the candidate runs once uncounted, so that it finds its own data in the caches and the workers
of the one before are asleep.
"""

from __future__ import annotations

import gc
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.engines import ENGINES, TENSORFLOW, Call, flush_denormals, tensorflow_threads
from benchmarks.figures import percentile
from benchmarks.models import Model, grid

SAMPLE = 4e-4
"""Seconds that one sample lasts at least, in as many calls as that takes."""

HEAVY = 1e-2
"""Seconds of a call from which on the uncounted call is left out: it changes nothing there and costs as much."""

SLOW = 1.0
"""Seconds of a round from which on a point is measured once in a process, and all peers in the first one alone."""


@dataclass(frozen=True)
class Plan:
    """What one process measures. side: "runtimes", or "tensorflow" with ours as the common denominator. few: only
    ours, its control and what the targets compare with, not all peers. repeats: how often each point is measured.
    budget: seconds for all candidates of one model at one point, each time. core: the one to run on.
    """

    run: int
    threads: int
    denormals: bool
    side: str
    few: bool
    repeats: int
    budget: float
    names: tuple[str, ...]
    core: int | None = None

    @property
    def file(self) -> str:
        return f"{self.side}-threads{self.threads}-{'zero' if self.denormals else 'plain'}-run{self.run}.json"


ROUNDS = (3, 15)
"""Least and most rounds; one round is enough where the budget is spent by it."""

CORE = ("ours", "control", "branches", "beside", "tf2onnx", "floor", "converter",
        "tflite ours", "tflite control", "tflite branches", "tflite converter")  # fmt: skip
"""What the targets compare."""


def measure(
    calls: Mapping[str, Call], clock: Callable[[], float], budget: float, rng: random.Random
) -> dict[str, float]:
    """The 20th percentile of the seconds of one call of each candidate."""
    cost = {name: _cost(call, clock) for name, call in calls.items()}
    repeats = {name: max(1, math.ceil(SAMPLE / max(seconds, 1e-7))) for name, seconds in cost.items()}
    warm = {name: seconds < HEAVY for name, seconds in cost.items()}
    turn = sum(seconds * (repeats[name] + warm[name]) for name, seconds in cost.items())
    least, most = ROUNDS
    rounds = max(1 if turn > budget else least, min(most, int(budget / max(turn, 1e-7))))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for _ in range(rounds):
        rng.shuffle(names)
        for name in names:
            if warm[name]:
                calls[name]()
            samples[name].append(_timed(calls[name], clock, repeats[name]))
    return {name: percentile(taken) for name, taken in samples.items()}


def _cost(call: Call, clock: Callable[[], float]) -> float:
    """Seconds of a call, roughly: the first allocates, so a quick one is asked again."""
    first = _timed(call, clock, 1)
    return first if first >= HEAVY else _timed(call, clock, 1)


def _timed(call: Call, clock: Callable[[], float], repeats: int) -> float:
    started = clock()
    for _ in range(repeats):
        call()
    return (clock() - started) / repeats


@dataclass(frozen=True)
class _File:
    """A candidate's file. points: label -> why it may not be timed there, None where it may."""

    name: str
    engine: str
    path: Path
    points: Mapping[str, str | None]


def _files(model: Model, cache: Path, plan: Plan) -> list[_File]:
    folder = cache / model.folder
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
    files = []
    for key, entry in meta.items():
        name = " ".join(key.split()[:2]) if key.startswith("tflite") else key
        if plan.side == "tensorflow":
            wanted = name == "ours" or entry["engine"] in TENSORFLOW
        else:
            wanted = entry["engine"] not in TENSORFLOW and (not plan.few or name in CORE)
        if entry["error"] or not wanted:
            continue
        file = _File(name, entry["engine"], folder / entry["file"], entry["points"])
        files.append(file)
        if name in ("ours", "tflite ours"):
            files.append(_File(name.replace("ours", "control"), file.engine, file.path, file.points))
    return files


def _beside(model: Model, cache: Path) -> tuple[Model, Path] | None:
    """The model timed in the same rounds, and the file we made of it."""
    if model.beside is None:
        return None
    (other,) = (candidate for candidate in grid() if candidate.name == model.beside)
    path = cache / other.folder / "ours.onnx"
    return (other, path) if path.exists() else None


def run(plan: Plan, cache: Path, results: Path) -> None:
    """Measure everything the plan names -> a file of {cell: {candidate: seconds}} in `results`."""
    if plan.core is not None:
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {available[plan.core % len(available)]})
    if plan.denormals:
        flush_denormals()
    if plan.side == "tensorflow":
        tensorflow_threads(plan.threads)
    clock = time.process_time if plan.threads == 1 else time.perf_counter
    rng = random.Random(plan.run)  # noqa: S311 - an order, no secret
    measured: list[dict[str, dict[str, float]]] = [{} for _ in range(plan.repeats)]
    models = [model for model in grid() if model.name in plan.names]
    rng.shuffle(models)
    for model in models:
        if not (cache / model.folder / "meta.json").exists():
            print(f"not prepared: {model.name}", file=sys.stderr)
            continue
        _measure_model(model, cache, plan, clock, rng, measured)
        gc.collect()
    results.mkdir(parents=True, exist_ok=True)
    (results / plan.file).write_text(json.dumps({"plan": asdict(plan), "runs": measured}, indent=1))
    print(f"{plan.file}: {time.process_time():.0f} s of CPU time", flush=True)


def _measure_model(
    model: Model,
    cache: Path,
    plan: Plan,
    clock: Callable[[], float],
    rng: random.Random,
    measured: list[dict[str, dict[str, float]]],
) -> None:
    files = _files(model, cache, plan)
    binds = {id(file): ENGINES[file.engine](model, file.path, plan.threads) for file in files if _timeable(file)}
    beside = _beside(model, cache) if plan.side == "runtimes" else None
    neighbour = beside and ENGINES["onnxruntime"](beside[0], beside[1], plan.threads)
    for repeat, cells in enumerate(measured):
        for point in dict.fromkeys((*model.points, *model.tflite)):
            feeds = model.feeds(point)
            for kind in ("onnx", "tflite"):
                calls = {
                    file.name.removeprefix("tflite "): binds[id(file)](feeds)
                    for file in files
                    if file.name.startswith("tflite") == (kind == "tflite") and file.points.get(point.label, "") is None
                }
                if kind == "onnx" and neighbour and beside and calls:
                    calls["beside"] = neighbour({name: feeds[name] for name in beside[0].inputs})
                cell = f"{model.name} | {kind} | {point.label}"
                if "ours" not in calls:
                    continue
                if len(calls) * _timed(calls["ours"], clock, 1) > SLOW:
                    if repeat:
                        continue
                    if plan.run:
                        calls = {name: call for name, call in calls.items() if name in CORE}
                cells[cell] = measure(calls, clock, plan.budget, rng)


def _timeable(file: _File) -> bool:
    return any(why is None for why in file.points.values())
