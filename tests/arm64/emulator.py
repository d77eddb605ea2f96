"""An emulated machine with 64-bit ARM."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

LIMIT = 300  # seconds; a self-test takes about ten, most of them for importing numpy


@dataclass(frozen=True)
class Device:
    """An emulated machine. root: made by tree.sh."""

    root: Path

    def run(self, cpu: str, runtime: str, *command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
        """Python there, with one runtime and numpy and nothing else."""
        emulator = [self.root / "qemu-aarch64", "-cpu", cpu, "-L", self.root / "debian"]
        return subprocess.run(
            [*emulator, self.root / "debian/usr/bin/python3.11", *command],
            cwd=folder,
            env={"PATH": "/usr/bin", "PYTHONPATH": str(self.root / runtime)},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
