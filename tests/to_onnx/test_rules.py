"""Every rule's own cases: structure, numbers on the whole grid, and that a changed weight is noticed."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest

from mh_edge.program import program
from mh_edge.rulecheck import build_case
from mh_edge.rules import rules_for
from mh_edge.verification import verify
from to_onnx.conversion import checked, convert, operations

CASES = [pytest.param(rule, case, id=f"{rule.name}-{case.name}") for rule in rules_for("onnx") for case in rule.cases]
CONTROL_FLOW = {"Loop", "Scan", "If"}

CHANGE = 1.01
"""A weight that is off by 1 % is a wrong weight."""


def with_a_wrong_weight(path, target):
    """The file with its largest weight tensor off by 1 %; None when it has no weights."""
    model = onnx.load(path)

    def mass(item):
        return np.abs(onnx.numpy_helper.to_array(item)).sum() if np.prod(item.dims) > 1 else 0.0

    weights = [item for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT and mass(item)]
    if not weights:
        return None
    largest = max(weights, key=mass)
    changed = onnx.numpy_helper.to_array(largest) * np.float32(CHANGE)
    largest.CopyFrom(onnx.numpy_helper.from_array(changed, largest.name))
    onnx.save(model, target)
    return target


@pytest.mark.parametrize(("rule", "case"), CASES)
def test_case(rule, case, tmp_path):
    keras.utils.set_random_seed(1)
    built = build_case(rule, case, tmp_path)
    assert not built.reasons
    path, portable = built.files
    for file in built.files:
        checked(file)
    assert not CONTROL_FLOW & {*operations(path), *operations(portable)}
    nodes = onnx.load(path).graph.node
    assert not any(node.domain for node in nodes)
    stamped = {item.value for node in nodes for item in node.metadata_props if item.key == "mh_edge.rule"}
    assert stamped
    assert stamped <= {found.name for found in rules_for("onnx")}
    assert onnx.load(portable).opset_import[0].version == 17

    wrong = with_a_wrong_weight(path, tmp_path / "wrong.onnx")
    result = verify(built.program, [file for file in (path, portable, wrong) if file])
    passed = [candidate.passed for candidate in result.candidates]
    assert passed == [True, True, False][: len(passed)], result.to_json()


FIXED = [case for case in CASES if case.id.endswith(("masked", "masked_sequences", "history", "cross", "width"))]


@pytest.mark.parametrize(("rule", "case"), FIXED)
def test_fixed_sizes_leave_no_shape_arithmetic(rule, case, tmp_path):
    keras.utils.set_random_seed(1)
    model = case.build()
    sizes = dict.fromkeys(program(model).signature.free_dims(), 7) | {"batch": 2}
    source, path = convert(model, tmp_path / "fixed.onnx", **sizes)
    assert not {"Shape", "Range"} & set(operations(path))
    result = verify(source, [path])
    assert result.passed, result.to_json()
