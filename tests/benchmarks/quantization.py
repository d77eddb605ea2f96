"""Quantized files beside their float one, of trained models: what they lost, how small and how fast they are.

    python -m benchmarks.quantization --output tests/benchmarks/results/quantization.md

with tests/ on PYTHONPATH. Trains, quantizes by every candidate, judges each on test data, then times all of a model in
turn in one process; the cache folder keeps each step, and a second call does what is missing. Timing alone wants a
quiet machine: `--only make` and `--only time` run one half.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import quantization_candidates
from benchmarks.engines import ENGINES, Call, flush_denormals
from benchmarks.quantization_candidates import CANDIDATES, FIXED, Candidate
from benchmarks.quantization_report import BATCHES, CONTROL, FLOAT, Trained, load, timing, written
from benchmarks.quantization_task import TASKS, Set, Task
from benchmarks.timing import measure
from mh_edge.quiet import quiet

RUNS = 5
"""Processes that time each trained model."""

BUDGET = 2.0
"""Seconds for all candidates of one model at one batch in one process."""

CHUNK = 500
"""Test samples that are run at once where the batch is free."""

CRASHES = {number.value: number for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGBUS)}

MAKING = "making.json"
"""What the child that prepares is at: some tools take the process down with them."""

ENGINE = {"onnx": "onnxruntime", "tflite": "litert"}
FIXED_BATCH = {"tflite": 1}
"""The batch of the files of a format whose batch is fixed."""


def quantizers_hash() -> str:
    """Of the sources that make our quantized files."""
    import mh_edge

    digest = hashlib.sha256()
    for file in sorted((Path(mh_edge.__file__).parent / "quantization").rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def peers_hash() -> str:
    """Of the source that makes the peers' files."""
    return hashlib.sha256(Path(quantization_candidates.__file__).read_bytes()).hexdigest()[:12]


def prepare(task: Task, seed: int, folder: Path) -> None:
    """Train the model and export it, unless that was done; then make and judge each candidate."""
    with quiet():
        import keras

        import mh_edge
        from benchmarks.prepare import converters_hash

    folder.mkdir(parents=True, exist_ok=True)
    trained, exported = folder / "model.keras", folder / "exported"
    if not trained.exists():
        started = time.process_time()
        model, sets = task.train(seed)
        for name in ("calibration", "test"):
            np.savez(folder / f"{name}.npz", **sets[name])
        model.save(trained, include_optimizer=False)
        print(f"{task.name}, seed {seed}: trained in {time.process_time() - started:.0f} s of CPU time", flush=True)
    judged = folder / "judged.json"
    if not exported.exists() or exported.read_text() != converters_hash():
        model = keras.models.load_model(trained)
        mh_edge.export(model, folder / "ours.onnx", verify=False)
        for fixed in (FIXED, "ours.tflite"):
            mh_edge.export(model, folder / fixed, verify=False, batch=1, sequence=_longest(model, folder))
        _tf2onnx(model, folder / "tf2onnx.onnx")
        for stale in (judged, *folder.glob("*-prepared.onnx")):
            stale.unlink(missing_ok=True)
        exported.write_text(converters_hash())
    _judge_all(task, seed, folder, judged)


def _longest(model: Any, folder: Path) -> int | None:
    """The sequence length of the samples where the model leaves it free."""
    (first, *_) = model.inputs
    return read(folder / "test.npz")[first.name].shape[1] if first.shape[1] is None else None


def _tf2onnx(model: Any, path: Path) -> None:
    import tensorflow as tf
    import tf2onnx

    from benchmarks.peers import TF2ONNX_OPSET

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in model.inputs]
    function = tf.function(lambda *inputs: model(list(inputs), training=False))
    tf2onnx.convert.from_function(function, input_signature=specs, opset=TF2ONNX_OPSET, output_path=str(path))


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _judge_all(task: Task, seed: int, folder: Path, judged: Path) -> None:
    from benchmarks.prepare import reason

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    test = read(folder / "test.npz")
    current = {True: quantizers_hash(), False: peers_hash()}
    found: dict[str, Any] = json.loads(judged.read_text()) if judged.exists() else {}
    reference: dict[str, np.ndarray] = {}
    for format in ENGINE:
        path = folder / f"ours.{format}"
        reference[format] = answers(path, format, test)
        found[f"{format} {FLOAT}"] = _figures(path, path, reference[format], reference[format], test)
    for candidate in CANDIDATES:
        key, path = f"{candidate.format} {candidate.title}", folder / candidate.file
        made_by = current[bool(candidate.scheme)]
        if key in found and found[key]["made_by"] == made_by:
            continue
        path.unlink(missing_ok=True)
        (folder / MAKING).write_text(json.dumps([key, made_by]))
        started = time.process_time()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), quiet():
                candidate.make(folder, path)
            given = answers(path, candidate.format, test, candidate.batch)
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is what the table says of it
            found[key] = {"error": reason(error)}
        else:
            right = reference[candidate.format]
            found[key] = _figures(folder / f"ours.{candidate.format}", path, right, given, test)
        found[key] |= {"made_by": made_by}
        judged.write_text(json.dumps(found, indent=1))
        shown = found[key].get("error", "")
        print(f"{task.name}, seed {seed}: {key}, {time.process_time() - started:.0f} s {shown}", flush=True)


def answers(path: Path, format: str, samples: Set, batch: int | None = None) -> np.ndarray:
    """The first output on all samples, as numbers. batch: that of the file, where it is fixed."""
    inputs = {name: array for name, array in samples.items() if name != "labels"}
    count, size = len(samples["labels"]), batch or FIXED_BATCH.get(format, CHUNK)
    enter, leave = _integers(path) if format == "tflite" else ({}, _Scale(np.dtype("float32"), 0.0, 0))
    inputs = {name: enter[name].steps(array) if name in enter else array for name, array in inputs.items()}
    bind = ENGINES[ENGINE[format]](None, path, 1)  # type: ignore[arg-type] - a model that neither engine reads
    cuts = ({name: array[at : at + size] for name, array in inputs.items()} for at in range(0, count, size))
    return leave.numbers(np.concatenate([np.array(bind(cut)()[0]) for cut in cuts]))


@dataclass(frozen=True)
class _Scale:
    """number = value · (step − zero); value is 0 where the tensor holds numbers themselves."""

    dtype: np.dtype
    value: float
    zero: int

    def steps(self, numbers: np.ndarray) -> np.ndarray:
        if not self.value:
            return numbers
        limits = np.iinfo(self.dtype)
        return np.clip(np.round(numbers / self.value) + self.zero, limits.min, limits.max).astype(self.dtype)

    def numbers(self, steps: np.ndarray) -> np.ndarray:
        return (steps.astype("float32") - self.zero) * self.value if self.value else steps


def _integers(path: Path) -> tuple[dict[str, _Scale], _Scale]:
    """How the inputs by name, and the first output, of a TFLite file are quantized."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    scales = [_Scale(np.dtype(item["dtype"]), *item["quantization"]) for item in (*inputs, outputs[0])]
    names = [item["name"].removeprefix("serving_default_").partition(":")[0] for item in inputs]
    return dict(zip(names, scales, strict=False)), scales[-1]


def _figures(source: Path, path: Path, right: np.ndarray, given: np.ndarray, test: Set) -> dict[str, Any]:
    """What was lost, of class scores: (samples, classes)."""
    error = np.abs(right.astype("float64") - given)
    with np.errstate(divide="ignore"):
        decibels = 10 * np.log10(np.sum(right.astype("float64") ** 2) / np.sum(error**2))
    return {
        "accuracy": float(np.mean(given.argmax(1) == test["labels"])),
        "agreement": float(np.mean(given.argmax(1) == right.argmax(1))),
        "error": None,
        "mean_error_std": float(error.mean() / right.std()),
        "sqnr_db": float(decibels),
        "size_ratio": path.stat().st_size / source.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def measure_all(folder: Path, run: int, output: Path) -> None:
    """Time all candidates of one trained model in turn, twice the float one."""
    flush_denormals()
    judged: dict[str, Any] = json.loads((folder / "judged.json").read_text())
    test, rng = read(folder / "test.npz"), random.Random(run)  # noqa: S311 - an order, no secret
    del test["labels"]
    seconds: dict[str, dict[str, float]] = {}
    fixed = {one.title: one.batch for one in CANDIDATES if one.batch is not None}
    for format, engine in ENGINE.items():
        files = {FLOAT: folder / f"ours.{format}", CONTROL: folder / f"ours.{format}"}
        files |= {one.title: folder / one.file for one in CANDIDATES if _runs(one, format, judged)}
        opened = {title: ENGINES[engine](None, path, 1) for title, path in files.items()}  # type: ignore[arg-type]
        for batch in BATCHES[format]:
            calls: dict[str, Call] = {}
            for title, bind in opened.items():
                if fixed.get(title, batch) != batch:
                    continue
                enter = _integers(files[title])[0] if format == "tflite" else {}
                feeds = {name: array[:batch] for name, array in test.items()}
                calls[title] = bind({name: enter[name].steps(x) if name in enter else x for name, x in feeds.items()})
            seconds[f"{format} {batch}"] = measure(calls, time.process_time, BUDGET, rng)
    output.write_text(json.dumps({"files": _hashes(judged), "seconds": seconds}, indent=1))


def _runs(candidate: Candidate, format: str, judged: Mapping[str, Any]) -> bool:
    return candidate.format == format and judged[f"{format} {candidate.title}"]["error"] is None


def _hashes(judged: Mapping[str, Any]) -> dict[str, str]:
    return {key: entry["sha256"] for key, entry in judged.items() if entry["error"] is None}


def _timed(folder: Path, output: Path) -> bool:
    """Whether these very files were timed."""
    judged = json.loads((folder / "judged.json").read_text())
    return output.exists() and json.loads(output.read_text())["files"] == _hashes(judged)


def _folder(cache: Path, task: Task, seed: int) -> Path:
    return cache / f"{task.name.replace(' ', '-')}-{seed}"


def child(*arguments: object) -> int:
    """A step in a process of its own: training leaves threads and memory behind. -> 0, or the signal it died of."""
    command = [sys.executable, "-m", "benchmarks.quantization", "--child", *map(str, arguments)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, check=False, env=environment)
    if done.returncode > 0:
        sys.exit(f"failed: {' '.join(command)}")
    return -done.returncode


def make(one: Trained, cache: Path) -> None:
    """Prepare a trained model; a candidate that kills the process is written down as doing so, and passed over."""
    while died_of := child("make", one.number, one.seed, "--cache", cache):
        if died_of not in CRASHES:
            sys.exit(died_of)
        key, made_by = json.loads((one.folder / MAKING).read_text())
        judged = json.loads((one.folder / "judged.json").read_text())
        judged[key] = {"error": f"kills the process ({CRASHES[died_of].name})", "made_by": made_by}
        (one.folder / "judged.json").write_text(json.dumps(judged, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("MH_EDGE_BENCH", ".bench")) / "quantization")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", choices=("make", "time", "report"))
    parser.add_argument("--task", default="", help="a word in the name of the models wanted")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        step, number, seed, *rest = options.child
        task = TASKS[int(number)]
        folder = _folder(options.cache, task, int(seed))
        if step == "make":
            prepare(task, int(seed), folder)
        else:
            measure_all(folder, int(rest[0]), timing(folder, int(rest[0])))
        return
    trained = [
        Trained(task.name, number, seed, _folder(options.cache, task, seed))
        for number, task in enumerate(TASKS)
        for seed in task.seeds
        if options.task in task.name
    ]
    if options.only in (None, "make"):
        for one in trained:
            make(one, options.cache)
    if options.only in (None, "time"):
        for run in range(options.runs):
            for one in trained:
                if not _timed(one.folder, timing(one.folder, run)):
                    child("time", one.number, one.seed, run, "--cache", options.cache)
    if options.only in (None, "report"):
        text = written(load(trained))
        print(text)
        if options.output:
            options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
