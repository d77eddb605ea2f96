"""`Visit`: what is asked of the page, and what came of it: one row for each artifact and backend.

The page runs; the numbers are judged here, by the same code that judges every other device. It may time only what was
judged right.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from mh_edge.errors import InputError, MhEdgeError, UnavailableError
from mh_edge.jsontext import dumps
from mh_edge.openings import OPENINGS
from mh_edge.profiling.browser.frames import LENGTH, MOST_JSON, Checked, Expected, Timed, frame, wrong
from mh_edge.profiling.browser.server import Post, RefusedError
from mh_edge.profiling.cases import Case
from mh_edge.profiling.measuring import WARM_SECONDS, failure, require_equal, require_placed
from mh_edge.profiling.plan import BROWSER, Pair
from mh_edge.profiling.result import Agreement, Failure

LAYOUT = 1
"""Of PLAN."""

PLAN = "/profile.json"
"""What the page is asked: see `Visit.plan`."""

ALIVE_SECONDS = 60.0
"""A page that says nothing for so long is taken for closed: one in the background may speak once a minute."""

RETURN_SECONDS = 5.0
"""A page that goes may be one that is loaded anew."""

LONGEST_SECONDS = 3600.0
"""Of a visit, whatever the page says."""

SHORT = 1 << 13
"""Bytes of JSON in a message that holds no numbers."""

SPARE = 2
"""A page may send so many times what is expected, and is told then what is wrong with it."""

PRECISION = "float32"
"""In which runtimes of browsers compute a float32 file."""

MOST_BYTES = 1 << 28
"""Of the outputs of one row: they are held in memory."""


@dataclass(frozen=True)
class Wanted:
    """A row that the page is asked for. named: whether its backend was asked for by name. threads: None for as many as
    the browser takes. nodes: of the file.
    """

    case: Case
    backend: str
    named: bool
    threads: int | None
    nodes: int

    @property
    def device(self) -> str:
        return f"{BROWSER}:{self.backend}"

    @property
    def pair(self) -> Pair:
        return Pair(self.case.artifact, self.device, self.named)

    @property
    def expected(self) -> Expected:
        return Expected(len(self.case.files), len(self.case.expected[0]), self.nodes)

    @property
    def bytes(self) -> int:
        """Of its outputs, of all runs."""
        return sum(array.nbytes for arrays in self.case.expected for array in arrays.values())


@dataclass(frozen=True)
class Outcome:
    """What is known of a row."""

    checked: Checked
    agreement: Agreement | None = None
    failure: Failure | None = None
    timed: Timed | None = None

    @property
    def to_time(self) -> bool:
        return self.failure is None and not self.checked.absent and self.timed is None


class Visit:
    """found: row -> what is known of it. step: what the page says it does. Handlers of the server call `seen` and what
    is in `posts`; whoever waits calls `require_alive` until `done`.
    """

    def __init__(
        self, wanted: Sequence[Wanted], *, seconds: float, runs: int | None, rtol: float | None, fallback: bool
    ) -> None:
        """Raises InputError for outputs that are too large to be sent."""
        if large := next((one for one in wanted if one.bytes > MOST_BYTES), None):
            raise InputError(
                f"the outputs of {str(large.case.artifact)!r} take {large.bytes} bytes, and a browser may send "
                f"{MOST_BYTES}.",
                "Give a smaller --batch or --sequence.",
            )
        self.wanted = tuple(wanted)
        self.rtol, self.fallback = rtol, fallback
        self.found: dict[int, Outcome] = {}
        self.step = ""
        self.done = threading.Event()
        self._lock = threading.Lock()
        self._begun = self._last = self._gone = 0.0
        self.plan = dumps(
            {
                "mh_edge_profile": LAYOUT,
                "openings": OPENINGS,
                "seconds": seconds,
                "calls": runs,
                "warm_seconds": WARM_SECONDS,
                "rows": [
                    {
                        "row": number,
                        "artifact": one.case.artifact.name,
                        "backend": one.backend,
                        "threads": one.threads,
                        "sizes": dict(one.case.sizes),
                    }
                    for number, one in enumerate(self.wanted)
                ],
            }
        ).encode()
        arrays = MOST_JSON + LENGTH + SPARE * max((one.bytes for one in self.wanted), default=0)
        self.posts = {
            "/profile/checked": Post(self._checked, arrays),
            "/profile/timed": Post(self._timed, arrays),
            "/profile/alive": Post(self._alive, LENGTH + SHORT),
            "/profile/done": Post(self._done, LENGTH + SHORT),
            "/profile/gone": Post(self._leaves, LENGTH + SHORT),
        }

    def seen(self, path: str) -> None:
        """A request of the page. It begins anew where it was loaded anew."""
        with self._lock:
            self._last, self._gone = time.monotonic(), 0.0
            self._begun = self._begun or self._last
            if path == PLAN:
                self.found.clear()

    def require_alive(self) -> None:
        """Raise UnavailableError where a page that came has left."""
        now = time.monotonic()
        with self._lock:
            if not self._begun:
                return
            if self._gone and now > self._gone + RETURN_SECONDS:
                raise UnavailableError("the page was closed before it was done.", "Leave it open until it says so.")
            if now > self._last + ALIVE_SECONDS:
                raise UnavailableError(
                    f"the page has not been heard of for {ALIVE_SECONDS:.0f} s.",
                    "Keep it in the foreground, and the screen on.",
                )
            if now > self._begun + LONGEST_SECONDS:
                raise UnavailableError(
                    f"the page was not done after {LONGEST_SECONDS:.0f} s.", "Give it fewer files, or less to do."
                )

    def _checked(self, body: bytes) -> bytes:
        told = Checked.read(body, [one.expected for one in self.wanted])
        outcome = self._judged(self.wanted[told.row], told)
        with self._lock:
            if told.row in self.found:
                raise RefusedError(HTTPStatus.CONFLICT, f"The outputs of row {told.row} are here already.")
            self.found[told.row] = outcome
        why = "" if outcome.failure is None else outcome.failure.message
        agreement = outcome.agreement or Agreement(None, "")
        told_back = {"time": outcome.to_time, "equal": agreement.equal, "error": agreement.error}
        return dumps({**told_back, "allowed": agreement.allowed, "why": why or agreement.why}).encode()

    def _judged(self, wanted: Wanted, told: Checked) -> Outcome:
        artifact, device = wanted.case.artifact, wanted.device
        outcome = Outcome(told)
        try:
            if told.absent:
                return outcome
            if told.error:
                raise InputError(f"{str(artifact)!r} does not run on {device!r}: {told.error.rstrip('.')}.")
            outcome = replace(outcome, agreement=wanted.case.judge(told.outputs, PRECISION, self.rtol))
            if told.placement is not None and not self.fallback:
                require_placed(artifact, device, told.placement)
            require_equal(artifact, device, outcome.agreement)  # type: ignore[arg-type]
        except MhEdgeError as error:
            return replace(outcome, failure=failure(error))
        return outcome

    def _timed(self, body: bytes) -> bytes:
        told = Timed.read(body, [one.expected for one in self.wanted])
        with self._lock:
            outcome = self.found.get(told.row)
            if len(self.found) < len(self.wanted) or outcome is None or not outcome.to_time:
                raise RefusedError(HTTPStatus.CONFLICT, f"Row {told.row} is not to be timed now.")
            first = min(number for number, one in self.found.items() if one.timed or one.to_time)
            if told.row == first and not all(one.control for one in told.openings):
                raise wrong("the first row that is timed has no 'control_ms'")
        outcome = self._again(self.wanted[told.row], replace(outcome, timed=told))
        with self._lock:
            self.found[told.row] = outcome
        return b"{}"

    def _again(self, wanted: Wanted, outcome: Outcome) -> Outcome:
        """After its calls were timed, its numbers must still be right."""
        told, device = outcome.timed, wanted.device
        if told is None:
            return outcome
        try:
            if told.error:
                raise InputError(
                    f"{str(wanted.case.artifact)!r} did not go on running on {device!r}: {told.error.rstrip('.')}."
                )
            found = wanted.case.judge(told.outputs, PRECISION, self.rtol)
            if found.equal is False:
                outcome = replace(outcome, agreement=found)
            require_equal(wanted.case.artifact, device, found)
        except MhEdgeError as error:
            return replace(outcome, failure=failure(error))
        return outcome

    def _alive(self, body: bytes) -> bytes:
        self.step = frame(body)[0].text("step")
        return b"{}"

    def _done(self, body: bytes) -> bytes:
        frame(body)
        self.done.set()
        return b"{}"

    def _leaves(self, body: bytes) -> bytes:
        frame(body)
        with self._lock:
            self._gone = time.monotonic()
        return b"{}"
