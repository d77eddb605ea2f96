"""Serve the page, wait for a browser, and make rows of what it sends."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mh_edge.bundling.web import Web
from mh_edge.errors import MhEdgeError, UnavailableError, UsageError
from mh_edge.profiling.browser import chromium
from mh_edge.profiling.browser.address import LOOPBACK, address
from mh_edge.profiling.browser.page import Page, made
from mh_edge.profiling.browser.rows import visited
from mh_edge.profiling.browser.server import Server
from mh_edge.profiling.browser.visit import PLAN, Visit, Wanted
from mh_edge.profiling.cases import Case
from mh_edge.profiling.measuring import failure
from mh_edge.profiling.plan import BACKENDS, Pair
from mh_edge.profiling.result import Row
from mh_edge.profiling.rows import row
from mh_edge.progress import Progress

WAIT_SECONDS = 300.0
"""For a browser to open the page: a phone has to be found first."""

HOME = "./?profile"
"""What the token leads to: the page that does what PLAN says."""

TICK_SECONDS = 0.1

THREADED = "wasm-threads"
"""The backend that takes more than one thread: --threads of them where that is above 1."""

MOST_PORT = 65535


def _told(url: str, far: bool) -> None:
    del far
    print(f"Open this address in a browser; it works once: {url}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Offer:
    """How the page is offered. host, port: where it is served, see `address`; port 0 for a free one. program: a browser
    to open without a window, see `chromium.program`; None to wait for one. wait: seconds for it. settings: of the
    platform `web`. on_address(url, far): is told the URL, and whether
    others on the network can open it.
    """

    host: str = LOOPBACK
    port: int = 0
    program: str | None = None
    wait: float = WAIT_SECONDS
    settings: Mapping[str, str] = field(default_factory=dict)
    on_address: Callable[[str, bool], None] = _told

    def require_sense(self) -> None:
        """Raise UsageError for what makes no sense, UnavailableError for what is not here."""
        if not 0 <= self.port <= MOST_PORT:
            raise UsageError(f"--port is {self.port}.", f"A port is a number up to {MOST_PORT}; 0 takes a free one.")
        if not 0 < self.wait < math.inf:
            raise UsageError(f"--wait is {self.wait}.", "Give a number of seconds above 0.")
        if self.program is not None:
            chromium.program(self.program)
        address(self.host)
        Web(self.settings)


def profile_in_browser(
    asked: Mapping[Pair, Case],
    offer: Offer,
    folder: Path,
    *,
    threads: int | None,
    runs: int | None,
    seconds: float,
    rtol: float | None,
    fallback: bool,
    on_step: Progress,
) -> tuple[dict[Pair, tuple[Row, ...]], float | None]:
    """The rows of each pair, one for each backend, and the noise of those that were timed: see
    `mh_edge.profiling.profile`. folder: for the page.

    Raises UsageError where the page cannot be served as offered. What goes wrong in the browser is in the rows.
    """
    cases = {pair.artifact: case for pair, case in asked.items()}
    page = made(list(cases.values()), offer.settings, folder)
    rows: dict[Pair, list[Row]] = {pair: [] for pair in asked}
    wanted: dict[tuple[Path, str], tuple[Pair, Wanted]] = {}
    # A backend that is asked for by name is that, whether all are asked for as well or not.
    for pair in sorted(asked, key=lambda one: one.backend == ""):
        path, case = pair.artifact, asked[pair]
        known = page.backends.get(path, ())
        if (why := page.refused.get(path)) is None and pair.backend and pair.backend not in known:
            why = UnavailableError(f"the page runs .{pair.kind} files on {', '.join(known)}, not on {pair.backend}.")
        if why is not None:
            rows[pair].append(replace(row(pair, case, None, ops=False), failure=failure(why)))
            continue
        for backend in known if not pair.backend else (pair.backend,):
            own = (None if threads == 1 else threads) if backend == THREADED else 1
            one = Wanted(case, backend, bool(pair.backend), own, page.nodes[path])
            wanted.setdefault((path, backend), (pair, one))
    # The page runs them in the order of its backends, so that plain WebAssembly is what the others are compared with.
    paths = list(cases)
    order = sorted(wanted.values(), key=lambda one: (paths.index(one[0].artifact), BACKENDS.index(one[1].backend)))
    noise = None
    if order:
        found, noise = _visited([one for _, one in order], page, offer, runs, seconds, rtol, fallback, on_step)
        for (pair, _), result in zip(order, found, strict=True):
            rows[pair].append(result)
    return {pair: tuple(those) for pair, those in rows.items()}, noise


def _visited(
    wanted: Sequence[Wanted],
    page: Page,
    offer: Offer,
    runs: int | None,
    seconds: float,
    rtol: float | None,
    fallback: bool,
    on_step: Progress,
) -> tuple[tuple[Row, ...], float | None]:
    place = address(offer.host)
    visit = Visit(wanted, seconds=seconds, runs=runs, rtol=rtol, fallback=fallback)
    files: dict[str, bytes | Path] = {**page.files, PLAN: visit.plan}
    lost: MhEdgeError | None = None
    with Server(place, offer.port, files, visit.posts, HOME, visit.seen) as server:
        try:
            _attend(visit, server, offer, on_step)
        except UnavailableError as error:
            lost = error
    if lost is None and (len(visit.found) < len(wanted) or any(one.to_time for one in visit.found.values())):
        lost = UnavailableError("the page said that it was done, and has not timed all.", "Run it again.")
    return visited(visit, server.browser or "", place.loopback, lost)


def _attend(visit: Visit, server: Server, offer: Offer, on_step: Progress) -> None:
    """Until the page is done. Raises UnavailableError where it does not come, or goes before."""
    browser = contextlib.nullcontext() if offer.program is None else chromium.opened(offer.program, server.url)
    if offer.program is None:
        offer.on_address(server.url, not address(offer.host).loopback)
    told = ""
    with browser as running:
        until = time.monotonic() + offer.wait
        while not visit.done.wait(TICK_SECONDS):
            if server.fault is not None:
                raise server.fault
            if running is not None:
                running.require_running()
            if server.browser is None and time.monotonic() > until:
                raise UnavailableError(
                    f"no browser opened the page within {offer.wait:g} s.", "--wait gives it more seconds."
                )
            visit.require_alive()
            step = "waiting for a browser" if server.browser is None else visit.step or "the page is loading"
            if step != told:
                on_step(step)
                told = step
