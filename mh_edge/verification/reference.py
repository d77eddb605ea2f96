"""What candidates are compared with, and the plainest such thing: another artifact. (Nothing here needs TensorFlow.)"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mh_edge.errors import InputError
from mh_edge.runtimes.base import Session
from mh_edge.signature import Signature

Arrays = Mapping[str, np.ndarray]

FLOAT64 = "float64 clone"
ORDERS = "float32 orders"
EXPLICIT = "explicit tolerances"
GATES = "gates"


class Refused(Exception):  # noqa: N818 - not a fault: the feed is skipped
    """The reference itself does not take this feed; the text is its reason."""


@dataclass(frozen=True)
class Expected:
    """What the reference gives for one feed: in its own precision, and in float64 where that is to be believed."""

    plain: Arrays
    truth: Arrays | None


class Reference(Protocol):
    """expected(feeds) raises Refused for a feed that the reference does not take."""

    signature: Signature
    yardstick: str

    def prepare(self, feeds: Arrays) -> None:
        """Choose the yardstick, with an ordinary feed to try it on."""

    def expected(self, feeds: Arrays) -> Expected:
        """The outputs that candidates should give."""

    def eager(self, feeds: Arrays) -> Expected:
        """The same, one operation at a time: a graph may simplify x - mean(x) of one number to an exact 0."""

    def plain(self, feeds: Arrays) -> Arrays:
        """The outputs in the reference's own precision alone."""

    def orders(self, feeds: Arrays) -> Iterator[Arrays]:
        """The same outputs, computed in other orders."""

    def over_calls(self) -> Reference | None:
        """The reference over several calls in a row; None where nothing is handed on from call to call."""


class ArtifactReference:
    """Another artifact, on its own runtime."""

    yardstick = EXPLICIT

    def __init__(self, session: Session, signature: Signature) -> None:
        self.signature = signature
        self._session = session

    def prepare(self, feeds: Arrays) -> None:
        """Nothing to choose: the tolerances are explicit."""

    def expected(self, feeds: Arrays) -> Expected:
        return Expected(self.plain(feeds), None)

    def eager(self, feeds: Arrays) -> Expected:
        return self.expected(feeds)

    def plain(self, feeds: Arrays) -> Arrays:
        try:
            return self._session.run(feeds)
        except InputError as error:
            raise Refused(error.message) from error

    def orders(self, feeds: Arrays) -> Iterator[Arrays]:
        return iter(())

    def over_calls(self) -> None:
        """Nothing beyond single calls: what an artifact hands on, those show."""
