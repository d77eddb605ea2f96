"""Rows from what the openings gave."""

from __future__ import annotations

import pytest

from mh_edge.profiling import rows
from mh_edge.profiling.measuring import Times
from mh_edge.runtimes.placement import Fallback, OpTime, Placement

PARTLY = Placement(2, 1, 1, (Fallback("Cast", 1, (), "here"),), "")


@pytest.mark.parametrize(
    ("slower", "share", "notes"),
    [
        (1, 0.75, ()),
        (3, None, ("its operations add up to 3 times a whole call, so their shares of the time tell little",)),
    ],
)
def test_a_profiler_that_slows_operations_down_tells_no_share(
    slower: int, share: float | None, notes: tuple[str, ...]
) -> None:
    ops = OpTime("", "Tanh", "there", True, 0.75 * slower), OpTime("", "Cast", "here", False, 0.25 * slower)
    times = Times(ms=[[1.0, 1.0, 9.0]] * 5, placement=PARTLY, ops=ops)
    assert rows._time_share(times) == share
    assert rows._overtimed(times) == notes


@pytest.mark.parametrize(("ms", "share"), [(1.0, 0.5), (0.01, None)])
def test_a_share_that_the_clock_is_too_coarse_for_is_not_told(ms: float, share: float | None) -> None:
    seen = OpTime("", "Tanh", "there", True, ms), OpTime("", "Cast", "here", False, ms)
    times = Times(ms=[[9.0]], placement=PARTLY, ops=(*seen, *[OpTime("", "Add", "there", True, 0.0)] * 50))
    assert rows._time_share(times) == share
