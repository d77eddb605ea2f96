"""`mh-edge verify REFERENCE CANDIDATE...`."""

from __future__ import annotations

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

    from mh_edge.verification import Verification, Worst

ARTIFACT_SUFFIXES = (".onnx", ".tflite")

YARDSTICKS = {
    "float64 clone": "a float64 copy of the model",
    "float32 orders": "Keras's float32 in several orders",
    "explicit tolerances": "the tolerance given",
}
"""A report's yardstick (mh_edge.verification.reference) in words."""


@click.command(cls=Command, short_help="Prove that files compute the same.")
@click.argument("reference")
@click.argument("candidates", metavar="CANDIDATE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@proof_options
@model_options
def verify(
    reference: str,
    candidates: tuple[Path, ...],
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
    artifact has no measured noise to compare with, so --atol or --rtol is required then. The exit code is 5 when one
    is not equal.
    """
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
    )
    return Outcome(
        result.to_json(), lambda console: show(console, result), 0 if result.passed else NotEqualError.exit_code
    )


def show(console: Console, result: Verification) -> None:
    """All candidates side by side, one column each; then what did not pass, and how to repeat it."""
    paths = [candidate.path for candidate in result.candidates]
    rows = [(row["feeds"], *(row[path] for path in paths)) for row in result.rows()]
    rows += [
        ("error up to", *(tables.number(item.required_tolerance.abs) for item in result.candidates)),
        ("outputs up to", *(tables.shown_scale(item.scale) for item in result.candidates)),
        ("worst", *(worst(item.worst) for item in result.candidates)),
    ]
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


def worst(item: Worst | None) -> str:
    """The element nearest to what is allowed: `y[0, 2] is 0.25, expected 0.26`."""
    return "-" if item is None else f"{item.output}{list(item.index)} is {item.got:g}, expected {item.expected:g}"
