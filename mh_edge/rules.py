"""The registry of conversion rules: how ONE layer class becomes ONE target's operations.

A rule is a function `lower(ctx, layer, inputs, masks) -> output | tuple of outputs` registered with `@rule(target,
LayerClass, cases=...)`. `ctx` is the target's builder (mh_edge_onnx.context.Context, mh_edge_tflite.context.Context);
`inputs` are the tensors the layer was called with, in order, `masks` one Keras mask (or None) for each of them. A rule
is found because its module lies in the converter's `rules` package, or because a package names its module in the entry
point group `mh_edge.rules`.

The core never imports a converter: `rules_for(target)` loads them by name the first time they are asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mh_edge.installed import load_installed

TARGETS = {"onnx": "mh_edge_onnx.rules", "tflite": "mh_edge_tflite.rules"}
"""Each target's package of built-in rules."""

Lower = Callable[..., Any]

Applies = Callable[[Any], str | None]
"""None when a rule takes this layer, else the reason why not."""


@dataclass(frozen=True)
class Case:
    """One model through which a rule is tested: its numbers on the verification grid, and its structure.

    build: returns the Keras model (imports inside, so that reading a rule stays cheap). ops: exact count of each named
    operation in the artifact. absent: operations that must not occur.
    """

    name: str
    build: Callable[[], Any]
    ops: Mapping[str, int] = field(default_factory=dict)
    absent: Sequence[str] = ()


@dataclass(frozen=True)
class Rule:
    """A registered rule. `applies(layer)` is None, or says why this instance is left to the default conversion."""

    target: str
    layer: type
    lower: Lower
    cases: tuple[Case, ...]
    applies: Applies

    @property
    def name(self) -> str:
        """The name stamped on every operation the rule emits: the layer's class name."""
        return self.layer.__name__


_REGISTRY: dict[tuple[str, type], Rule] = {}
_loaded: set[str] = set()


def always(layer: Any) -> str | None:
    """The default `applies`: the rule takes every instance."""
    del layer
    return None


def rule(
    target: str, layer: type, *, cases: Sequence[Case], applies: Applies | None = None
) -> Callable[[Lower], Lower]:
    """Register the decorated function as the rule of `layer` for `target`; a later registration replaces an earlier
    one, but no built-in rule replaces another's, whichever is imported first.

    target: "onnx" or "tflite". cases: at least one Case; they are the rule's tests. applies(layer): None when the rule
    takes this layer, else the reason why the default conversion is used; without it the rule takes every one.
    Raises ValueError for an unknown target or a rule without cases.
    """
    if target not in TARGETS:
        raise ValueError(f"rule for {layer.__name__}: unknown target {target!r}; known are {', '.join(TARGETS)}")
    if not cases:
        raise ValueError(f"rule for {layer.__name__} on {target}: no cases; a rule needs at least one to be tested by")

    def register(lower: Lower) -> Lower:
        made = Rule(target, layer, lower, tuple(cases), applies or always)
        if lower.__module__.startswith(f"{TARGETS[target]}."):
            _REGISTRY.setdefault((target, layer), made)
        else:
            _REGISTRY[target, layer] = made
        return lower

    return register


class RuleSet:
    """The rules of one target, looked up by layer instance. broken: sentences about rules that could not be loaded."""

    def __init__(self, target: str, rules: Mapping[type, Rule], broken: tuple[str, ...] = ()) -> None:
        self.target = target
        self.broken = broken
        self._rules = rules

    def __iter__(self) -> Any:
        return iter(self._rules.values())

    def find(self, layer: Any) -> Rule | None:
        """The rule for this layer: of its class, or of the base class whose `call` it inherits unchanged; None without
        one.
        """
        rule = self._candidate(layer)
        return rule if rule is not None and rule.applies(layer) is None else None

    def declined(self, layer: Any) -> str | None:
        """Why the rule of this layer's class does not take this instance; None when it does, or there is no rule."""
        rule = self._candidate(layer)
        return None if rule is None else rule.applies(layer)

    def _candidate(self, layer: Any) -> Rule | None:
        for cls in type(layer).__mro__:
            if (found := self._rules.get(cls)) is not None:
                return found if type(layer).call is cls.call else None  # type: ignore[attr-defined]
        return None

    def notes(self, layers: Iterable[Any]) -> tuple[str, ...]:
        """A sentence for each layer that its rule declined, and for what could not be loaded."""
        reasons = {layer.name: self.declined(layer) for layer in layers}
        return self.broken + tuple(
            f"layer {name!r} is converted without its rule: {reason}."
            for name, reason in reasons.items()
            if reason is not None
        )


def rules_for(target: str) -> RuleSet:
    """All rules of a target: the built-in ones, and those of installed packages (entry points `mh_edge.rules`)."""
    if target not in _loaded:
        package = importlib.import_module(TARGETS[target])
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
        _loaded.add(target)
    broken = load_installed()
    return RuleSet(target, {layer: found for (of, layer), found in _REGISTRY.items() if of == target}, broken)
