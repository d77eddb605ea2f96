"""The example with Ray beside a single process: its model and digits come from the environment that has TensorFlow."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from program_on_path import ROOT

SCRIPTS = ROOT / "examples" / "08_scale_out_with_ray"
sys.path.insert(0, str(SCRIPTS))
os.environ["PYTHONPATH"] = str(SCRIPTS)  # where the workers of Ray find them
os.environ.pop("RAY_ADDRESS", None)  # no cluster but our own

from classifier import Classifier  # noqa: E402

TOLERANCE = 1e-6
"""Of a probability, at most 1: sums in another order, as the rest of a batch and its padding are others. That is some
units in the last place of float32 (1.2e-7 at 1); 1.4e-7 was seen, between batches of one row and of all.
"""


@pytest.fixture(scope="session")
def exported() -> Path:
    """The folder that export.py has written."""
    return Path(os.environ["MH_EDGE_RAY_EXAMPLE"])


@pytest.fixture(scope="session")
def sequences(exported: Path) -> list[np.ndarray]:
    with np.load(exported / "digits.npz", allow_pickle=False) as held:
        return [rows[valid] for rows, valid in zip(held["rows"], held["valid"], strict=True)]


@pytest.fixture(scope="session")
def alone(exported: Path, sequences: list[np.ndarray]) -> np.ndarray:
    """The probabilities of each sequence, in this process, all in one batch."""
    lengths = np.array([len(rows) for rows in sequences])
    assert len(set(lengths)) > 3
    return Classifier(exported / "digits.onnx")(lengths, np.concatenate(sequences))


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Each process below one, with its title."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            above = int(path.name)
            while above not in (0, pid):
                above = int((Path("/proc") / str(above) / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if above == pid and path.name != str(pid):
            yield int(path.name), title
