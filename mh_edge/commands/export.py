"""`mh-edge export MODEL -o out/ --to onnx --to tflite`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mh_edge.artifact import FORMATS
from mh_edge.commands import tables
from mh_edge.commands.command import Command, Outcome
from mh_edge.commands.options import load_feeds, model_options, named_sizes, proof_options
from mh_edge.opsets import DEFAULT_OPSET, OLDEST_RUNTIME

if TYPE_CHECKING:
    from rich.console import Console

OPSET_HELP = "ONNX operator set. Default: " + "; ".join(
    f"{opset} for --runtime {runtime} (read by ONNX Runtime {OLDEST_RUNTIME[opset]} and newer)"
    for runtime, opset in DEFAULT_OPSET.items()
)

SIZE = click.IntRange(min=1)


@click.command(cls=Command, short_help="Keras model to proven files.")
@click.argument("model")
@click.option(
    "--to", "formats", multiple=True, type=click.Choice(list(FORMATS)), help="Format; may be repeated. Default: onnx."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path(), help="Folder, or one file. Default: here."
)
@click.option("--opset", type=click.IntRange(min(OLDEST_RUNTIME), max(OLDEST_RUNTIME)), help=f"{OPSET_HELP}.")
@click.option(
    "--runtime",
    type=click.Choice(list(DEFAULT_OPSET)),
    default="cpu",
    show_default=True,
    help="cpu, cuda: what ONNX Runtime is fastest with there; plugins: what stays on WebGPU, OpenVINO, QNN, NNAPI and "
    "CoreML; portable: plain operations of opset 17 that every runtime has.",
)
@click.option("--batch", type=SIZE, help="Fix the batch size. TFLite's is 1 unless this says otherwise.")
@click.option("--sequence", type=SIZE, help="Fix the size 'sequence' and every '..._sequence'.")
@click.option(
    "--dim", "dims", multiple=True, metavar="NAME=N", callback=named_sizes, help="Fix any free size; may be repeated."
)
@click.option("--no-merge", is_flag=True, help="Keep parallel heads apart, for comparison.")
@click.option("--state-io", is_flag=True, help="Make each recurrent layer's state an input and an output, for streams.")
@click.option("--no-verify", is_flag=True, help="Write without a proof.")
@proof_options
@model_options
def export(
    model: str,
    formats: tuple[str, ...],
    output: Path,
    opset: int | None,
    runtime: str,
    batch: int | None,
    sequence: int | None,
    dims: dict[str, int],
    no_merge: bool,
    state_io: bool,
    no_verify: bool,
    feeds: Path | None,
    atol: float | None,
    rtol: float | None,
    seed: int,
    failures: Path,
    custom_modules: tuple[str, ...],
    unsafe: bool,
) -> Outcome:
    """Convert a Keras model, prove that the files compute the same, and only then write them: all of them or none.

    MODEL is a .keras file, an old .h5, or package.module:function that returns a Keras model (the working directory is
    importable). Existing files are replaced after success only; beside each, NAME.json says how it was made and proven.
    """
    from mh_edge import exporting

    result = exporting.export(
        model,
        output,
        formats=formats or None,
        opset=opset,
        runtime=runtime,
        batch=batch,
        sequence=sequence,
        dims=dims,
        merge=not no_merge,
        state_io=state_io,
        feeds=load_feeds(feeds),
        verify=not no_verify,
        atol=atol,
        rtol=rtol,
        seed=seed,
        failures=failures,
        custom_modules=custom_modules,
        unsafe=unsafe,
        progress=click.get_current_context().obj,
    )

    def show(console: Console) -> None:
        rows = [
            (str(item.path), tables.human_bytes(item.bytes), str(sum(item.ops.values())), tables.verdict(item.verified))
            for item in result.artifacts
        ]
        tables.show(console, ("file", "size", "operations", "verified"), rows)
        for item in result.artifacts:
            hints = [f"faster with ONNX Runtime's {key}={value}" for key, value in item.session_options.items()]
            for note in (*item.notes, *hints, *tables.proof_notes(item.verified)):
                console.print(f"{item.path.name}: {note}")
        if no_verify:
            console.print(
                "NOT VERIFIED: nothing says that these files compute what the model computes (mh-edge verify does)."
            )

    def explain(console: Console) -> None:
        for item in result.artifacts:
            for choice in item.choices:
                console.print(f"{item.path.name}: {choice}")

    return Outcome(result.to_json(), show, explain=explain)
