"""`Apart`: a device's session in a process of its own, so that a runtime that crashes is an error here, and no more."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from mh_edge.errors import InputError, MhEdgeError, NotEqualError, UnavailableError, UsageError
from mh_edge.jsontext import dumps
from mh_edge.runtimes.placement import OpTime, Placement
from mh_edge.signature import Signature

if TYPE_CHECKING:
    from mh_edge.runtimes.base import Scale

KINDS = {error.kind: error for error in (InputError, NotEqualError, UnavailableError, UsageError)}

PATIENCE = 300.0
"""After so many seconds without an answer a process is taken to hang: compiling for a GPU takes minutes."""

SLOWER = 20.0
"""By how much timed calls may be slower than was expected of them, beyond that: the machine may be busy."""

TICK_SECONDS = 0.2
"""How often it is looked whether a process that does not answer has ended, while a child of it holds the pipe."""

CHUNK = 1 << 16

END_SECONDS = 5.0
"""How long a process that closed its pipe may take to end: the system writes down the memory of one that crashed."""

LAST_WORDS = 2000
"""How many bytes of what a process wrote at its end are read."""

ROOT = Path(__file__).parents[2]
"""Where this package lies: its own process is to find the same one."""


@dataclass(frozen=True)
class Opened:
    """What is known of an opened file: see Session."""

    signature: Signature
    input_scales: Mapping[str, Scale]
    output_scales: Mapping[str, Scale]
    precision: str
    notes: tuple[str, ...]
    load_ms: float


class CrashError(UnavailableError):
    """The process of a session ended by itself."""


_begun: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
"""Processes that wait for an Apart to take them, by device."""


def _started(device: str, early: bool) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """The process of a device, and the file of what it prints."""
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
    process = subprocess.Popen(  # noqa: S603 - our own program
        [
            *(sys.executable, "-P", "-m", "mh_edge.runtimes.worker", device, str(os.getpid())),
            *(["early"] if early else []),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        start_new_session=True,  # so that what it starts can be killed with it
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), *sys.path)))},
    )
    return process, said


@contextlib.contextmanager
def begun(device: str) -> Iterator[None]:
    """Within it, the process of a device has begun to import its runtime, and the first Apart of that device takes it
    over: for a caller that has much to import itself before.
    """
    _begun[device] = _started(device, early=True)
    try:
        yield
    finally:
        if left := _begun.pop(device, None):
            process, said = left
            process.kill()
            process.communicate()
            said.close()


class Apart:
    """A device's session in a process of its own; the methods are those of `mh_edge.runtimes.worker.Worker`.

    Raises what the session raises, and CrashError when the process ends.
    """

    def __init__(self, device: str, *, early: bool = True, patience: float | None = None) -> None:
        """early: import the runtime at once. patience: in place of PATIENCE."""
        self.device = device
        self._patience = PATIENCE if patience is None else patience
        self._seconds = 0.0  # of a call
        taken = _begun.pop(device, None) if early else None
        self._process, self._said = taken or _started(device, early)

    def describe(self) -> dict[str, Any]:
        """What `mh_edge.runtimes.description` knows of a device."""
        return self._ask("describe")

    def load(self) -> str:
        """Wait until the runtime is imported, which begins with the process -> its name and version."""
        found = self._ask("load")
        return f"{found['runtime']} {found['version']}"

    def open(
        self,
        path: Path,
        *,
        threads: int | None = None,
        sizes: Mapping[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Opened:
        """Open the file."""
        from mh_edge.runtimes.base import Scale

        found = self._ask(
            "open", path=str(path), threads=threads, sizes=dict(sizes or {}), settings=dict(settings or {})
        )
        return Opened(
            Signature.from_json(found["signature"]),
            {name: Scale(**scale) for name, scale in found["input_scales"].items()},
            {name: Scale(**scale) for name, scale in found["output_scales"].items()},
            found["precision"],
            tuple(found["notes"]),
            found["load_ms"],
        )

    def run(self, feeds: Path, outputs: Path) -> None:
        """Run the arrays of an .npz -> an .npz of outputs by name."""
        self._ask("run", feeds=str(feeds), outputs=str(outputs))

    def prepare(self, feeds: Path) -> float:
        """Keep the arrays of an .npz for the calls to come -> milliseconds of the first call."""
        first = float(self._ask("prepare", feeds=str(feeds))["first_ms"])
        self._seconds = 1e-3 * first
        return first

    def warm(self, seconds: float) -> tuple[float, bool | None]:
        """Call until the times are steady, for so long at most -> milliseconds of a call, whether they were (None where
        one call took longer).
        """
        found = self._ask("warm", expected=seconds + self._seconds, seconds=seconds)
        self._seconds = 1e-3 * float(found["ms"])
        return float(found["ms"]), found["steady"]

    def calls(self, count: int) -> list[float]:
        """Milliseconds of each of so many calls."""
        return [float(ms) for ms in self._ask("calls", expected=count * self._seconds, count=count)["ms"]]

    def again(self, outputs: Path) -> None:
        """One more of the calls that were timed -> an .npz of its outputs by name."""
        self._ask("again", outputs=str(outputs))

    def placement(self) -> Placement:
        """Where the nodes run."""
        return Placement.from_json(self._ask("placement"))

    def op_times(self, calls: int) -> tuple[OpTime, ...]:
        """How long each operation takes, in so many calls on the feeds that were prepared."""
        found = self._ask("op_times", expected=calls * self._seconds, calls=calls)["ops"]
        return tuple(map(OpTime.from_json, found))

    def memory(self) -> int | None:
        """By how many bytes the process grew at most since the runtime was imported."""
        found: int | None = self._ask("memory")["bytes"]
        return found

    def _ask(self, do: str, *, expected: float = 0.0, **what: Any) -> dict[str, Any]:
        """expected: seconds that the answer takes."""
        stdin, _ = self._pipes
        try:
            stdin.write(f"{dumps({'do': do} | what)}\n".encode(errors="surrogatepass"))
            stdin.flush()
        except BrokenPipeError:
            raise self._crashed() from None
        answer: dict[str, Any] = json.loads(
            self._line(self._patience + SLOWER * expected).decode(errors="surrogatepass")
        )
        if "error" not in answer:
            done: dict[str, Any] = answer["done"]
            return done
        error = answer["error"]
        if error["kind"] == "fault":
            raise UnavailableError(f"the device {self.device!r} failed: {error['message']}")
        raise KINDS.get(error["kind"], MhEdgeError)(error["message"], error["hint"])

    def _line(self, patience: float) -> bytes:
        """An answer. Raises CrashError when the process ends without one, or gives none for so many seconds."""
        _, stdout = self._pipes
        until = time.monotonic() + patience
        found = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not found.endswith(b"\n"):
                ended = self._process.poll() is not None
                if selector.select(0 if ended else TICK_SECONDS):
                    chunk = os.read(stdout.fileno(), CHUNK)
                    if not chunk:
                        raise self._crashed()
                    found += chunk
                elif ended:
                    raise self._crashed()
                elif time.monotonic() > until:
                    self.kill()
                    raise CrashError(
                        f"the process of the device {self.device!r} has not answered within {patience:.0f} s."
                    )
        return bytes(found)

    def _crashed(self) -> CrashError:
        from mh_edge.runtimes.base import first_line

        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        how = f"by {_signal(-code)}" if code < 0 else f"with exit code {code}"
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - LAST_WORDS))
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        words = f": {first_line(lines[-1])}" if lines else ", without a word"
        return CrashError(f"the process of the device {self.device!r} was ended {how}{words}")

    @property
    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the process has no pipes")
        return stdin, stdout

    def kill(self) -> None:
        """End the process and what it started; whoever waits for its answer, in another thread, gets a CrashError."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # all of them have ended
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process. It has nothing to clear up: it would leave by os._exit."""
        stdin, stdout = self._pipes
        self.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        stdout.close()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _signal(number: int) -> str:
    known = {int(one): one.name for one in signal.Signals}
    return known.get(number, f"signal {number}")
