"""`mh-edge inspect ARTIFACT`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mh_edge.commands import tables
from mh_edge.commands.command import Command, Outcome

if TYPE_CHECKING:
    from rich.console import Console


@click.command(cls=Command, short_help="What a model file holds.")
@click.argument("artifact", type=click.Path(path_type=Path))
def inspect(artifact: Path) -> Outcome:
    """Show what an .onnx or .tflite file holds: signature, operations, size, which rule made what.

    Neither TensorFlow nor Keras is needed, and nothing is run.
    """
    from mh_edge import inspection

    found = inspection.inspect(artifact)

    def show(console: Console) -> None:
        rows = [
            ("file", str(found.path)),
            ("format", found.format if found.opset is None else f"{found.format}, opset {found.opset}"),
            ("size", tables.human_bytes(found.bytes)),
            *(("input", tables.tensor(item)) for item in found.signature.inputs),
            *(("output", tables.tensor(item)) for item in found.signature.outputs),
            *(("state", f"{item.output} is the next call's {item.input}") for item in found.signature.states),
            ("operations", f"{sum(found.ops.values())}: {tables.counts(found.ops)}"),
            ("rules", tables.counts(found.rules) or "none"),
            *((f"  {rule}", tables.counts(ops)) for rule, ops in found.made.items()),
            *(("choice", str(choice)) for choice in found.choices),
            *(("session option", f"{key}={value}") for key, value in found.session_options.items()),
            *(() if found.quantized is None else (("quantized", tables.loss(found.quantized)),)),
            *(() if found.verified is None and found.quantized else (("verified", tables.verdict(found.verified)),)),
            *(("note", note) for note in (*found.notes, *tables.proof_notes(found.verified))),
        ]
        tables.show(console, ("", ""), rows)

    return Outcome(found.to_json(), show)
