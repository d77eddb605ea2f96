"""The program as a user runs it, and a device beside the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mh_edge.runtimes import adapter
from mh_edge.runtimes.base import Session

MAIN = "import sys; from mh_edge.cli import main; sys.exit(main())"


def program(*arguments: str | Path, **environment: str) -> tuple[int, dict[str, Any]]:
    """Run mh-edge with --json -> its exit code, and what it wrote on standard output, which must be JSON alone."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def device(name: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `mh-edge devices NAME`."""
    code, answer = program("devices", name, **environment)
    (found,) = answer["devices"]
    return code, found


def fitting(session: Session, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of the feeds that the file takes."""
    return {tensor.name: feeds[tensor.name] for tensor in session.signature.inputs}


def error(session: Session, batch: int = 1, rows: Mapping[str, np.ndarray] | None = None) -> float:
    """Largest difference from the CPU on these rows, else padded ones, as a share of the largest number."""
    import graphs  # of the onnx package, which not every environment has

    with adapter("cpu")(session.path) as cpu:
        feeds = fitting(session, rows or graphs.feeds(batch))
        expected, got = cpu.run(feeds)["y"], session.run(feeds)["y"]
    return float(np.abs(got - expected).max() / np.abs(expected).max())
