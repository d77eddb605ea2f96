"""verify: the reference and the candidates on the same feeds, each candidate judged against the noise of the
reference, a quantized one by its gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mh_edge.artifact import MODEL_SUFFIXES, Manifest, read_manifest
from mh_edge.errors import UsageError
from mh_edge.matching import match
from mh_edge.quiet import quiet
from mh_edge.repeating import command, proof_options
from mh_edge.runtimes import SUFFIXES, open_session
from mh_edge.runtimes.base import Session
from mh_edge.verification.calls import CallsTrial, both, repeated, started
from mh_edge.verification.group import Group
from mh_edge.verification.reference import GATES, ArtifactReference, Reference
from mh_edge.verification.report import Candidate, Verification
from mh_edge.verification.trial import Trial

if TYPE_CHECKING:
    import keras

    from mh_edge.program import Program
    from mh_edge.quantization.data.sources import Given
    from mh_edge.quantization.judging.gate import Gate
    from mh_edge.quantization.judging.judge import Metric
    from mh_edge.verification.gated import Gated

Arrays = Mapping[str, np.ndarray]


@quiet()
def verify(
    reference: Program | keras.Model | str | Path,
    candidates: str | Path | Sequence[str | Path],
    *,
    feeds: Arrays | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    seed: int = 0,
    failures: str | Path | None = None,
    label: str | None = None,
    custom_modules: Sequence[str] = (),
    unsafe: bool = False,
    evaluation: Given | None = None,
    max_drop: str | Gate | None = None,
    metric: str | Metric | None = None,
    classes: bool | None = None,
) -> Verification:
    """|candidate(x) - reference(x)| <= what float32 explains, for every output and feed x.

    reference: a Keras model, its Program, what `mh_edge.export` takes for a model ("model.keras", "module:function";
    see there for custom_modules and unsafe), or an artifact; the yardstick of a Keras model is a float64 clone or,
    failing that, float32 in several orders, unless atol or rtol is given: then |error| <= atol + rtol |expected|. An
    artifact as reference needs them. candidates: .onnx or .tflite files, or one such file. feeds: real inputs by name,
    compared in addition to the generated grid. seed: of the grid. failures: a folder for the feed that fails, as .npz.
    label: what the reference is called in the report.

    A candidate whose manifest says that it was quantized is not equal: it is judged on `evaluation` (see
    mh_edge.quantize, as for metric and classes) by the gate in its manifest or by max_drop ("1%", "30dB", or both:
    "1%,30dB"). So is, with max_drop, a file without a manifest, which other tools may have quantized.

    Raises UsageError when tolerances, a gate or evaluation data are needed or senseless, InputError when a file, a feed
    or the data cannot be used, or the model refuses almost every feed. A candidate that is not equal is no exception:
    see Verification.passed and Verification.require().
    """
    tolerance = _tolerance(atol, rtol)
    candidates = (candidates,) if isinstance(candidates, str | Path) else tuple(candidates)
    if not candidates:
        raise UsageError("nothing to compare: no artifact was given.", "Name at least one .onnx or .tflite file.")
    _refuse_models(candidates)
    named = reference if isinstance(reference, str | Path) else None
    paths = [str(path) for path in candidates]
    manifests = {path: read_manifest(Path(path)) for path in dict.fromkeys(paths)}
    gated = _gated(manifests, evaluation, max_drop, metric, classes)
    with ExitStack() as stack:
        if isinstance(reference, str | Path) and Path(reference).suffix.lower() not in SUFFIXES:
            from mh_edge.models import resolve_model

            label = label or str(reference)
            reference = resolve_model(reference, custom_modules=custom_modules, unsafe=unsafe)
        streaming = any(manifest.signature.states for manifest in manifests.values() if manifest)
        exact = [path for path in manifests if gated is None or path not in gated.gates]
        against, name = _reference(reference, feeds, tolerance is not None or not exact, streaming, stack)
        sessions = {path: stack.enter_context(open_session(path)) for path in manifests}
        proof = Group(against, against.signature, tolerance, label or name, seed)
        verdicts = _proven(proof, {path: sessions[path] for path in exact}, feeds, failures)
        if gated is not None:
            verdicts |= gated.compare(against, sessions)
        if named is not None:
            options = proof_options(atol, rtol, seed, failures, custom_modules, unsafe)
            verdicts = {path: _repeatable(verdict, named, options) for path, verdict in verdicts.items()}
        yardstick = against.yardstick if exact else GATES
        return Verification(label or name, yardstick, tuple(verdicts[path] for path in paths))


def _gated(
    manifests: Mapping[str, Manifest | None],
    evaluation: Given | None,
    max_drop: str | Gate | None,
    metric: str | Metric | None,
    classes: bool | None,
) -> Gated | None:
    # The data of a quantization are laid out like the feeds of a verification, so its modules import these.
    from mh_edge.verification.gated import Gated

    return Gated.of(manifests, evaluation, max_drop, metric, classes)


def _proven(
    proof: Group, sessions: Mapping[str, Session], feeds: Arrays | None, failures: str | Path | None
) -> dict[str, Candidate]:
    """The verdicts on candidates that have to be equal, by path. proof: for candidates that fix no size."""
    against, tolerance = proof.reference, proof.tolerance
    feeds = started(against.signature, feeds) if feeds else feeds
    matches = {path: match(against.signature, session.signature, path) for path, session in sessions.items()}
    groups: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for path, found in matches.items():
        groups.setdefault(found.pinned, []).append(path)
    verdicts: dict[str, Candidate] = {}
    several = against.over_calls()
    for pinned, members in groups.items():
        group = replace(proof, signature=against.signature.pin(dict(pinned)))
        trials = [Trial(path, sessions[path], matches[path], against, group.signature, tolerance) for path in members]
        verdicts |= group.compare(trials, feeds, failures)
        if several is not None:
            group = replace(proof, reference=several, signature=several.signature.pin(dict(pinned)))
            trials = [
                CallsTrial(path, sessions[path], matches[path], several, group.signature, tolerance)
                for path in members
                if verdicts[path].passed
            ]
            given = None if feeds is None else repeated(several.signature, feeds)
            found_over = group.compare(trials, given, None) if trials else {}
            verdicts |= {path: both(verdicts[path], verdict) for path, verdict in found_over.items()}
    return verdicts


def _repeatable(verdict: Candidate, reference: str | Path, options: Mapping[str, object]) -> Candidate:
    if verdict.saved is None:
        return verdict
    again = command("verify", reference, verdict.path, options={"--feeds": verdict.saved, **options})
    return replace(verdict, repeat=again)


def _refuse_models(candidates: Sequence[str | Path]) -> None:
    for path in candidates:
        if Path(path).suffix.lower() in MODEL_SUFFIXES:
            raise UsageError(
                f"{path} is a Keras model, and candidates are .onnx or .tflite files.",
                "To compare two Keras models (an upgrade, say), export one and verify the file against both: "
                f"mh-edge export {path} -o x.onnx; mh-edge verify OTHER x.onnx.",
            )


def _tolerance(atol: float | None, rtol: float | None) -> tuple[float, float] | None:
    for option, value in (("atol", atol), ("rtol", rtol)):
        if value is not None and not 0 <= value < float("inf"):
            raise UsageError(f"{option} is {value}.", "A tolerance is a number of at least 0.")
    return None if atol is None and rtol is None else (atol or 0.0, rtol or 0.0)


def _reference(
    reference: Any, feeds: Arrays | None, explicit: bool, streaming: bool, stack: ExitStack
) -> tuple[Reference, str]:
    """streaming: whether the candidates have states, so that a Keras model has to be made a stream."""
    if isinstance(reference, str | Path):
        return _artifact_reference(Path(reference), explicit, stack), str(reference)
    from mh_edge.models import require_model
    from mh_edge.policy import is_float32, with_policy
    from mh_edge.program import Program, program
    from mh_edge.streaming import stream
    from mh_edge.verification.domains import derive
    from mh_edge.verification.keras_reference import KerasReference

    if not isinstance(reference, Program):
        require_model(reference)
        model = reference if is_float32(reference) else with_policy(reference, "float32")
        reference = stream(model, feeds) if streaming else program(model, feeds)
    if all(tensor.domain.ids_below is tensor.domain.mask_value is None for tensor in reference.signature.inputs):
        reference = derive(reference)
    return KerasReference(reference, explicit=explicit), str(reference.model.name)


def _artifact_reference(path: Path, explicit: bool, stack: ExitStack) -> Reference:
    if not explicit:
        raise UsageError(
            f"the reference {path} is an artifact, whose own rounding errors cannot be measured.",
            "Give --atol or --rtol, or a Keras model as the reference.",
        )
    session = stack.enter_context(open_session(path))
    manifest = read_manifest(path)
    return ArtifactReference(session, session.signature if manifest is None else manifest.signature)
