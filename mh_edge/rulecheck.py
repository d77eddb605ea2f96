"""check_rule: the cases of a rule, converted and proven. It is the test of a rule, for whoever wrote one.

mh_edge.check_rule(ScaleNorm).require()
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mh_edge.artifact import FORMATS, Converted
from mh_edge.errors import ConversionError, InputError, MhEdgeError, NotEqualError, UsageError
from mh_edge.inspection import inspect
from mh_edge.packages import require
from mh_edge.quiet import quiet
from mh_edge.rules import TARGETS, Case, Rule, rules_for
from mh_edge.wording import said

if TYPE_CHECKING:
    from mh_edge.program import Program
    from mh_edge.verification import Verification

FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "onnx": {"": {"opset": None, "runtime": "cpu"}, ".portable": {"opset": None, "runtime": "portable"}},
    "tflite": {"": {}},
}
"""The files that are made of each case: what is added to its name -> options of the converter. The counts of a case are
those of the first."""

SIZES = {"onnx": {}, "tflite": {"batch": 1}}
"""The sizes that are fixed, as an export fixes them."""


@dataclass(frozen=True)
class BuiltCase:
    """A case as files. reasons: what is wrong with their structure, in sentences."""

    program: Program
    files: tuple[Path, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class CaseCheck:
    """The verdict on one case of one rule. reasons: why it did not pass, in sentences; verification: of the numbers,
    None where there was no file to compare.
    """

    target: str
    rule: str
    module: str
    case: str
    reasons: tuple[str, ...]
    verification: Verification | None

    @property
    def passed(self) -> bool:
        return not self.reasons

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "rule": self.rule,
            "module": self.module,
            "case": self.case,
            "passed": self.passed,
            "reasons": list(self.reasons),
            "verification": None if self.verification is None else self.verification.to_json(),
        }


@dataclass(frozen=True)
class RuleCheck:
    """The verdicts on every case, in the order of targets and cases."""

    cases: tuple[CaseCheck, ...]

    @property
    def passed(self) -> bool:
        return all(case.passed for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON; NaN and infinity are strings."""
        return {"passed": self.passed, "cases": [case.to_json() for case in self.cases]}

    def require(self) -> None:
        """Raise NotEqualError with the reasons, each with its rule, target, module and case, unless every case
        passed.
        """
        failed = [case for case in self.cases if not case.passed]
        if failed:
            raise NotEqualError(" ".join(reason for case in failed for reason in case.reasons), "Mend the rule.")


def check_rule(rule: Rule | type, target: str | None = None) -> RuleCheck:
    """For each case: the rule is applied, `ops` and `absent` hold, and |file(x) - model(x)| <= what float32 explains on
    the whole grid of feeds.

    rule: a layer class, whose rules are looked up, or a Rule. target: "onnx" or "tflite"; None is both.
    A case that fails is no exception: see RuleCheck.passed and RuleCheck.require(). Raises UsageError for an unknown
    target, or when there is no such rule.
    """
    checks = []
    for found in _rules(rule, target):
        for case in found.cases:
            with tempfile.TemporaryDirectory() as folder:
                checks.append(_checked(found, case, Path(folder)))
    return RuleCheck(tuple(checks))


@quiet()
def build_case(rule: Rule, case: Case, folder: Path) -> BuiltCase:
    """Convert the model of a case -> the files, in `folder`, and what is wrong with their structure.

    Raises InputError when the case makes no model, ConversionError when the rule or the conversion fails.
    """
    keras = require("keras", "export", "checking a rule")
    from mh_edge.program import program
    from mh_edge.verification.domains import derive

    model = _model(case)
    if not isinstance(model, keras.Model):
        raise InputError(f"its build returned {model!r}, not a Keras model.")
    source = derive(program(model))
    signature = source.signature.pin(SIZES[rule.target])
    convert = importlib.import_module(FORMATS[rule.target]).convert
    files: list[Path] = []
    faults: list[str] = []
    for suffix, options in FORMS[rule.target].items():
        converted: Converted = convert(source, signature, **options)
        file, *_ = converted.save(folder / f"{case.name}{suffix}.{rule.target}")
        files.append(file)
        if rule.name not in converted.rules:
            faults.append(
                f"the rule made nothing in {file.name}: `applies` declines the layer, or the case does not hold it."
            )
    return BuiltCase(source, tuple(files), (*faults, *_miscounted(case, files[0])))


def _model(case: Case) -> Any:
    try:
        return case.build()
    except MhEdgeError:
        raise
    except Exception as error:  # the user's code: it may raise anything
        raise InputError(f"its build raised {type(error).__name__}: {said(error)}") from error


def _miscounted(case: Case, file: Path) -> Iterator[str]:
    made = inspect(file).ops
    for name, count in case.ops.items():
        if (found := made.get(name, 0)) != count:
            yield f"{file.name} holds {found} {name}, not {count}."
    for name in case.absent:
        if name in made:
            yield f"{file.name} holds {made[name]} {name}, which must not occur."


def _checked(rule: Rule, case: Case, folder: Path) -> CaseCheck:
    from mh_edge.verification import verify

    module = rule.lower.__module__
    where = f"the {rule.target} rule for {rule.name} ({module}), case {case.name!r}:"
    verification = None
    try:
        built = build_case(rule, case, folder)
        reasons = list(built.reasons)
        verification = quiet()(verify)(built.program, built.files, label=f"{rule.name} of Keras")
        reasons += [f"{Path(one.path).name}: {reason}" for one in verification.candidates for reason in one.reasons]
    except (InputError, ConversionError) as error:
        reasons = [str(error)]
    found = tuple(f"{where} {reason.replace(f'{folder}/', '')}" for reason in reasons)
    return CaseCheck(rule.target, rule.name, module, case.name, found, verification)


def _rules(rule: Rule | type, target: str | None) -> list[Rule]:
    if target is not None and target not in TARGETS:
        raise UsageError(f"the target {target!r} is not known.", f"Known are {', '.join(TARGETS)}.")
    targets = tuple(TARGETS) if target is None else (target,)
    if isinstance(rule, Rule):
        found = [rule] if rule.target in targets else []
    else:
        found = [one for wanted in targets for one in rules_for(wanted) if one.layer is rule]
    if not found:
        name = rule.name if isinstance(rule, Rule) else getattr(rule, "__qualname__", repr(rule))
        raise UsageError(
            f"there is no rule for {name} on {' or '.join(targets)}.",
            "Give the layer class, after importing the module that registers its rules with @mh_edge.rule.",
        )
    return found
