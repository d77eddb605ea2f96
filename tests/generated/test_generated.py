"""Models that nobody thought of: forty, always the same, exported to every file and proven.

`make generated` tries hundreds. A model that fails is printed as a recipe; `python tests/generated/run.py --recipe
'...'` repeats it and makes it smaller.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import keras
import pytest

from generated.proving import EQUAL, REFUSED, SENSELESS, Outcome, prove, unnoticed
from generated.recipes import Recipe, build, recipe
from generated.strategies import drawn

MODELS = 40
MOST = {REFUSED: 0.05, SENSELESS: 0.1}
"""Refusing is not passing: of what these layers can be put together to, one in twenty may be refused. Models that Keras
does not run prove nothing, and there must not be many."""


@functools.cache
def fixed() -> list[Recipe]:
    return drawn(MODELS)


@functools.cache
def outcome(number: int) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        return prove(fixed()[number], Path(folder))


@pytest.mark.parametrize("number", range(MODELS))
def test_a_generated_model_is_exported_and_proven(number):
    assert outcome(number).state in (EQUAL, REFUSED, SENSELESS), str(outcome(number))


@pytest.mark.parametrize("state", MOST)
def test_few_are_refused(state):
    found = [str(outcome(number)) for number in range(MODELS) if outcome(number).state == state]
    assert len(found) <= MOST[state] * MODELS, "\n".join(found)


def test_one_weight_off_by_one_percent_is_noticed_in_a_generated_model(tmp_path):
    layers = [found for found in fixed() if len(found.nodes) > 3][:3]
    found = [unnoticed(one, tmp_path) for one in layers]
    assert sum(len(counting) for counting, _ in found) > len(layers)
    assert [blind for _, blind in found] == [[]] * len(layers)


def test_a_printed_recipe_makes_the_same_model():
    for one in fixed()[:5]:
        again = recipe(one.text())
        assert again.text() == one.text()
        first, second = build(one), build(again)
        for mine, other in zip(first.weights, second.weights, strict=True):
            assert keras.ops.all(mine.value == other.value)
