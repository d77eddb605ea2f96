"""The verdict on a device's numbers: what it lets pass, and what it must not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mh_edge.profiling.agreement import ALLOWED, compare
from mh_edge.profiling.result import Agreement
from mh_edge.runtimes.base import Scale


def judged(expected: object, got: object, precision: str = "float32", **options: float) -> Agreement:
    one, other = np.asarray(expected), np.asarray(got)
    return compare([{"y": one}], [{"y": other}], {}, precision, "cpu", **options)


def test_the_error_is_the_largest_difference_over_the_largest_number() -> None:
    found = judged([[1.0, -4.0], [2.0, 0.5]], [[1.0, -4.0], [2.0, 0.504]])
    assert found.equal is False
    assert found.error == pytest.approx(0.001)
    assert (found.at, found.expected, found.got) == ("y[1, 1]", 0.5, 0.504)


def test_zeros_are_found_out() -> None:
    found = judged([[0.1, 0.2]], [[0.0, 0.0]], "integers")
    assert (found.equal, found.error) == (False, 1.0)


def test_what_is_allowed_depends_on_the_numbers_computed_in() -> None:
    off = [0.5, 1.0 + 0.5 * ALLOWED["float16"]]
    assert judged([0.5, 1.0], off, "float16").equal
    assert not judged([0.5, 1.0], off, "float32").equal
    assert judged([0.5, 1.0], off, "float32", allowed=0.5).equal


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_must_be_in_the_same_places(value: float) -> None:
    assert judged([1.0, value], [1.0, value]).equal
    found = judged([1.0, 2.0], [1.0, value], "integers")
    assert (found.equal, found.error) == (False, math.inf)
    assert judged([1.0, value], [1.0, 2.0]).equal is False
    assert judged([1.0, math.inf], [1.0, -math.inf]).equal is False


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([0.0, 0.0], "every number of 'y' is 0"),
        ([0], "every number of 'y' is 0"),
        ([2.5, 2.5], "every number of 'y' is 2.5"),
        ([True, True], "every number of 'y' is 1"),
        ([math.nan, math.nan], "no number of 'y' is finite"),
        ([math.inf, -math.inf], "no number of 'y' is finite"),
        ([3.0, math.nan, 3.0], "every number of 'y' is 3"),
        (np.zeros((0, 4)), "'y' is empty"),
        (["a", "b"], "'y' holds no numbers, but text"),
    ],
)
def test_what_is_the_same_whatever_is_computed_proves_nothing(value: object, why: str) -> None:
    found = judged(value, value)
    assert (found.equal, found.why) == (None, f"{why} on 'cpu', which proves nothing")
    one, telling = np.asarray(value), np.array([1.0, 2.0])
    both = {"y": one, "z": telling}
    assert compare([both], [both], {}, "float32", "cpu").equal, "another output proves something"
    assert compare([both], [{"y": one, "z": telling * 1.1}], {}, "float32", "cpu").equal is False


def test_what_proves_nothing_can_be_wrong_all_the_same() -> None:
    assert judged([0.0, 0.0], [0.0, 1e-9]).equal is False
    assert judged([math.nan, math.nan], [0.0, 0.0]).equal is False
    assert judged([2.5, 2.5], [2.5, 2.6]).equal is False


def test_one_number_proves_something_and_so_do_feeds_that_differ() -> None:
    assert judged([2.5], [2.5]).equal
    feeds = [{"y": np.full(3, number)} for number in (1.0, 2.0)]
    assert compare(feeds, feeds, {}, "float32", "cpu").equal


def test_complex_numbers_have_two_parts() -> None:
    assert judged([1 + 2j, 3j], [1 + 2j, 3j]).equal
    found = judged([1 + 2j, 4j], [1 + 2j, 5j], "integers")
    assert (found.equal, found.error, found.at, found.expected, found.got) == (False, 0.25, "y[1, 1]", 4.0, 5.0)


def test_whole_numbers_and_booleans_are_counted() -> None:
    assert judged([1, 2, 3], [1, 2, 3]).error == 0
    found = judged([1, 2, 3, 4], [1, 2, 3, 5])
    assert (found.equal, found.error, found.at) == (False, 0.25, "y[3]")
    assert judged([True, False], [True, True]).equal is False


def test_scaled_integers_are_the_numbers_they_stand_for() -> None:
    scales = {"y": Scale(0.5, -128, "int8")}
    one, other = np.array([-128, 127], np.int8), np.array([-127, 127], np.int8)
    found = compare([{"y": one}], [{"y": other}], scales, "integers", "cpu")
    assert found.equal
    assert found.error == pytest.approx(1 / 255)


def test_the_scale_is_that_of_all_feeds_and_the_worst_output_counts() -> None:
    expected = [{"a": np.array([1e-3]), "b": np.array([1.0])}, {"a": np.array([1.0]), "b": np.array([1.0])}]
    got = [{"a": np.array([2e-3]), "b": np.array([1.0])}, {"a": np.array([1.0]), "b": np.array([1.002])}]
    found = compare(expected, got, {}, "float32", "cpu")
    assert (found.at, found.equal, found.feeds) == ("b[0]", False, 2)


def test_other_shapes_and_missing_outputs_are_no_numbers() -> None:
    assert judged([1.0, 2.0], [1.0]).why == "the output 'y' has the shape (1,), expected (2,)"
    one, two = {"y": np.ones(1)}, {"y": np.ones(1), "z": np.ones(1)}
    found = compare([two, two], [two, one], {}, "float32", "cpu")
    assert (found.equal, found.error, found.why) == (False, None, "the output 'z' is missing")
    found = compare([one], [two], {}, "float32", "cpu")
    assert (found.equal, found.why) == (False, "there is an output 'z', which is not expected")


@pytest.mark.parametrize(
    ("dtype", "name"), [("float64", "float64"), ("float16", "float16"), ("U", "text"), ("complex64", "complex64")]
)
def test_another_kind_of_numbers_is_a_sentence(dtype: str, name: str) -> None:
    numbers = np.array([1, 2], np.float32)
    found = judged(numbers, numbers.astype(dtype))
    assert (found.equal, found.error, found.why) == (False, None, f"the output 'y' is {name}, expected float32")
    again = judged(numbers.astype(dtype), numbers)
    assert again.why == f"the output 'y' is float32, expected {name}"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(ALLOWED)), st.floats(1e-6, 1e6))
def test_the_verdict_turns_at_what_is_allowed(seed: int, precision: str, size: float) -> None:
    rng = np.random.default_rng(seed)
    expected = size * rng.uniform(-1, 1, (3, 5))
    index = tuple(rng.integers(0, (3, 5)))
    largest = np.abs(expected).max()
    for factor, right in ((0.9, True), (1.1, False)):
        got = expected.copy()
        got[index] -= factor * ALLOWED[precision] * largest
        assert judged(expected, got, precision).equal is right
