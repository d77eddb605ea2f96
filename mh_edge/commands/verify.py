"""`mh-edge verify REFERENCE CANDIDATE...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mh_edge.commands import tables
from mh_edge.commands.command import Command, Outcome
from mh_edge.commands.options import load_feeds, model_options, proof_options
from mh_edge.commit import recover
from mh_edge.errors import NotEqualError

if TYPE_CHECKING:
    from rich.console import Console

ARTIFACT_SUFFIXES = (".onnx", ".tflite")


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
    artifact has no measured noise to compare with, so --atol and --rtol are required then. The exit code is 5 when one
    is not equal.
    """
    from mh_edge.verification import verify as prove

    progress = click.get_current_context().obj
    for path in candidates:
        recover(path.parent)
    arrays = load_feeds(feeds)
    against: Any = Path(reference)
    if against.suffix in ARTIFACT_SUFFIXES:
        recover(against.parent)
    else:
        from mh_edge.models import resolve_model

        progress("loading the model")
        against = resolve_model(reference, custom_modules=custom_modules, unsafe=unsafe)
    progress("verifying")
    result = prove(against, candidates, feeds=arrays, atol=atol, rtol=rtol, seed=seed, failures=failures)
    data = result.to_json() | {"reference": reference}

    def show(console: Console) -> None:
        show_verdicts(console, data["candidates"])

    return Outcome(data, show, 0 if result.passed else NotEqualError.exit_code)


def show_verdicts(console: Console, found: list[dict[str, Any]]) -> None:
    """All candidates side by side, one column each."""
    lines: list[tuple[str, Any]] = [
        ("verdict", lambda item: "equal" if item["passed"] else "NOT EQUAL"),
        ("feeds", lambda item: str(item["feeds"])),
        ("needs abs", lambda item: tables.number(item["required_tolerance"]["abs"])),
        ("needs rel", lambda item: tables.number(item["required_tolerance"]["rel"])),
        ("worst output", lambda item: f"{item['worst']['output']} {item['worst']['index']}"),
        ("of feed", lambda item: str(item["worst"]["feed"])),
        ("expected", lambda item: str(item["worst"]["expected"])),
        ("got", lambda item: str(item["worst"]["got"])),
    ]
    rows = [(label, *(value(item) for item in found)) for label, value in lines]
    console.print(tables.table(("", *(Path(item["path"]).name for item in found)), rows))
