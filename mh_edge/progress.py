"""How a long step tells how far it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """Called with the name of each step as it begins, and, where the step counts something, with how much is done."""

    def __call__(self, step: str, done: int | None = None, total: int | None = None) -> None: ...


def silent(step: str, done: int | None = None, total: int | None = None) -> None:
    """Progress for whoever does not look."""


def counted(items: Iterable[Item], tell: Progress, step: str, total: int | None) -> Iterator[Item]:
    """The items, each told when it is done with. total: how many there are, None when nobody knows."""
    tell(step)
    for number, item in enumerate(items, 1):
        yield item
        tell(step, number, total)
