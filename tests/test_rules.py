"""The registry: what a rule needs, and which layer it takes."""

from __future__ import annotations

import pytest

from mh_edge.rules import Case, Rule, RuleSet, rule, rules_for


class Base:
    name = "base"

    def call(self):
        return 1


class SameCall(Base):
    name = "same"


class OtherCall(Base):
    name = "other"

    def call(self):
        return 2


CASE = Case("any", object)


def rules(applies=lambda layer: None):
    return RuleSet("onnx", {Base: Rule("onnx", Base, lambda: None, (CASE,), applies)})


def test_a_subclass_inherits_the_rule_with_the_call():
    assert rules().find(Base()).layer is Base
    assert rules().find(SameCall()).layer is Base
    assert rules().find(OtherCall()) is None
    assert rules().find(object()) is None


def test_a_rule_may_decline_and_say_why():
    picky = rules(lambda layer: "it is odd" if layer.name == "same" else None)
    assert picky.find(Base()) is not None
    assert picky.find(SameCall()) is None
    assert picky.declined(SameCall()) == "it is odd"
    assert picky.declined(OtherCall()) is None
    assert picky.notes([Base(), SameCall()]) == ("layer 'same' is converted without its rule: it is odd.",)


def test_a_rule_without_cases_is_refused():
    with pytest.raises(ValueError, match="Base on onnx: no cases"):
        rule("onnx", Base, cases=())


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match="unknown target 'coffee'; known are onnx, tflite"):
        rule("coffee", Base, cases=(CASE,))


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_the_layers_of_the_package_have_rules_on_both_targets(target):
    named = {found.name for found in rules_for(target)}
    ours = {"MultiHead", "MultiHeadAttention", "ScaledDotProductAttention", "SeqSelfAttention", "SeqWeightedAttention"}
    assert ours | {"LSTM", "GRU", "SimpleRNN", "Bidirectional", "Dense", "TimeDistributed"} <= named
    assert all(found.cases for found in rules_for(target))
