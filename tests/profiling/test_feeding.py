"""Feeds for a signature: sizes, masks, scaled integers, the user's own arrays."""

from __future__ import annotations

import numpy as np
import pytest

from mh_edge.errors import InputError, UsageError
from mh_edge.profiling.feeding import BATCH, SEQUENCE, Sizes, drawn, given
from mh_edge.runtimes.base import Scale
from mh_edge.signature import Domain, Signature, Tensor

FREE = Signature(
    (
        Tensor("x", "float32", ("batch", "sequence", 4)),
        Tensor("ids", "int32", ("batch", "sequence"), Domain(ids_below=7, mask_value=0.0)),
        Tensor("valid", "bool", ("batch", "sequence")),
    ),
    (Tensor("y", "float32", ("batch", 3)),),
)
FIXED = Signature((Tensor("x", "float32", (2, 4)),), (Tensor("y", "float32", (2, 3)),))


def test_free_sizes_take_what_is_asked_for() -> None:
    assert Sizes().bind(FREE) == {"batch": BATCH, "sequence": SEQUENCE}
    assert Sizes(batch=8, sequence=5).bind(FREE) == {"batch": 8, "sequence": 5}
    assert Sizes(batch=8, dims={"sequence": 9}).bind(FREE) == {"batch": 8, "sequence": 9}


def test_a_size_that_is_not_free_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--dim depth=3 names a size that is not free") as caught:
        Sizes(dims={"depth": 3}).bind(FREE)
    assert caught.value.hint == "Free are: batch, sequence."
    with pytest.raises(UsageError, match="--batch 3 was asked for, and the file takes 2"):
        Sizes(batch=3).bind(FIXED)
    assert Sizes(batch=2).bind(FIXED) == {}


def test_nothing_is_masked_in_the_feed_that_is_timed_and_something_in_another() -> None:
    feeds = drawn(FREE, Sizes(batch=3, sequence=6), {})
    assert feeds.batch == 3
    assert feeds.timed["x"].shape == (3, 6, 4)
    assert feeds.timed["valid"].all()
    assert feeds.timed["ids"].min() > 0
    assert feeds.timed["ids"].max() < 7
    assert any(not one["valid"].all() and (one["ids"] == 0).any() for one in feeds.checks)
    assert not np.array_equal(feeds.checks[0]["x"], feeds.checks[2]["x"])


def test_the_same_feeds_every_time() -> None:
    for one, other in zip(drawn(FREE, Sizes(), {}).checks, drawn(FREE, Sizes(), {}).checks, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_integers_that_stand_for_other_numbers_are_drawn_as_those() -> None:
    signature = Signature((Tensor("x", "int8", (1, 1000)),), ())
    found = drawn(signature, Sizes(), {"x": Scale(0.05, 3, "int8")}).timed["x"]
    assert found.dtype == np.int8
    assert np.std((found.astype(float) - 3) * 0.05) == pytest.approx(1, abs=0.1)


def test_the_users_samples_are_taken_in_order() -> None:
    arrays = {"x": np.arange(20, dtype=np.float32).reshape(5, 4)}
    feeds = given(arrays, FIXED, Sizes(), {}, "x.npz")
    assert [one["x"][0, 0] for one in feeds.checks] == [0, 8]
    assert (feeds.batch, feeds.source) == (2, "x.npz")
    free = Signature((Tensor("x", "float32", ("batch", 4)),), ())
    assert [len(one["x"]) for one in given(arrays, free, Sizes(batch=4), {}, "x.npz").checks] == [4]
    assert given(arrays, free, Sizes(), {}, "x.npz").sizes == {"batch": 1}


def test_samples_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"x\.npz holds 1 samples, and a call takes 2"):
        given({"x": np.zeros((1, 4), np.float32)}, FIXED, Sizes(), {}, "x.npz")
    with pytest.raises(InputError, match="is float32, the array given is float64"):
        given({"x": np.zeros((2, 4))}, FIXED, Sizes(), {}, "x.npz")
    with pytest.raises(InputError, match="no array for input 'x'"):
        given({"z": np.zeros((2, 4), np.float32)}, FIXED, Sizes(), {}, "x.npz")


def test_sizes_asked_for_beside_feeds_of_others_are_refused() -> None:
    arrays = {
        "x": np.zeros((1, 6, 4), np.float32),
        "ids": np.ones((1, 6), np.int32),
        "valid": np.ones((1, 6), bool),
    }
    assert given(arrays, FREE, Sizes(sequence=6), {}, "x.npz").sizes == {"batch": 1, "sequence": 6}
    for sizes in (Sizes(sequence=7), Sizes(dims={"sequence": 7})):
        with pytest.raises(UsageError, match=r"'sequence' was asked to be 7, and is 6 in x\.npz"):
            given(arrays, FREE, sizes, {}, "x.npz")


def test_options_that_contradict_the_file_or_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="--sequence 9 was asked for, and the file takes 4"):
        Sizes(sequence=9).bind(FIXED)
    assert Sizes(sequence=4).bind(FIXED) == {}
    with pytest.raises(UsageError, match="--batch 5 and --dim batch=3 contradict each other"):
        Sizes(batch=5, dims={"batch": 3}).bind(FREE)
    arrays = {"x": np.zeros((8, 4), np.float32)}
    with pytest.raises(UsageError, match="--batch 8 was asked for, and the file takes 2"):
        given(arrays, FIXED, Sizes(batch=8), {}, "x.npz")
