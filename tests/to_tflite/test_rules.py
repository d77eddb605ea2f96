"""Every rule's own cases: structure, numbers on the whole grid, and that a changed weight is noticed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from mh_edge.layers.attention import ADDITIVE_MASK
from mh_edge.program import program
from mh_edge.rulecheck import build_case
from mh_edge.rules import rules_for
from mh_edge.runtimes import open_session
from mh_edge.verification import verify
from to_tflite.conversion import convert, operations, proven, tables, twins

CASES = [pytest.param(rule, case, id=f"{rule.name}-{case.name}") for rule in rules_for("tflite") for case in rule.cases]

CHANGE = 1.01
"""A weight that is off by 1 % is a wrong weight."""

ROUNDING = 2e-6
"""Of 100 steps of a recurrence whose outputs lie in [-1, 1]."""

FUSED = {"UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "LSTM", "RNN"}
"""They keep their state from one call to the next."""


def with_a_wrong_weight(path, target):
    """The file with its largest float constant off by 1 %; None when it has no weights."""
    content = bytearray(path.read_bytes())
    model = schema.Model.GetRootAs(content, 0)
    found = []
    for graph in (model.Subgraphs(index) for index in range(model.SubgraphsLength())):
        for tensor in (graph.Tensors(index) for index in range(graph.TensorsLength())):
            data = model.Buffers(tensor.Buffer()).DataAsNumpy()
            if tensor.Type() == schema.TensorType.FLOAT32 and not isinstance(data, int) and len(data) > 4:
                found.append(data.view(np.float32))
    # A mask of a fixed length is a constant too, and no weight.
    weights = [data for data in found if 0 < np.abs(data).max() < ADDITIVE_MASK]
    if not weights:
        return None
    # A view into the file: the bytes change in place.
    largest = max(weights, key=lambda data: np.abs(data).sum())
    largest *= np.float32(CHANGE)
    target.write_bytes(content)
    return target


@pytest.mark.parametrize(("rule", "case"), CASES)
def test_case(rule, case, tmp_path):
    keras.utils.set_random_seed(1)
    built = build_case(rule, case, tmp_path)
    assert not built.reasons
    (path,) = built.files

    found = operations(path)
    assert not FUSED & set(found)
    assert not any(name.startswith("Flex") for name in found)
    graphs = tables(path).subgraphs
    assert not any(tensor.isVariable for graph in graphs for tensor in graph.tensors)
    results = [graph.tensors[operator.outputs[0]].name for graph in graphs for operator in graph.operators]
    assert not twins(path)
    inside = [name for name in results if f"mh_edge.{rule.name}".encode() in name]
    assert inside or len(results) == 1  # the only operation has the name of the output

    wrong = with_a_wrong_weight(path, tmp_path / "wrong.tflite")
    result = verify(built.program, [file for file in (path, wrong) if file])
    passed = [candidate.passed for candidate in result.candidates]
    assert passed == [True, False][: len(passed)], result.to_json()


FIXED = [case for case in CASES if case.id.endswith(("masked", "sequences", "history", "three", "window", "started"))]


@pytest.mark.parametrize(("rule", "case"), FIXED)
def test_fixed_sizes_and_a_batch_of_two(rule, case, tmp_path):
    keras.utils.set_random_seed(1)
    model = case.build()
    lengths = {name: 5 + number for number, name in enumerate(program(model).signature.free_dims()) if name != "batch"}
    if rule.name == "ScaledDotProductAttention" and "k_sequence" in lengths:
        lengths["v_sequence"] = lengths["k_sequence"]
    result = proven(model, tmp_path / "fixed.tflite", batch=2, **lengths)
    assert not {"SHAPE", "RANGE"} & set(operations(tmp_path / "fixed.tflite"))
    assert result.passed, result.to_json()


def test_a_long_sequence_crosses_the_blocks_of_the_loop(tmp_path):
    """Outputs are gathered in blocks of steps: lengths beside and on their borders, forward and backward, masked."""
    keras.utils.set_random_seed(1)
    x = keras.Input((None, 3), name="x")
    kept = keras.layers.Masking()(x)
    heads = [keras.layers.GRU(2, return_sequences=True, go_backwards=back)(kept) for back in (False, True)]
    source, path = convert(keras.Model(x, heads), tmp_path / "long.tflite")
    rng = np.random.default_rng(0)
    with open_session(path) as session:
        for length in (31, 32, 33, 64, 65, 100):
            feed = rng.normal(size=(1, length, 3)).astype(np.float32)
            feed[:, rng.random(length) < 0.4] = 0
            got, expected = session.run({"x": feed}), source.run({"x": feed})
            for name in expected:
                np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=ROUNDING)
