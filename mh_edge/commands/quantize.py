"""`mh-edge quantize ARTIFACT --scheme int8 --calibration calib.npz --evaluation eval.npz`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mh_edge.commands import tables
from mh_edge.commands.command import Command, Outcome
from mh_edge.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from mh_edge.quantization.auto.ladder import Ladder, Step
    from mh_edge.quantization.auto.sensitivity import Sensitivity
    from mh_edge.quantization.judging.verdict import Verdict
    from mh_edge.quantization.result import Quantization
    from mh_edge.quantization.scheme import RangeChange

DATA = "an .npz, a folder of .npy or .npz, or package.module:function that yields feeds"


@click.command(cls=Command, short_help="Smaller and faster files, and what they lost.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--scheme",
    metavar="NAME",
    help="fp16, int8, int8-dynamic, int4; .onnx also int8-a16, qnn-a16w8; .tflite also int16x8. auto tries them.",
)
@click.option("--calibration", metavar="DATA", help=f"Inputs whose ranges int8 is made for: {DATA}; or random.")
@click.option("--evaluation", metavar="DATA", help=f"Inputs, and labels if there are, to measure on: {DATA}.")
@click.option(
    "--max-drop",
    metavar="1%|30dB",
    help="Write nothing (exit code 5) if more is lost: points of accuracy, or of top-1 agreement without labels; the "
    "least signal-to-noise ratio, for outputs that are no classes; or 1%,30dB.",
)
@click.option("--min-speedup", type=float, metavar="X", help="Write nothing (exit code 5) unless X times as fast.")
@click.option(
    "--metric",
    metavar="MODULE:FUNCTION",
    help="function(outputs, labels) -> a number per sample, higher is better, in place of the share of right answers.",
)
@click.option(
    "--classes/--no-classes",
    default=None,
    help="Whether outputs are a score for each class. Without it: those that hold probabilities, or fit the labels.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File or folder. Default: NAME.SCHEME.onnx.")
@click.option("--per-tensor", is_flag=True, help="One scale for a whole weight, not one for each output channel.")
@click.option("--block-size", type=int, help="Weights that share a scale (.onnx, int4). Default: 32.")
@click.option("--integer-io", is_flag=True, help="Integer inputs and outputs too (.tflite, int8 and int16x8).")
@click.option("--keep-float", multiple=True, metavar="LAYER", help="Leave a layer in float; may be repeated.")
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    help="In place of a scheme: the .json beside a file that was quantized; the same float file gives the same bytes.",
)
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Samples a call when timing.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads when timing.")
@click.option("--no-timing", is_flag=True, help="Do not measure the latency.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of generated feeds.")
@click.option("--explain", is_flag=True, help="Print each tensor's range before and after, and what stayed in float.")
def quantize(
    artifact: Path,
    scheme: str | None,
    calibration: str | None,
    evaluation: str | None,
    max_drop: str | None,
    min_speedup: float | None,
    metric: str | None,
    classes: bool | None,
    output: Path | None,
    per_tensor: bool,
    block_size: int | None,
    integer_io: bool,
    keep_float: tuple[str, ...],
    recipe: Path | None,
    batch: int,
    threads: int,
    no_timing: bool,
    seed: int,
    explain: bool,
) -> Outcome:
    """Make a smaller copy of ARTIFACT, a float .onnx or .tflite, and measure what it lost on your own data.

    Masked attention keeps its accuracy: masks are recognised and never decide an integer's range. Without --evaluation
    the loss is measured on the calibration data, which flatters, and the report says so.
    """
    from mh_edge.quantization import GateError, quantize

    if scheme is None and recipe is None:
        raise UsageError("neither a scheme nor a recipe was given.", "Name one: --scheme int8, or --scheme auto.")
    failed: GateError | None = None
    try:
        result = quantize(
            artifact,
            output,
            scheme=scheme,
            calibration=calibration,
            evaluation=evaluation,
            max_drop=max_drop,
            min_speedup=min_speedup,
            metric=metric,
            classes=classes,
            per_channel=not per_tensor,
            block_size=block_size,
            integer_io=integer_io,
            keep_float=keep_float,
            recipe=recipe,
            batch=batch,
            threads=threads,
            timed=not no_timing,
            seed=seed,
            progress=click.get_current_context().obj,
        )
    except GateError as error:
        result, failed = error.outcome, error

    def printed(console: Console) -> None:
        show(console, result)
        if explain:
            explained(console, result)
        if failed is not None:
            console.print(f"\n{failed.message}\n{failed.hint}")

    return Outcome(result.to_json(), printed, 0 if failed is None else failed.exit_code)


def show(console: Console, result: Quantization) -> None:
    """Float and quantized side by side; what it was measured on; what did not go well."""
    found, written = result.verdict, result.artifact
    if result.ladder is not None:
        tried(console, result.ladder)
        console.print()
    if found is None:
        console.print("made again from its recipe; not measured (--evaluation tells what it lost)")
    else:
        rows = [*_size(result, found), *_latency(found), *_answers(found), *_errors(found)]
        tables.show(console, ("", "float", result.made, "change"), rows)
        console.print(f"\nmeasured on {found.on}")
    for note in (*result.notes, *(() if found is None else _words(found))):
        console.print(note)
    if result.arena is not None and result.arena.bytes is not None:
        console.print(f"TFLite Micro runs it in an arena of {tables.human_bytes(result.arena.bytes)}")
    elif result.arena is not None:
        console.print(f"NOT for TFLite Micro: {result.arena.reason}")
    if count := len(result.kept_float):
        console.print(f"stayed in float: {count} tensor{'s' if count > 1 else ''} or operations (--explain tells why)")
    if written is not None:
        console.print(f"written: {written.path}")


def _words(found: Verdict) -> Iterator[str]:
    yield from found.notes
    if found.latency_words:
        yield found.latency_words
    if found.size_ratio is not None and found.size_ratio >= 1:
        yield "It is NO SMALLER than the float file: scales and what stayed in float outweigh what was won."


def _size(result: Quantization, found: Verdict) -> list[tuple[str, str, str, str]]:
    if found.size_ratio is None:
        return []
    after = round(result.source.bytes * found.size_ratio)
    return [("size", tables.human_bytes(result.source.bytes), tables.human_bytes(after), f"×{found.size_ratio:.2f}")]


def _latency(found: Verdict) -> list[tuple[str, str, str, str]]:
    if found.latency_ratio is None or found.latency_ms is None or found.latency_interval is None:
        return []
    low, high = found.latency_interval
    before, after = (f"{time:.3g} ms" for time in found.latency_ms)
    ratio = f"×{found.latency_ratio:.2f} ({low:.2f} to {high:.2f})"
    return [(f"latency, batch {found.latency_batch}", before, after, ratio)]


def _answers(found: Verdict) -> list[tuple[str, str, str, str]]:
    rows = []
    if found.accuracy is not None and found.accuracy_float is not None:
        before, after = (tables.score(value, found.share) for value in (found.accuracy_float, found.accuracy))
        drop = found.accuracy - found.accuracy_float
        change = f"{100 * drop:+.2f} points" if found.share else f"{drop:+.4g}"
        if found.worse is not None:
            change += f" ({found.worse} lost, {found.better} won)"
        rows.append((found.metric or "accuracy", before, after, change))
    if found.top1_agreement is not None:
        rows.append(("same answer", "", tables.score(found.top1_agreement), ""))
    return rows


def _errors(found: Verdict) -> list[tuple[str, str, str, str]]:
    several = len(found.outputs) > 1
    rows = []
    for name, change in found.outputs.items():
        of = f" of {name}" if several else ""
        at = ("", "", "") if change.columns is None else [f" (column {column})" for column in change.columns]
        rows.append((f"signal to noise{of}", "", f"{change.sqnr_db:.1f} dB{at[0]}", ""))
        figures = f"{tables.percent(change.mean_error_std)}{at[1]} / {tables.percent(change.max_error_std)}{at[2]}"
        rows.append((f"error{of}, mean / max", "", figures, "of the float output's standard deviation"))
    return rows


def tried(console: Console, ladder: Ladder) -> None:
    """What `auto` tried: the Pareto table, and by scheme what each layer and head loses when it alone is quantized."""
    heads = ("tried", "accuracy", "same answer", "signal to noise", "size", "latency", "Pareto", "")
    tables.show(console, heads, [_step(step, step is ladder.best) for step in ladder.steps])
    for step in ladder.steps:
        if step.failed:
            console.print(f"{step.label}: {'; '.join(step.failed)}")
        elif step is ladder.best and step.kept:
            console.print(f"{step.label}: {', '.join(step.kept)}")
    for scheme, ranked in ladder.sensitivities.items():
        console.print()
        harms = (f"{scheme} here alone", "signal to noise", "same answer", "error (of std)", "saves")
        tables.show(console, harms, list(map(_harm, ranked)))
    for note in ladder.notes:
        console.print(note)


def _step(step: Step, best: bool) -> tuple[str, ...]:
    found = step.verdict
    outcome = "chosen" if best else "fails" if step.failed else "passes"
    return (
        step.label,
        _share(found.accuracy),
        _share(found.top1_agreement),
        f"{found.sqnr_db:.1f} dB",
        f"×{found.size_ratio:.2f}",
        "" if found.latency_ratio is None else f"×{found.latency_ratio:.2f}",
        "on the front" if step.on_front else "",
        outcome,
    )


def _harm(one: Sensitivity) -> tuple[str, ...]:
    saved = tables.human_bytes(one.bytes)
    return one.name, f"{one.sqnr_db:.1f} dB", _share(one.top1_agreement), tables.percent(one.error_std), saved


def _share(value: float | None) -> str:
    return "" if value is None else tables.score(value)


def explained(console: Console, result: Quantization) -> None:
    """`--explain`: tensor by tensor the range before and after, and what stayed in float."""
    if result.ranges:
        console.print()
        tables.show(console, ("tensor", "range seen", "quantized with", "because"), list(map(_range, result.ranges)))
    if result.kept_float:
        console.print()
        rows = [(kept.tensor, kept.reason) for kept in result.kept_float]
        tables.show(console, ("stayed in float", "because"), rows)


def _range(change: RangeChange) -> tuple[str, str, str, str]:
    after = "float" if change.after is None else f"{change.after.low:.4g} to {change.after.high:.4g}"
    return change.tensor, f"{change.before.low:.4g} to {change.before.high:.4g}", after, change.why
