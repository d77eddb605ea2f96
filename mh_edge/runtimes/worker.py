"""A device's session in a process of its own, as a program: `python -m mh_edge.runtimes.worker DEVICE PARENT [early]`.
Requests come on standard input, answers go to standard output, each one line of JSON. `mh_edge.runtimes.apart` is the
other end. PARENT: the process with which this one ends. early: import the runtime before that is asked for.

A runtime that crashes takes this process with it and no other; its memory, its threads and the settings that it takes
from the first session of a process are its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from mh_edge.arrayfiles import read_npz, write_npz
from mh_edge.errors import MhEdgeError
from mh_edge.jsontext import dumps
from mh_edge.runtimes import adapter
from mh_edge.runtimes.base import Session, first_line, printable
from mh_edge.runtimes.memory import peak, resident

STEADY = 0.05
"""Warm is when the median of a batch of calls is no more than this share off that of the batch before."""

BATCH_SECONDS = 0.02
"""How long such a batch takes at least, so that its median is that of several calls."""

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when its parent ends."""

LOOK_SECONDS = 0.5
"""How often a process looks for its parent where the system does not tell."""


class Worker:
    """The requests by name: each method takes plain data and gives plain data."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._session: Session | None = None
        self._before: int | None = None
        self._call: Callable[[], object] = lambda: None
        self._feeds: dict[str, Any] = {}

    def describe(self) -> dict[str, Any]:
        """What is known of the device before its runtime is imported."""
        from mh_edge.runtimes.description import Description

        return Description.of(adapter(self._device)).to_json()

    def load(self) -> dict[str, Any]:
        """Import the runtime -> its name and version."""
        found = adapter(self._device)
        return {"runtime": found.runtime, "version": found.load()}

    def open(self, path: str, threads: int | None, sizes: dict[str, int], settings: dict[str, str]) -> dict[str, Any]:
        """Open the file -> signature, scales, how long it took."""
        found = adapter(self._device)
        found.load()
        gc.collect()
        self._before = resident()
        session = self._session = found(path, threads=threads, sizes=sizes, settings=settings)
        return {
            "signature": session.signature.to_json(),
            "input_scales": {name: scale.to_json() for name, scale in session.input_scales.items()},
            "output_scales": {name: scale.to_json() for name, scale in session.output_scales.items()},
            "precision": session.precision,
            "notes": session.notes,
            "load_ms": 1e3 * session.load_seconds,
        }

    def run(self, feeds: str, outputs: str) -> dict[str, Any]:
        """Run an .npz of feeds -> an .npz of outputs."""
        found = self._opened.run(read_npz(Path(feeds)))
        write_npz(Path(outputs), found)
        return {}

    def prepare(self, feeds: str) -> dict[str, Any]:
        """Keep an .npz of feeds for the calls to come, and make the first -> how long that took."""
        self._feeds = dict(read_npz(Path(feeds)))
        self._call = self._opened.prepared(self._feeds)
        return {"first_ms": 1e3 * _timed(self._call)}

    def warm(self, seconds: float) -> dict[str, Any]:
        """Call until the times are steady, for so long at most -> milliseconds of a call, and whether they were."""
        end = time.perf_counter() + seconds
        cost = _timed(self._call)
        before = None
        if cost > seconds:
            return {"ms": 1e3 * cost, "steady": None}
        while True:
            calls = max(1, min(1000, int(BATCH_SECONDS / max(cost, 1e-6))))
            cost = median(_timed(self._call) for _ in range(calls))
            steady = before is not None and abs(cost / before - 1) < STEADY
            if steady or time.perf_counter() > end:
                return {"ms": 1e3 * cost, "steady": steady}
            before = cost

    def calls(self, count: int) -> dict[str, Any]:
        """Milliseconds of each of so many calls, after one that finds its data in the caches again."""
        self._call()
        gc.disable()
        try:
            return {"ms": [round(1e3 * _timed(self._call), 6) for _ in range(count)]}
        finally:
            gc.enable()

    def again(self, outputs: str) -> dict[str, Any]:
        """One more of the calls that were timed -> an .npz of its outputs."""
        write_npz(Path(outputs), self._opened.fetched(self._call()))
        return {}

    def placement(self) -> dict[str, Any]:
        """Where the nodes ran."""
        return self._opened.placement().to_json()

    def op_times(self, calls: int) -> dict[str, Any]:
        """How long each operation takes on the feeds that were prepared."""
        return {"ops": [one.to_json() for one in self._opened.op_times(self._feeds, calls)]}

    def memory(self) -> dict[str, Any]:
        """By how many bytes this process grew at most since the runtime was imported; null where nothing tells."""
        most = peak()
        return {"bytes": None if most is None or self._before is None else max(0, most - self._before)}

    @property
    def _opened(self) -> Session:
        if self._session is None:
            raise RuntimeError("nothing was opened yet")
        return self._session


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def serve(device: str, *, early: bool) -> None:
    """Answer requests until standard input ends. Whatever a runtime reads and prints is not among them."""
    requests = os.fdopen(os.dup(0), encoding="utf-8", errors="surrogatepass")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass")
    with open(os.devnull, encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    worker = Worker(device)
    if early:
        with contextlib.suppress(Exception):
            worker.load()  # if it fails it will say so when it is asked
    for line in requests:
        request = json.loads(line)
        try:
            answer = {"done": vars(Worker)[request.pop("do")](worker, **request)}
        except MhEdgeError as error:
            answer = {"error": {"kind": error.kind, "message": printable(error.message), "hint": printable(error.hint)}}
        except Exception as error:  # noqa: BLE001 - a runtime may raise anything; the other end says where
            answer = {"error": {"kind": "fault", "message": f"{type(error).__name__}: {first_line(error)}", "hint": ""}}
        print(dumps(answer), file=answers, flush=True)
    os._exit(0)  # without the runtimes' own clearing up, in which some abort


def end_with(parent: int) -> None:
    """End this process as its parent ends, however that does: it may be killed, and a runtime here may hang."""
    told = sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL)) == 0
    if not told:
        threading.Thread(target=_look, args=(parent,), daemon=True).start()
    elif os.getppid() != parent:  # it has ended already
        os._exit(1)


def _look(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    end_with(int(sys.argv[2]))
    serve(sys.argv[1], early="early" in sys.argv[3:])
