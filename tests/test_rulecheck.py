"""check_rule: a sound rule passes on both targets; each way to be wrong is a sentence that names the rule."""

from __future__ import annotations

from typing import Any

import keras
import pytest

import mh_edge
from mh_edge import rules
from mh_edge.errors import NotEqualError, UsageError
from mh_edge.rules import Case, rules_for


@keras.saving.register_keras_serializable(package="test_rulecheck")
class Plus(keras.layers.Layer):
    """x + x."""

    def call(self, x: Any) -> Any:
        return x + x


def model() -> keras.Model:
    x = keras.Input((None, 3), name="x")
    return keras.Model(x, Plus()(x))


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for target in rules.TARGETS:
        rules_for(target)
    monkeypatch.setattr(rules, "_REGISTRY", dict(rules._REGISTRY))
    mh_edge.rule("onnx", Plus, cases=[Case("sum", model, ops={"Add": 1}, absent=("Mul",))])(to_onnx)
    mh_edge.rule("tflite", Plus, cases=[Case("sum", model, ops={"ADD": 1})])(to_tflite)


def to_onnx(ctx: Any, layer: Plus, inputs: Any, masks: Any) -> Any:
    return ctx.op("Add", inputs[0], inputs[0])


def to_tflite(ctx: Any, layer: Plus, inputs: Any, masks: Any) -> Any:
    return inputs[0] + inputs[0]


def broken(ctx: Any, layer: Plus, inputs: Any, masks: Any) -> Any:
    return layer.absent


def reasons(lower: Any, target: str = "onnx", **case: Any) -> str:
    """The reasons of one case, which must not pass."""
    mh_edge.rule(target, Plus, cases=[Case("bad", **{"build": model} | case)])(lower)
    checked = mh_edge.check_rule(Plus, target)
    assert not checked.passed
    with pytest.raises(NotEqualError) as raised:
        checked.require()
    assert f"the {target} rule for Plus ({__name__}), case 'bad': " in raised.value.message
    (one,) = checked.to_json()["cases"]
    assert one["rule"] == "Plus"
    assert one["module"] == __name__
    assert not one["passed"]
    return raised.value.message


def test_a_sound_rule_passes_on_both_targets() -> None:
    checked = mh_edge.check_rule(Plus)
    assert checked.passed
    checked.require()
    assert [(case.target, case.case) for case in checked.cases] == [("onnx", "sum"), ("tflite", "sum")]
    onnx, tflite = checked.to_json()["cases"]
    assert [len(case["verification"]["candidates"]) for case in (onnx, tflite)] == [2, 1]
    assert all(one["feeds"] >= 8 for case in (onnx, tflite) for one in case["verification"]["candidates"])


def test_one_target_or_one_rule() -> None:
    assert [case.target for case in mh_edge.check_rule(Plus, "tflite").cases] == ["tflite"]
    (rule,) = (one for one in rules_for("onnx") if one.layer is Plus)
    assert [case.target for case in mh_edge.check_rule(rule).cases] == ["onnx"]


def test_wrong_numbers() -> None:
    found = reasons(lambda ctx, layer, inputs, masks: ctx.op("Mul", inputs[0], inputs[0]))
    assert "bad.onnx: " in found
    assert "bad.portable.onnx: " in found
    assert "feeds differ" in found


def test_wrong_operations() -> None:
    found = reasons(to_onnx, ops={"Add": 2}, absent=("Add",))
    assert "bad.onnx holds 1 Add, not 2." in found
    assert "bad.onnx holds 1 Add, which must not occur." in found


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_a_rule_that_raises(target: str) -> None:
    found = reasons(broken, target)
    assert f"rule for Plus ({__name__}), applied to layer 'plus" in found
    assert "raised AttributeError: 'Plus' object has no attribute 'absent'" in found
    assert "\x1b" not in found


def test_a_case_without_the_layer() -> None:
    assert "the rule made nothing in bad.onnx" in reasons(
        to_onnx, build=lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    )


def test_a_case_that_makes_no_model() -> None:
    assert "its build returned 3, not a Keras model." in reasons(to_onnx, build=lambda: 3)
    assert "its build raised ZeroDivisionError: division by zero" in reasons(to_onnx, build=lambda: 1 / 0)


def test_what_cannot_be_checked() -> None:
    with pytest.raises(UsageError, match="no rule for Flatten on onnx or tflite"):
        mh_edge.check_rule(keras.layers.Flatten)
    with pytest.raises(UsageError, match=r"target 'coffee' is not known\. Known are onnx, tflite"):
        mh_edge.check_rule(Plus, "coffee")
