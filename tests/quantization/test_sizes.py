"""Which free sizes are the same one, where inference alone does not see it."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import ShapeInferencePass

from mh_edge.quantization.onnx.sizes import Sizes, sizes_of

X = ("b", "t", 8)


def sizes(body: str, inputs: str = "") -> dict[str, Sizes]:
    """Of the values of a graph that is given x (b, t, 8), split = (0, -1, 2, 4), join = (0, -1, 8), and `inputs`."""
    constants = "int64[4] split = {0, -1, 2, 4}, int64[3] join = {0, -1, 8}, int64[1] last = {8}"
    given = f"float[b, t, 8] x{', ' if inputs else ''}{inputs}"
    text = f'<ir_version: 8, opset_import: ["": 17]> graph ({given}) => () <{constants}> {{ {body} }}'
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    return sizes_of(ShapeInferencePass(check_type=False, strict_mode=False)(model).model.graph)


def test_heads_that_are_split_and_joined_have_the_steps_they_had() -> None:
    found = sizes(
        """heads = Reshape(x, split)
        turned = Transpose<perm = [0, 2, 1, 3]>(heads)
        back = Transpose<perm = [0, 2, 1, 3]>(turned)
        joined = Reshape(back, join)"""
    )
    assert found["heads"] == ("b", "t", 2, 4)
    assert found["turned"] == ("b", 2, "t", 4)
    assert found["joined"] == X


def test_a_sum_has_the_size_of_its_parts_and_so_has_what_is_made_of_it() -> None:
    found = sizes(
        """heads = Reshape(x, split)
        joined = Reshape(heads, join)
        sum = Add(x, joined)
        result = Relu(sum)"""
    )
    assert found["sum"] == found["result"] == X


@pytest.mark.parametrize("one", ["1", "b, 1, 1", "1, 1, 8"])
def test_a_size_of_one_says_nothing(one: str) -> None:
    found = sizes("heads = Reshape(x, split) joined = Reshape(heads, join) y = Where(c, joined, x)", f"bool[{one}] c")
    assert found["y"] == X


def test_two_sizes_that_differ_in_name_may_differ() -> None:
    assert sizes("y = Add(x, other)", "float[b, s, 8] other")["y"][1] not in ("s", "t")


def test_of_two_sizes_that_changed_nothing_is_said() -> None:
    found = sizes("to = Concat<axis = 0>(leading, last) y = Reshape(x, to)", "int64[2] leading")["y"]
    assert not {"b", "t"} & set(found[:2])


def test_where_there_is_nothing_any_size_will_do() -> None:
    body = "zero = Constant<value_ints = [0]>() to = Concat<axis = 0>(batch, zero) y = Reshape<allowzero = 1>(none, to)"
    found = sizes(body, "float[b, 0] none, int64[1] batch")["y"]
    assert found[1] == 0
    assert found[0] != "b"


def test_numbers_stay_numbers() -> None:
    assert sizes("y = Add(x, other)", "float[b, 5, 8] other")["y"] == ("b", 5, 8)
