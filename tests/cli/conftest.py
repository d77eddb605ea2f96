"""Running the command line inside the test process, where TensorFlow is imported once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from mh_edge.cli import main


@dataclass(frozen=True)
class Run:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; fails when there is anything else."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """run("inspect", path) -> Run; what descriptors 1 and 2 receive is captured, as a shell would see it."""

    def command(*args: object) -> Run:
        capfd.readouterr()
        code = main([str(item) for item in args])
        captured = capfd.readouterr()
        return Run(code, captured.out, captured.err)

    return command
