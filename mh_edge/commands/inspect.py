"""`mh-edge inspect ARTIFACT`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mh_edge.commands import tables
from mh_edge.commands.command import Command, Outcome

if TYPE_CHECKING:
    from rich.console import Console

    from mh_edge.forecast.result import Forecast

HEADERS = ("delegate", "nodes", "parts", "what breaks it", "what would mend it")


@click.command(cls=Command, short_help="What a model file holds.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--delegates", is_flag=True, help="Forecast what phones' NNAPI, CoreML, XNNPACK, GPU and QNN would take.")
def inspect(artifact: Path, delegates: bool) -> Outcome:
    """Show what an .onnx or .tflite file holds: signature, operations, size, which rule made what.

    Neither TensorFlow nor Keras is needed, and nothing is run (--delegates opens a .tflite file in LiteRT).
    """
    from mh_edge import inspection

    found = inspection.inspect(artifact)
    forecasts: Mapping[str, Forecast] = {}
    others: Mapping[str, str] = {}
    if delegates:
        from mh_edge.forecast.forecasting import forecast, inapplicable

        forecasts, others = forecast(artifact), inapplicable(found.format)

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
        if delegates:
            _show_forecasts(console, forecasts, others)

    data: dict[str, Any] = found.to_json()
    if delegates:
        data["delegates"] = {name: item.to_json() for name, item in forecasts.items()}
        data["not_for_delegates"] = dict(others)
    return Outcome(data, show)


def _show_forecasts(console: Console, forecasts: Mapping[str, Forecast], others: Mapping[str, str]) -> None:
    console.print("\nForecast, not measured: what delegates on phones would take\n")
    rows = []
    for name, item in forecasts.items():
        together: dict[tuple[str, str], dict[str, int]] = {}
        for one in item.blockers:
            together.setdefault((one.reason, one.fix), {})[one.op] = one.count
        lines = [(f"{tables.counts(ops)}: {reason}", fix) for (reason, fix), ops in together.items()] or [("", "")]
        head = (name, f"{item.nodes} of {item.total}", str(item.partitions))
        rows += [(*(head if place == 0 else ("", "", "")), *line) for place, line in enumerate(lines)]
    tables.show(console, HEADERS, rows)
    console.print()
    for name, item in forecasts.items():
        console.print(f"{name}: by {item.basis}" + "".join(f"; {note}" for note in item.notes))
    for name, sentence in others.items():
        console.print(f"{name}: {sentence}")
