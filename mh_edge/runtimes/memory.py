"""Memory of this process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")


def resident() -> int | None:
    """Bytes in memory now; None where the system does not tell."""
    return _status("VmRSS")


def peak() -> int | None:
    """The most bytes that were in memory at once so far; None where the system does not tell."""
    return _status("VmHWM")


def _status(field: str) -> int | None:
    if not STATUS.exists():
        return None
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None
