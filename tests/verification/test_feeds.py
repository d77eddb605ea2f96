"""The grid: what it covers, that it is the same each time, that it respects the domains; and the user's own feeds."""

from __future__ import annotations

import numpy as np
import pytest

from mh_edge.errors import InputError
from mh_edge.signature import Domain, Signature, Tensor
from mh_edge.verification.feeds import LEAST_FEEDS, MASKS, Spec, build, grid, nudged, pattern, user_feeds

OUTPUT = Tensor("y", "float32", ("batch", 3))
MASKED = Signature((Tensor("x", "float32", ("batch", "sequence", 4), Domain(mask_value=0.0)),), (OUTPUT,))
IDS = Signature((Tensor("ids", "int32", ("batch", "sequence"), Domain(ids_below=5, mask_value=0.0)),), (OUTPUT,))
FIXED = Signature((Tensor("x", "float32", (1, 9, 4)),), (Tensor("y", "float32", (1, 3)),))
PAIR = Signature(
    (
        Tensor("query", "float32", ("batch", "query_sequence", 4)),
        Tensor("key", "float32", ("batch", "key_sequence", 4)),
        Tensor("attention_mask", "bool", ("batch", "query_sequence", "key_sequence")),
    ),
    (Tensor("y", "float32", ("batch", "query_sequence", 4)),),
)
ALL = [MASKED, IDS, FIXED, PAIR]


@pytest.mark.parametrize("signature", ALL)
def test_the_grid_is_large_enough_and_the_same_each_time(signature: Signature) -> None:
    specs = grid(signature, 3)
    assert len(specs) >= LEAST_FEEDS
    assert len({spec.seed for spec in specs}) == len({spec.name for spec in specs}) == len(specs)
    for spec in specs:
        one, two = build(signature, spec), build(signature, spec)
        for tensor in signature.inputs:
            np.testing.assert_array_equal(one.arrays[tensor.name], two.arrays[tensor.name])
            assert str(one.arrays[tensor.name].dtype) == tensor.dtype
    assert (
        not np.array_equal(
            build(signature, specs[0]).arrays[signature.inputs[0].name],
            build(signature, grid(signature, 4)[0]).arrays[signature.inputs[0].name],
        )
        or signature is IDS
    )


@pytest.mark.parametrize("signature", [MASKED, IDS, PAIR])
def test_every_kind_of_mask_meets_every_batch_and_every_length(signature: Signature) -> None:
    length = next(name for name in signature.free_dims() if name != "batch")
    for mask in MASKS:
        sizes = [dict(spec.sizes) for spec in grid(signature, 0) if spec.values == "normal" and spec.mask == mask]
        assert {size["batch"] for size in sizes} == {1, 2, 5}
        assert {size[length] for size in sizes} == {1, 7, 33}


def test_without_masks_every_batch_meets_every_length() -> None:
    plain = Signature((Tensor("x", "float32", ("batch", "sequence", 4)),), (OUTPUT,))
    normal = [spec for spec in grid(plain, 0) if spec.values == "normal"]
    assert len({spec.sizes for spec in normal}) == 9
    assert {spec.values for spec in grid(plain, 0)} == {"normal", "large", "zero"}


def test_lengths_of_several_inputs_are_equal_and_different() -> None:
    sizes = [dict(spec.sizes) for spec in grid(PAIR, 0)]
    equal = [size["query_sequence"] == size["key_sequence"] for size in sizes]
    assert any(equal)
    assert not all(equal)


def test_masked_steps_hold_the_mask_value_and_no_other_step_does() -> None:
    for spec in grid(MASKED, 0):
        array = build(MASKED, spec).arrays["x"]
        masked = (array == 0).all(axis=-1)
        if spec.values != "zero":
            assert masked.any() == (array == 0).any()
        if spec.mask == "none" and spec.values != "zero":
            assert not masked.any()
        if spec.mask == "row":
            assert masked[0].all()
            assert spec.values == "zero" or not masked[1:].all(axis=1).any()


def test_ids_stay_below_the_vocabulary_and_zero_only_masks() -> None:
    seen = set()
    for spec in grid(IDS, 0):
        array = build(IDS, spec).arrays["ids"]
        assert array.min() >= 0
        assert array.max() < 5
        if spec.mask == "none":
            assert array.min() >= 1
        seen.update(array.ravel().tolist())
    assert seen == {0, 1, 2, 3, 4}


def test_patterns() -> None:
    rng = np.random.default_rng(0)
    right, left = pattern("right", (3, 6), rng), pattern("left", (3, 6), rng)
    assert (np.diff(right.astype(int), axis=1) <= 0).all()
    assert (np.diff(left.astype(int), axis=1) >= 0).all()
    assert not right.all()
    assert not left.all()
    holes = pattern("holes", (4, 40), rng)
    assert holes.any(axis=1).all()
    assert (np.abs(np.diff(holes.astype(int), axis=1)).sum(axis=1) > 1).all()
    row = pattern("row", (2, 3, 6), rng)
    assert not row[0].any()
    assert row[1].any(axis=1).all()


def test_nudged_moves_floats_by_one_unit_and_leaves_masks_and_ids() -> None:
    feed = build(MASKED, Spec("normal", "right", (("batch", 2), ("sequence", 7)), (0, 0))).arrays
    moved = nudged(MASKED, feed, 0)["x"]
    kept = feed["x"] == 0
    np.testing.assert_array_equal(moved[kept], 0)
    assert (
        np.abs(moved - feed["x"])[~kept] == np.spacing(np.abs(np.minimum(np.abs(moved), np.abs(feed["x"]))))[~kept]
    ).all()
    ids = build(IDS, grid(IDS, 0)[0]).arrays
    np.testing.assert_array_equal(nudged(IDS, ids, 0)["ids"], ids["ids"])


def test_user_feeds_come_in_pieces() -> None:
    free = {"x": np.ones((70, 3, 4), "float32")}
    assert [feed.arrays["x"].shape[0] for feed in user_feeds(MASKED, free)] == [32, 32, 6]
    three = Signature((Tensor("x", "float32", (3, 2)),), (Tensor("y", "float32", (3, 2)),))
    rows = np.arange(8, dtype="float32").reshape(4, 2)
    pieces = [feed.arrays["x"] for feed in user_feeds(three, {"x": rows})]
    assert [piece.shape for piece in pieces] == [(3, 2), (3, 2)]
    np.testing.assert_array_equal(pieces[1][0], rows[3])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.ones((2, 3, 4), "float32")}, "no array for input 'x'"),
        ({"x": np.ones((2, 3, 4), "float32"), "z": np.ones(1)}, "no input 'z'"),
        ({"x": np.ones((2, 3, 5), "float32")}, r"axis 2 must be 4, not 5"),
        ({"x": np.ones((2, 4), "float32")}, r"has the shape \(batch, sequence, 4\), the array given has \(2, 4\)"),
        ({"x": np.ones((2, 3, 4))}, "is float32, the array given is float64"),
        ({"x": np.ones((0, 3, 4), "float32")}, "is empty"),
        ({"x": np.array([None, "a"])}, "holds Python objects"),
        (
            {"x": np.where(np.arange(24).reshape(2, 3, 4) == 17, np.nan, 1).astype("float32")},
            r"holds NaN at \(1, 1, 1\)",
        ),
    ],
)
def test_user_feeds_that_do_not_fit_are_refused(arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(user_feeds(MASKED, arrays))
