"""The browser that all of these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from web.browsing import Chromium, chromium

LOOKS = (Path(__file__).parent / "looks.js").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def looks() -> str:
    """A script that asks a page what a reader would object to: {} where nothing sticks out, is cut, covered or pale."""
    return LOOKS
