"""Every layer of Keras is in the table of docs/coverage.md, and what it says holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coverage_models import MODELS, WITHOUT, keras_names, layer_of
from layer_coverage import TARGETS, covered

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"

LEAST = {"onnx": 90, "tflite": 71}
"""Of one-layer models, what Keras's own export gives as a file that runs and agrees."""

QUICK = (
    *("activations.gelu", "activations.celu", "activations.softplus", "BatchNormalization, behind Dense"),
    *("Embedding, masked, before LSTM", "CategoryEncoding, count", "LayerNormalization", "UnitNormalization"),
    *("Conv1D, causal and dilated", "Conv2DTranspose", "UpSampling1D", "TimeDistributed, of Conv2D"),
    *("MultiHeadAttention, masked and causal", "GroupQueryAttention", "AdditiveAttention", "Normalization"),
    *("GRU, reset before", "RNN, StackedRNNCells", "ConvLSTM1D", "Bidirectional, GRU with states"),
)
"""What Keras's own export cannot do, or does in another way. The page tries them all: `make coverage`."""


def rows():
    """Of the page: name -> cells."""
    cells = (re.findall(r"[^|]+", line) for line in PAGE.read_text().splitlines() if line.startswith("| "))
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in cells}


def test_every_layer_of_this_keras_is_tried_or_left_out_with_a_reason():
    tried = {layer_of(name) for name in MODELS}
    assert not tried & set(WITHOUT)
    new, gone = keras_names() - tried - set(WITHOUT), (tried | set(WITHOUT)) - keras_names()
    assert not new, f"Keras has layers that tests/coverage_models.py does not know: {sorted(new)}"
    assert not gone, f"Keras has no longer: {sorted(gone)}"


def test_the_page_holds_every_model_and_every_layer_left_out():
    assert set(MODELS) | set(WITHOUT) <= set(rows())


def test_more_layers_become_a_file_than_by_the_export_of_keras():
    for column, target in enumerate(TARGETS):
        passed = [name for name in MODELS if rows()[name][column].startswith("yes")]
        assert len(passed) > LEAST[target]
        refused = [rows()[name][column] for name in MODELS if name not in passed]
        assert all(": " in cell for cell in refused)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", QUICK)
def test_what_the_page_says_holds(name, target):
    row = covered(name, target, with_fixed=False)
    assert row.passed == rows()[name][list(TARGETS).index(target)].startswith("yes"), row.cell()
