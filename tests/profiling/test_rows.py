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
