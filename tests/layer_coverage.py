"""Which of Keras's layers become a file that computes the same, on both targets: the table of docs/coverage.md.

    python tests/layer_coverage.py --output docs/coverage.md

makes it again (minutes), and ends with 1 when a file does not compute what its model computes.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "converters")]

import keras  # noqa: E402
import numpy as np  # noqa: E402

from coverage_models import MODELS, WITHOUT  # noqa: E402
from mh_edge.artifact import FORMATS  # noqa: E402
from mh_edge.errors import MhEdgeError  # noqa: E402
from mh_edge.inspection import inspect  # noqa: E402
from mh_edge.program import Program, program  # noqa: E402
from mh_edge.quiet import quiet  # noqa: E402
from mh_edge.verification import verify  # noqa: E402
from mh_edge.verification.domains import derive  # noqa: E402

TARGETS = {"onnx": "ONNX", "tflite": "TFLite"}
BATCH = {"onnx": {}, "tflite": {"batch": 1}}
"""As an export fixes it."""

FIXED_LENGTH = 9
"""Of every free length, where lengths are fixed: odd, and room for every kernel."""

SPREAD = 0.5
"""Standard deviation of the random weights."""


@dataclass(frozen=True)
class Outcome:
    """One conversion. ops: of the file, None where there is none; reason: why it did not pass, None where it did."""

    ops: Mapping[str, int] | None
    reason: str | None


@dataclass(frozen=True)
class Row:
    """Of one model and one target: with its lengths free (None where it has none), and with all fixed."""

    free: Outcome | None
    fixed: Outcome

    @property
    def passed(self) -> bool:
        """With whatever is free in the model left free."""
        return (self.free or self.fixed).reason is None

    def cell(self) -> str:
        if self.free is None:
            return _cell("yes" if self.fixed.reason is None else "no", self.fixed)
        if self.free.reason is None:
            return _cell("yes" if self.fixed.reason is None else "free lengths alone", self.free)
        if self.fixed.reason is None:
            return f"{_cell('fixed lengths alone', self.fixed)}; free: {self.free.reason}"
        return _cell("no", self.free)


def _cell(verdict: str, outcome: Outcome) -> str:
    if outcome.reason is not None:
        return f"{verdict}: {outcome.reason}"
    ops = ", ".join(name if count == 1 else f"{count} {name}" for name, count in (outcome.ops or {}).items())
    return f"{verdict}: {ops or 'nothing to do'}"


def covered(name: str, target: str, *, with_fixed: bool = True) -> Row:
    """Convert and verify one of MODELS for one target."""
    source = _program(name)
    free = {dim: FIXED_LENGTH for dim in source.signature.free_dims() if dim != "batch"}
    if not free:
        return Row(None, _outcome(source, target, {}))
    first = _outcome(source, target, {})
    return Row(first, _outcome(source, target, free) if with_fixed else first)


@functools.lru_cache(maxsize=1)
@quiet()
def _program(name: str) -> Program:
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = MODELS[name]()
    for weight in model.variables:
        if weight.dtype == "float32":
            value = rng.normal(scale=SPREAD, size=weight.shape)
            weight.assign(np.abs(value) + SPREAD if "variance" in weight.path else value)
    return derive(program(model))


@quiet()
def _outcome(source: Program, target: str, sizes: Mapping[str, int]) -> Outcome:
    convert = importlib.import_module(FORMATS[target]).convert
    with tempfile.TemporaryDirectory() as folder:
        ops = None
        try:
            signature = source.signature.pin(BATCH[target] | sizes)
            options = {"opset": None, "runtime": "cpu"} if target == "onnx" else {}
            path, *_ = convert(source, signature, **options).save(Path(folder) / f"model.{target}")
            ops = inspect(path).ops
            (candidate,) = verify(source, path, label="Keras").candidates
            reason = None if candidate.passed else candidate.reasons[0]
        except MhEdgeError as error:
            reason = error.message
    return Outcome(ops, reason and " ".join(reason.replace(f"{folder}/", "").split()).replace("|", "/"))


def table(rows: Mapping[str, Mapping[str, Row]]) -> str:
    """The page. rows: by the name of the model, by target."""
    counts = [
        f"{title}: {sum(row[target].passed for row in rows.values())} of {len(rows)} models with their lengths free, "
        f"{sum(row[target].fixed.reason is None for row in rows.values())} with fixed lengths."
        for target, title in TARGETS.items()
    ]
    lines = [
        "# What becomes a file",
        "",
        f"Made by `python tests/layer_coverage.py` with Keras {keras.__version__}. For each layer and each activation:",
        "a model of it alone, some in several forms, exported and verified on the runtime of the target. `yes` means",
        "equal to Keras on the whole grid of feeds, with free lengths and with fixed ones; then come the operations",
        "of the file. The batch of a TFLite file is 1, as an export fixes it.",
        "",
        *(f"- {line}" for line in counts),
        "",
        "| layer or activation | ONNX | TFLite |",
        "|---|---|---|",
        *(f"| {name} | {row['onnx'].cell()} | {row['tflite'].cell()} |" for name, row in rows.items()),
        "",
        "## Left out",
        "",
        "| layer | why it makes no sense in a file |",
        "|---|---|",
        *(f"| {name} | {reason} |" for name, reason in WITHOUT.items()),
        "",
    ]
    return "\n".join(lines)


def _rows(name: str) -> dict[str, Row]:
    return {target: covered(name, target) for target in TARGETS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2, help="processes of TensorFlow")
    parser.add_argument("names", nargs="*", help="models to try and print, instead of making the page")
    given = parser.parse_args()
    names = given.names or list(MODELS)
    rows = {}
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        for name, row in zip(names, pool.map(_rows, names), strict=True):
            rows[name] = row
            if given.names or not all(one.passed for one in row.values()):
                print(name, *(f"\n  {target}: {one.cell()}" for target, one in row.items()), flush=True)
            if sys.stderr.isatty():
                print(f"\r{len(rows)}/{len(names)}", end="", file=sys.stderr)
    if not given.names:
        given.output.parent.mkdir(exist_ok=True)
        given.output.write_text(table(rows))
    outcomes = [one for row in rows.values() for found in row.values() for one in (found.free, found.fixed) if one]
    return int(any(one.ops is not None and one.reason is not None for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
