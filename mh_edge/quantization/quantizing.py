"""Float artifact -> quantized artifact: quantize out of sight, measure what it lost, then move it into place.

Nothing at the target changes until the file is made, checked, measured and has passed its gates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mh_edge import __version__
from mh_edge.artifact import MODEL_SUFFIXES, Artifact, Manifest, manifest_path, read_manifest, unreferenced_data
from mh_edge.commit import staged, system_errors_named
from mh_edge.errors import InputError, UsageError
from mh_edge.inspection import inspect
from mh_edge.packages import version
from mh_edge.progress import Progress, silent
from mh_edge.quantization.auto.ladder import Ladder, climb
from mh_edge.quantization.auto.parts import resolved
from mh_edge.quantization.data.sets import Data, open_data, random_data
from mh_edge.quantization.data.sources import Given
from mh_edge.quantization.judging.gate import Asked, Gate
from mh_edge.quantization.judging.judge import Metric, load_metric
from mh_edge.quantization.judging.measuring import Measure
from mh_edge.quantization.making import Made, calibrated, make
from mh_edge.quantization.recipe import MANIFEST_KEY, Recipe, read_recipe
from mh_edge.quantization.result import GateError, Quantization
from mh_edge.quantization.scheme import AUTO, Options, Ranges, Scheme, find_scheme, schemes_for
from mh_edge.quiet import quiet
from mh_edge.runtimes import SUFFIXES
from mh_edge.signature import Tensor

if TYPE_CHECKING:
    from mh_edge.runtimes.tflite_micro import Arena

INTEGER_OPS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul",
     "QLinearConv", "com.microsoft.MatMulNBits", "QUANTIZE", "DEQUANTIZE"}
)  # fmt: skip
"""Operations that float files do not have."""

RANDOM = "random"

FOR_MICRO = ("int8", "int16x8")
"""The schemes of .tflite files that microcontrollers are meant to run."""

EVALUATION = "Give --evaluation with samples that were used neither for training nor for calibration."

LOST = "--scheme auto keeps the layers that lose most in float; --keep-float LAYER does it by hand."
SLOW = "Another scheme may be faster; --scheme auto tries them."
NONE_PASSES = "Allow more with --max-drop, or ask for less with --min-speedup."
"""What to do when a gate is not passed."""


@quiet()
def quantize(
    artifact: str | Path,
    output: str | Path | None = None,
    *,
    scheme: str | None = None,
    calibration: Given | None = None,
    evaluation: Given | None = None,
    max_drop: str | Gate | None = None,
    min_speedup: float | None = None,
    metric: str | Metric | None = None,
    classes: bool | None = None,
    per_channel: bool = True,
    block_size: int | None = None,
    integer_io: bool = False,
    keep_float: str | Sequence[str] = (),
    recipe: str | Path | Recipe | None = None,
    batch: int = 1,
    threads: int = 1,
    timed: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Quantization:
    """Make a quantized copy of a float artifact and measure what it lost; see mh_edge.quantization.scheme for names.

    artifact: an .onnx or .tflite file, ours or not. output: a file of the same suffix or a folder; without it
    `<name>.<scheme>.<suffix>` beside the artifact. scheme: its name, or "auto" (see mh_edge.quantization.auto.ladder).
    calibration, evaluation: an .npz, a folder of .npy or .npz, "package.module:function", arrays by name or a function
    that yields feeds (mh_edge.quantization.data.sets); calibration may be "random". Without evaluation the verdict is
    taken on the calibration data, or else on generated feeds, and says so. max_drop: "1%", points of accuracy (without
    labels, of top-1 agreement), or "30dB", the least SQNR. min_speedup: float's time / quantized time. metric:
    "package.module:function" or a function (outputs, labels) -> a number per sample, higher is better. classes:
    whether outputs are a score for each class; without it those that hold probabilities, or fit the labels, are.
    per_channel, block_size, integer_io, keep_float: see Options. recipe: of an earlier quantization, in place of scheme
    and options; without data nothing is measured then. batch: samples a call where latency is measured, with
    `threads`; timed=False leaves that out. seed: of the generated feeds.

    Raises UsageError for options that make no sense together, InputError for a file or data that cannot be used,
    ConversionError when the scheme cannot take this model, GateError (a NotEqualError, with all figures) when a gate is
    not passed, UnavailableError when a package is missing. The target is then as it was.
    """
    tell = progress or silent
    path = Path(artifact)
    _refuse_models(path)
    source = inspect(path)
    _refuse_quantized(source)
    if recipe is not None and not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe)
    given = Options(
        per_channel=per_channel,
        block_size=Options().block_size if block_size is None else block_size,
        integer_io=integer_io,
        keep_float=(keep_float,) if isinstance(keep_float, str) else tuple(keep_float),
    )
    name, options = _wanted(scheme, given, recipe, source)
    options = replace(options, keep_float=resolved(options.keep_float, source))
    asked = _asked(max_drop, min_speedup, evaluation is not None, name, timed)
    folder, target = _target(source, output, name)
    metric = load_metric(metric) if isinstance(metric, str) else metric
    calibrating = _opened(calibration, source, "calibration", seed)
    evaluating = _opened(evaluation, source, "evaluation", seed)
    repeated = recipe is not None and evaluating is calibrating is None
    measure = Measure(
        _evaluated(evaluating, calibrating, source, seed), metric, batch, threads if timed else None, classes
    )
    with staged(folder) as staging:
        if name == AUTO:
            ladder = climb(source, options, calibrating, measure, asked, staging.path, tell)
            if ladder.best is None:
                raise GateError(_unreached(source, ladder, asked), NONE_PASSES)
            made_by, verdict = ladder.best.recipe, ladder.best.verdict
            notes: tuple[str, ...] = ()
        else:
            ladder, verdict = None, None
            found = find_scheme(source.format, name)
            found.check(options)
            ranges, notes = _ranges(found, source, options, recipe, calibrating, tell)
            made_by = Recipe.of(found, source, options, ranges)
        tell(f"quantizing to {made_by.scheme}")
        found = find_scheme(source.format, made_by.scheme)
        with system_errors_named(folder):
            made = make(found, source, made_by.ranges, made_by.options, staging.path / target)
            manifest = _manifest(source, made, made_by)
            manifest.write(made.path)  # its session options act where it is run
        if verdict is None and not repeated:
            verdict = measure.verdicts(source, {name: made.path}, tell)[name]
        outcome = Quantization(
            source=source,
            scheme=name,
            made=made_by.scheme,
            artifact=None,
            verdict=verdict,
            gate=asked.gate,
            min_speedup=asked.min_speedup,
            failed=() if verdict is None else asked.failed(verdict),
            ranges=made.quantized.ranges,
            kept_float=made.quantized.kept_float,
            notes=_made_up(calibration) + notes + made.quantized.notes + asked.notes(verdict),
            arena=_arena(made, made_by.scheme),
            ladder=ladder,
        )
        if outcome.failed:
            raise GateError(outcome, SLOW if asked.lost(verdict) is None else LOST)
        with system_errors_named(folder):
            replace(manifest, quantized=_recorded(outcome)).write(made.path)
        written = [*(file.name for file in made.data), target, manifest_path(Path(target)).name]
        artifact_written = replace(inspect(made.path), path=folder / target)
        tell("writing")
        staging.commit(written, remove=lambda: unreferenced_data(folder, [target], written))
    return replace(outcome, artifact=artifact_written)


def _refuse_quantized(source: Artifact) -> None:
    integer = sorted(INTEGER_OPS & source.ops.keys())
    if source.quantized is not None:
        raise InputError(
            f"{str(source.path)!r} is quantized already ({source.quantized['scheme']}).",
            "Quantize the float file it was made from.",
        )
    if integer:
        raise InputError(
            f"{str(source.path)!r} is quantized already: it holds {', '.join(integer)}.", "Give the float file."
        )


def _refuse_models(path: Path) -> None:
    if path.suffix.lower() in MODEL_SUFFIXES:
        raise UsageError(
            f"{path} is a Keras model, and what is quantized is an .onnx or .tflite file.",
            f"Export it first: mh-edge export {path} --to onnx --to tflite.",
        )


def _wanted(scheme: str | None, options: Options, recipe: Recipe | None, source: Artifact) -> tuple[str, Options]:
    """The scheme's name and its options, from the recipe or as they were given."""
    if recipe is None:
        if scheme is None:
            raise UsageError("no scheme was named.", f"Known for .{source.format} files are {_known(source.format)}.")
        if scheme != AUTO:
            find_scheme(source.format, scheme)  # wrong usage is said before anything is read
        return scheme, options
    if scheme is not None or options != Options():
        raise UsageError("a recipe names the scheme and its options already.", "Give either --recipe or --scheme.")
    recipe.fits(source)  # of the same format, else it raises
    return recipe.scheme, recipe.options


def _known(kind: str) -> str:
    return ", ".join((*schemes_for(kind), AUTO))


def _asked(max_drop: str | Gate | None, min_speedup: float | None, evaluated: bool, name: str, timed: bool) -> Asked:
    gate = Gate.parse(max_drop) if isinstance(max_drop, str) else max_drop
    if gate is not None and not evaluated:
        raise UsageError("--max-drop needs data that it is measured on.", EVALUATION)
    if name == AUTO and gate is None:
        raise UsageError("auto needs to know how much may be lost.", 'Give --max-drop, such as "0.5%" or "30dB".')
    if min_speedup is not None:
        if not 0 < min_speedup < float("inf"):
            raise UsageError(
                f"min-speedup is {min_speedup}.", "It is float's time over the quantized one's, such as 1.1."
            )
        if not timed:
            raise UsageError("--min-speedup cannot be judged without timing.", "Leave out --no-timing.")
    return Asked(gate, min_speedup)


def _target(source: Artifact, output: str | Path | None, name: str) -> tuple[Path, str]:
    """The folder to write in, and the file's name."""
    suffix = source.path.suffix
    usual = f"{source.path.stem}.{name}{suffix}"
    if output is None:
        return source.path.parent, usual
    path = Path(output)
    if path.is_dir() or path.suffix not in SUFFIXES:
        return path, usual
    if path.suffix != suffix:
        raise UsageError(f"the output {str(path)!r} is no {suffix} file.", "Quantizing does not change the format.")
    if path.resolve() == source.path.resolve():
        raise UsageError(f"the output {str(path)!r} is the float file itself.", "Name another file with -o.")
    return path.parent, path.name


def _opened(given: Given | None, source: Artifact, purpose: str, seed: int) -> Data | None:
    if given is None:
        return None
    if isinstance(given, str) and given == RANDOM:
        if purpose != "calibration":
            raise UsageError("generated feeds say nothing about accuracy.", EVALUATION)
        return random_data(source.signature, seed=seed)
    return open_data(given, source.signature, purpose=purpose)


def _evaluated(evaluating: Data | None, calibrating: Data | None, source: Artifact, seed: int) -> Data:
    """What the verdict is taken on: the evaluation data, else the best there is, under a name that says so."""
    if evaluating is not None:
        return replace(evaluating, label=f"the evaluation data {evaluating.label}")
    if calibrating is not None:
        return replace(calibrating, label=f"the CALIBRATION data {calibrating.label}, which flatters")
    return random_data(source.signature, seed=seed)


def _ranges(
    scheme: Scheme, source: Artifact, options: Options, recipe: Recipe | None, data: Data | None, tell: Progress
) -> tuple[Ranges, tuple[str, ...]]:
    """The ranges of a recipe that fits, else those seen on the data; and what a user should know of that."""
    if recipe is not None and recipe.fits(source):
        return recipe.ranges, ()
    notes = () if recipe is None else (recipe.misfit(source),)
    return calibrated(scheme, source, options, data, tell), notes


def _made_up(calibration: Given | None) -> tuple[str, ...]:
    if not isinstance(calibration, str) or calibration != RANDOM:
        return ()
    return ("CALIBRATED ON RANDOM NUMBERS, which are not your data: the ranges fit nothing real. Do not deploy this.",)


def _manifest(source: Artifact, made: Made, recipe: Recipe) -> Manifest:
    """What is known of the file before it is measured. Where its inputs and outputs are of other types than the
    source's, the file is believed.
    """
    own = inspect(made.path)
    signature = replace(
        source.signature,
        inputs=_typed_as(source.inputs, own.inputs),
        outputs=_typed_as(source.outputs, own.outputs),
    )
    exported = read_manifest(source.path, source.sha256)
    return Manifest(
        format=source.format,
        sha256=own.sha256,
        opset=own.opset,
        signature=signature,
        rules=source.rules,
        notes=source.notes + made.quantized.notes,
        choices=source.choices,
        session_options=source.session_options,
        data=tuple(sorted(file.name for file in made.data)),
        versions={"mh-edge": __version__} | dict(recipe.versions),
        verified=None,
        recipe={MANIFEST_KEY: recipe.to_json(), "export": {} if exported is None else exported.recipe},
    )


def _typed_as(tensors: Sequence[Tensor], own: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(replace(tensor, dtype=found.dtype) for tensor, found in zip(tensors, own, strict=True))


def _recorded(outcome: Quantization) -> dict[str, Any]:
    """What the manifest keeps; times differ from run to run and stay out of it, so that the same recipe writes the same
    manifest.
    """
    return {
        "scheme": outcome.made,
        "metrics": None if outcome.verdict is None else _untimed(outcome.verdict.to_json()),
        "gate": None if outcome.gate is None else outcome.gate.to_json(),
        "kept_float": [asdict(kept) for kept in outcome.kept_float],
    }


def _untimed(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if not key.startswith("latency")}


def _unreached(source: Artifact, ladder: Ladder, asked: Asked) -> Quantization:
    """The outcome of "auto" where nothing passes: that of the file that came nearest."""
    nearest = ladder.nearest
    return Quantization(
        source=source,
        scheme=AUTO,
        made=nearest.recipe.scheme,
        artifact=None,
        verdict=nearest.verdict,
        gate=asked.gate,
        min_speedup=asked.min_speedup,
        failed=nearest.failed,
        ladder=ladder,
    )


def _arena(made: Made, scheme: str) -> Arena | None:
    """Whether TFLite Micro runs the file, and in how much memory; None where that is not asked."""
    if made.path.suffix != ".tflite" or scheme not in FOR_MICRO or version("tflite-micro") is None:
        return None
    from mh_edge.runtimes.tflite_micro import arena

    return arena(made.path)
