"""A recipe exported and proven: both targets, ONNX for the CPU and portable."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import mh_edge_onnx
import mh_edge_tflite
from generated.recipes import INPUT, MODEL, Node, Recipe, build
from mh_edge.errors import ConversionError, InputError, MhEdgeError
from mh_edge.policy import is_float32, with_policy
from mh_edge.program import Program, program
from mh_edge.quiet import quiet
from mh_edge.verification import Verification, feeds, verify
from mh_edge.verification.domains import derive

EQUAL, REFUSED, UNPROVEN, FAULT, SENSELESS = "equal", "refused", "unproven", "fault", "senseless"
"""What became of a model: proven; refused by a converter with a reason; neither equal nor not; all else; and what Keras
itself does not build."""

BROKEN = " raised "
"""In a ConversionError that is no refusal: a rule or the conversion failed with an exception."""

KERAS_REFUSES = "Keras itself cannot run"
"""In an InputError: stacked cells with a mask and one output, say, are a fault of Keras."""

CHANGE, COUNTS = 1.01, 1e-3
"""A weight that is off by 1 % is a wrong weight, and an output that moves by a thousandth of itself shows it."""


@dataclass(frozen=True)
class Outcome:
    """What became of a recipe. where: the file, or the step, that the reason is about."""

    recipe: Recipe
    state: str
    where: str = ""
    reason: str = ""
    verification: Verification | None = None

    def __str__(self) -> str:
        return f"{self.state} ({self.where}): {self.reason}\n{self.recipe!r}"


def prove(recipe: Recipe, folder: Path) -> Outcome:
    """Build, convert to every file and verify; a failing feed is saved in `folder`."""
    try:
        source, files = export(recipe, folder)
    except Stopped as stop:
        return Outcome(recipe, stop.state, stop.where, stop.reason)
    try:
        found = quiet()(verify)(source, files, failures=folder)
    except MhEdgeError as error:
        return Outcome(recipe, FAULT, "verify", str(error))
    except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for here
        return Outcome(recipe, FAULT, "verify", traceback.format_exc(limit=-4))
    for candidate in found.candidates:
        if not candidate.passed:
            unproven = all("prove nothing" in reason for reason in candidate.reasons)
            where, reason = Path(candidate.path).name, " ".join(candidate.reasons)
            return Outcome(recipe, UNPROVEN if unproven else FAULT, where, reason, found)
    return Outcome(recipe, EQUAL, verification=found)


class Stopped(Exception):  # noqa: N818 - a result
    """No files: the state, the step and the reason."""

    def __init__(self, state: str, where: str, reason: str) -> None:
        super().__init__(f"{state} ({where}): {reason}")
        self.state, self.where, self.reason = state, where, reason


def export(recipe: Recipe, folder: Path) -> tuple[Program, list[Path]]:
    """The program of the recipe's model (in float32), and its files. Raises Stopped."""
    try:
        model = build(recipe)
    except Exception as error:
        raise Stopped(SENSELESS, "build", str(error)) from error
    where = "program"
    try:
        with quiet():
            source = derive(program(model if is_float32(model) else with_policy(model, "float32")))
        signature = source.signature.pin(recipe.sizes)
        forms: list[tuple[str, Any, Any, dict[str, Any]]] = [
            ("cpu.onnx", mh_edge_onnx, signature, {"opset": recipe.opset, "runtime": "cpu"}),
            ("portable.onnx", mh_edge_onnx, signature, {"opset": None, "runtime": "portable"}),
            ("lite.tflite", mh_edge_tflite, signature.pin({"batch": 1}), {}),
        ]
        files = []
        for where, converter, pinned, options in forms:
            path = folder / where
            converter.convert(source, pinned, merge=recipe.merge, **options).save(path)
            if path.suffix == ".onnx":
                onnx.checker.check_model(str(path), full_check=True)
            files.append(path)
    except (ConversionError, InputError) as error:
        if where == "program" and KERAS_REFUSES in str(error):
            raise Stopped(SENSELESS, where, str(error)) from error
        raise Stopped(FAULT if BROKEN in str(error) else REFUSED, where, str(error)) from error
    except Exception as error:
        raise Stopped(FAULT, where, traceback.format_exc(limit=-4)) from error
    return source, files


def unnoticed(recipe: Recipe, folder: Path) -> tuple[list[str], list[str]]:
    """Change one weight of each layer by 1 % and verify the old files -> the weights whose change counts, and those of
    them that no verdict noticed.

    It counts where it moves Keras's outputs by a thousandth: a bias before a softmax, say, moves nothing.
    """
    source, files = export(recipe, folder)
    counting, blind = [], []
    before = _run(source, recipe)
    for variable in _one_of_each(source):
        kept = variable.numpy()
        variable.assign(kept * CHANGE)
        after = _run(source, recipe)
        if max(_moved(before[name], after[name]) for name in before) > COUNTS:
            counting.append(variable.path)
            if any(one.passed for one in quiet()(verify)(source, files).candidates):
                blind.append(variable.path)
        variable.assign(kept)
    return counting, blind


def _one_of_each(source: Program) -> list[Any]:
    """The largest weight of each layer."""
    found = {}
    for variable in sorted(source.model.variables, key=lambda variable: int(np.prod(variable.shape))):
        if "float" in variable.dtype:
            found[variable.path.rpartition("/")[0]] = variable
    return list(found.values())


def _run(source: Program, recipe: Recipe) -> dict[str, np.ndarray]:
    """Keras on an ordinary feed of a few steps."""
    signature = source.signature.pin({"batch": 1, **recipe.sizes})
    return source.run(feeds.build(signature, feeds.grid(signature, 0)[1]).arrays)


def _moved(before: np.ndarray, after: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.abs(before - after)).max(initial=0.0)
    return float(apart / max(np.nan_to_num(np.abs(before)).max(initial=0.0), 1e-30))


def shrunk(outcome: Outcome, folder: Path, attempts: int = 60) -> Outcome:
    """The simplest recipe found with the same state in the same file: greedy, a node or an option at a time."""
    tried = 0
    while tried < attempts:
        for simpler in _simpler(outcome.recipe):
            tried += 1
            again = prove(simpler, folder)
            if (again.state, again.where) == (outcome.state, outcome.where):
                outcome = again
                break
            if tried >= attempts:
                break
        else:
            break
    return outcome


def _simpler(recipe: Recipe) -> Iterator[Recipe]:
    nodes = recipe.nodes
    for index in range(len(nodes) - 1, 0, -1):
        yield from _without(recipe, index)
    for index, node in enumerate(nodes):
        if node.kind == MODEL:
            continue
        for call in _fewer(node.call):
            yield _with(recipe, index, replace(node, call=call))
        if node.kind != INPUT:
            for options in _fewer(node.options):
                yield _with(recipe, index, replace(node, options=options))
    for change in ({"policy": "float32"}, {"merge": True}, {"opset": 23}, {"sizes": {}}):
        if any(getattr(recipe, name) != value for name, value in change.items()):
            yield replace(recipe, **change)


def _without(recipe: Recipe, index: int) -> Iterator[Recipe]:
    """Without a node: what took its value takes its input instead, or goes too."""
    name, values = recipe.nodes[index].name, recipe.nodes[index].values
    rest = [node for node in recipe.nodes if node.name != name]
    users = [node for node in rest if name in node.taken() or f"{name}:1" in node.taken()]
    if not users:
        yield replace(recipe, nodes=tuple(rest))
    for value in values[:1]:
        bypassed = [replace(n, values=tuple(value if item == name else item for item in n.values)) for n in rest]
        yield replace(recipe, nodes=tuple(bypassed))


def _with(recipe: Recipe, index: int, node: Node) -> Recipe:
    return replace(recipe, nodes=(*recipe.nodes[:index], node, *recipe.nodes[index + 1 :]))


def _fewer(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in options:
        yield {key: value for key, value in options.items() if key != name}
