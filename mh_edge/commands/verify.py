"""`mh-edge verify REFERENCE CANDIDATE...`, and `mh-edge verify BUNDLE`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mh_edge.commands import tables
from mh_edge.commands.command import Command, Outcome
from mh_edge.commands.options import load_feeds, model_options, proof_options
from mh_edge.commit import recover
from mh_edge.errors import NotEqualError

if TYPE_CHECKING:
    from rich.console import Console

    from mh_edge.quantization.judging.verdict import Verdict
    from mh_edge.verification import Candidate, Verification, Worst

ARTIFACT_SUFFIXES = (".onnx", ".tflite")

YARDSTICKS = {
    "float64 clone": "a float64 copy of the model",
    "float32 orders": "Keras's float32 in several orders",
    "explicit tolerances": "the tolerance given",
    "gates": "what their gates allow",
}
"""A report's yardstick (mh_edge.verification.reference) in words."""


@click.command(cls=Command, short_help="Prove that files compute the same.")
@click.argument("reference", metavar="REFERENCE|BUNDLE")
@click.argument("candidates", metavar="[CANDIDATE...]", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--evaluation",
    metavar="DATA",
    help="What a quantized CANDIDATE is judged on: an .npz (inputs by name, and `labels` or `labels.<output>`), a "
    "folder of .npy or .npz, or package.module:function that yields feeds.",
)
@click.option(
    "--max-drop",
    metavar="1%|30dB|1%,30dB",
    help="What a quantized CANDIDATE may lose, instead of the gate in its manifest: points of accuracy (without "
    "labels, of top-1 agreement), the least signal-to-noise ratio, or both.",
)
@click.option(
    "--metric",
    metavar="MODULE:FUNCTION",
    help="function(outputs, labels) -> a number per sample, higher is better, from 0 to 1 for a gate in %: of an error "
    "e for instance 1 - min(e / worst, 1). In place of the share of right answers.",
)
@click.option(
    "--classes/--no-classes",
    default=None,
    help="Whether outputs hold a score per class. Default: those that labels fit, and probabilities.",
)
@proof_options
@model_options
def verify(
    reference: str,
    candidates: tuple[Path, ...],
    evaluation: str | None,
    max_drop: str | None,
    metric: str | None,
    classes: bool | None,
    feeds: Path | None,
    atol: float | None,
    rtol: float | None,
    seed: int,
    failures: Path,
    custom_modules: tuple[str, ...],
    unsafe: bool,
) -> Outcome:
    """Prove that every CANDIDATE (.onnx, .tflite) computes what REFERENCE computes.

    REFERENCE is a .keras file, an old .h5, package.module:function that returns a Keras model, or another artifact; an
    artifact has no measured noise to compare with, so --atol or --rtol is required then. A quantized
    CANDIDATE is not equal: it is judged by what it loses on --evaluation data, with the gate it was made with or
    --max-drop. The exit code is 5 when one is not equal, or loses more.

    BUNDLE, a folder or .zip of mh-edge bundle, stands alone: every file in it is compared with its hash, and the golden
    cases are run here. The exit code is 5 when a file or a number differs, 6 when a model cannot be run here.
    """
    if not candidates:
        from mh_edge.commands.verify_bundle import verify_bundle

        return verify_bundle(click.get_current_context(), reference)
    from mh_edge.verification import verify as prove

    progress = click.get_current_context().obj
    for path in candidates:
        recover(path.parent)
    arrays = load_feeds(feeds)
    if Path(reference).suffix in ARTIFACT_SUFFIXES:
        recover(Path(reference).parent)
    progress("verifying")
    result = prove(
        reference,
        candidates,
        feeds=arrays,
        atol=atol,
        rtol=rtol,
        seed=seed,
        failures=failures,
        label=reference,
        custom_modules=custom_modules,
        unsafe=unsafe,
        evaluation=evaluation,
        max_drop=max_drop,
        metric=metric,
        classes=classes,
    )
    return Outcome(
        result.to_json(), lambda console: show(console, result), 0 if result.passed else NotEqualError.exit_code
    )


def show(console: Console, result: Verification) -> None:
    """All candidates side by side, one column each; then what did not pass, and how to repeat it."""
    paths = [candidate.path for candidate in result.candidates]
    rows = [(row["feeds"], *(row[path] for path in paths)) for row in result.rows()]
    lines = [figures(candidate) for candidate in result.candidates]
    rows += [(name, *(line.get(name, "-") for line in lines)) for name in dict.fromkeys(itertools.chain(*lines))]
    yardstick, comma, why = result.yardstick.partition(",")
    console.print(f"reference {result.reference}, judged against {YARDSTICKS[yardstick]}{comma}{why}\n")
    tables.show(console, ("feeds", *(Path(path).name for path in paths)), rows)
    if any((item.reasons, item.notes) != ((), ()) for item in result.candidates):
        console.print()
    for candidate in result.candidates:
        for sentence in (*candidate.reasons, *candidate.notes):
            console.print(f"{candidate.path}: {sentence}")
        if candidate.again:
            console.print(candidate.again, soft_wrap=True)  # a command broken in two is none
    for note in result.notes:
        console.print(note)


def figures(candidate: Candidate) -> dict[str, str]:
    """What was measured of one candidate, by the name of its row."""
    lost = candidate.metrics
    if lost is None:
        error = candidate.required_tolerance
        return {
            "error up to": "-" if error is None else tables.number(error.abs),
            "outputs up to": "-" if candidate.scale is None else tables.shown_scale(candidate.scale),
            "worst": worst(candidate.worst),
        }
    rows = {"samples": str(lost.samples)}
    if lost.metric is not None and lost.accuracy is not None and lost.accuracy_float is not None:
        after, before = (tables.score(value, lost.share) for value in (lost.accuracy, lost.accuracy_float))
        rows[lost.metric] = f"{after}, float {before}"
    if lost.top1_agreement is not None:
        rows["same answer"] = tables.score(lost.top1_agreement)
    noisy = min(lost.outputs, key=lambda name: lost.outputs[name].sqnr_db)
    mean, most = tables.percent(lost.mean_error_std), tables.percent(lost.max_error_std)
    errs = max(lost.outputs, key=lambda name: lost.outputs[name].mean_error_std)
    return rows | {
        "signal to noise": f"{lost.sqnr_db:.1f} dB{place(lost, noisy, 0)}",
        "error, mean / max": f"{mean}{place(lost, errs, 1)} / {most} of the standard deviation",
    }


def place(lost: Verdict, output: str, figure: int) -> str:
    """Where a figure was found: ` (y, column 3)`. figure: which of Change.columns."""
    columns = lost.outputs[output].columns
    parts = [output] if len(lost.outputs) > 1 else []
    parts += [] if columns is None else [f"column {columns[figure]}"]
    return f" ({', '.join(parts)})" if parts else ""


def worst(item: Worst | None) -> str:
    """The element nearest to what is allowed: `y[0, 2] is 0.25, expected 0.26`."""
    return "-" if item is None else f"{item.output}{list(item.index)} is {item.got:g}, expected {item.expected:g}"
