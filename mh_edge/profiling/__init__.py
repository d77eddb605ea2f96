"""Measuring artifacts on devices: `profile` -> `Profile`."""

from mh_edge.profiling.profiling import profile
from mh_edge.profiling.result import Profile

__all__ = ["Profile", "profile"]
