"""Rules of installed packages: they bring their layers before a model file is read, and a broken one stops nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import keras
import pytest

from mh_edge import rules
from mh_edge.installed import load_installed
from mh_edge.models import load_model
from mh_edge.rules import rules_for
from refusal import refused

BRINGING = """
import keras, mh_edge

@keras.saving.register_keras_serializable(package="bringing")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x

@mh_edge.rule("onnx", Twice, cases=[mh_edge.Case("any", object)])
def to_onnx(ctx, layer, inputs, masks):
    return ctx.op("Add", inputs[0], inputs[0])

@mh_edge.rule("onnx", keras.layers.Dense, cases=[mh_edge.Case("any", object)])
def dense(ctx, layer, inputs, masks):
    return inputs[0]
"""
SENTENCE = (
    "the installed package 'fake' brings rules in 'breaking', which cannot be imported: "
    "ModuleNotFoundError: No module named 'absent_anywhere'"
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """installed("name", ...): these modules are entry points of packages; all is forgotten afterwards."""
    real = metadata.entry_points
    (tmp_path / "bringing.py").write_text(BRINGING)
    (tmp_path / "breaking.py").write_text("import absent_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for target in rules.TARGETS:
        rules_for(target)  # the built-in ones are imported once, and are to stay
    monkeypatch.setattr(rules, "_REGISTRY", dict(rules._REGISTRY))

    def install(*modules: str) -> None:
        fakes = metadata.EntryPoints(metadata.EntryPoint("fake", name, "mh_edge.rules") for name in modules)
        monkeypatch.setattr(
            metadata,
            "entry_points",
            lambda **wanted: fakes if wanted == {"group": "mh_edge.rules"} else real(**wanted),
        )
        load_installed.cache_clear()

    yield install
    load_installed.cache_clear()
    for name in ("bringing", "breaking"):
        sys.modules.pop(name, None)
    keras.saving.get_custom_objects().pop("bringing>Twice", None)


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    """A model file that holds the layer, written by another process, as it were: the layer is not known here."""
    path = tmp_path / "twice.keras"
    space: dict[str, object] = {"__name__": "bringing"}
    exec(compile(BRINGING.partition("@mh_edge.rule")[0], "bringing", "exec"), space)  # noqa: S102 - the text above
    keras.Sequential([keras.Input((3,)), space["Twice"]()]).save(path)  # type: ignore[operator]
    keras.saving.get_custom_objects().pop("bringing>Twice")
    return path


def test_a_rule_brings_its_layer_before_a_file_is_read(installed: Callable[..., None], twice: Path) -> None:
    installed()
    assert "holds the layer Twice" in refused(lambda: load_model(twice)).message
    installed("bringing")
    assert type(load_model(twice).layers[-1]).__name__ == "Twice"
    assert "Twice" in {rule.name for rule in rules_for("onnx")}


def test_an_installed_rule_goes_before_a_built_in_one(
    installed: Callable[..., None],
) -> None:
    installed("bringing")
    load_installed()
    rules_for("onnx")
    rules.rule("onnx", keras.layers.Dense, cases=[rules.Case("any", object)])(built_in)
    assert {rule.lower.__module__ for rule in rules_for("onnx") if rule.layer is keras.layers.Dense} == {"bringing"}


def built_in() -> None:
    raise NotImplementedError


built_in.__module__ = "mh_edge_onnx.rules.dense"


def test_a_broken_one_is_a_sentence_and_stops_nothing(installed: Callable[..., None], twice: Path) -> None:
    installed("breaking", "bringing")
    assert load_installed() == (SENTENCE,)
    assert type(load_model(twice).layers[-1]).__name__ == "Twice"
    assert rules_for("onnx").notes([]) == (SENTENCE,)
    assert rules_for("tflite").broken == (SENTENCE,)


def test_a_layer_that_a_broken_one_may_have_brought(installed: Callable[..., None], twice: Path) -> None:
    installed("breaking")
    error = refused(lambda: load_model(twice))
    assert "holds the layer Twice" in error.message
    assert "--import bringing" in error.hint
    assert error.hint.endswith(f"Or mend this: {SENTENCE}")
