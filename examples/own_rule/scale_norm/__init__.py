"""A layer of one's own, and (in `scale_norm.rules`) how it becomes one operation of each target."""

from __future__ import annotations

from scale_norm.layer import ScaleNorm as ScaleNorm
