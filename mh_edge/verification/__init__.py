"""Proof that an artifact computes what its model computes: feeds, yardstick, comparison, verdict.

`verify` is the whole of it; `Verification` is what it found.
"""

from __future__ import annotations

from mh_edge.verification.report import Candidate, ClassRow, Tolerance, Verification, Worst
from mh_edge.verification.verifying import verify

__all__ = ["Candidate", "ClassRow", "Tolerance", "Verification", "Worst", "verify"]
