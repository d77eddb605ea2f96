"""`Apart`: a device's session in a process of its own, so that a runtime that crashes is an error here, and no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
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

QUIT_SECONDS = 5.0
"""How long a process may take to end."""

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


class Apart:
    """A device's session in a process of its own; the methods are those of `mh_edge.runtimes.worker.Worker`.

    Raises what the session raises, and CrashError when the process ends.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-m", "mh_edge.runtimes.worker", device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), *sys.path)))},
        )

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
        return float(self._ask("prepare", feeds=str(feeds))["first_ms"])

    def warm(self, seconds: float) -> tuple[float, bool | None]:
        """Call until the times are steady, for so long at most -> milliseconds of a call, whether they were (None where
        one call took longer).
        """
        found = self._ask("warm", seconds=seconds)
        return float(found["ms"]), found["steady"]

    def calls(self, count: int) -> list[float]:
        """Milliseconds of each of so many calls."""
        return [float(ms) for ms in self._ask("calls", count=count)["ms"]]

    def again(self, outputs: Path) -> None:
        """One more of the calls that were timed -> an .npz of its outputs by name."""
        self._ask("again", outputs=str(outputs))

    def placement(self) -> Placement:
        """Where the nodes run."""
        return Placement.from_json(self._ask("placement"))

    def op_times(self, calls: int) -> tuple[OpTime, ...]:
        """How long each operation takes, in so many calls on the feeds that were prepared."""
        return tuple(map(OpTime.from_json, self._ask("op_times", calls=calls)["ops"]))

    def memory(self) -> int | None:
        """By how many bytes the process grew at most since the runtime was imported."""
        found: int | None = self._ask("memory")["bytes"]
        return found

    def _ask(self, do: str, **what: Any) -> dict[str, Any]:
        stdin, stdout = self._pipes
        try:
            print(dumps({"do": do} | what), file=stdin, flush=True)
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._crashed()
        answer: dict[str, Any] = json.loads(line)
        if "error" not in answer:
            done: dict[str, Any] = answer["done"]
            return done
        error = answer["error"]
        raise KINDS.get(error["kind"], MhEdgeError)(error["message"], error["hint"])

    def _crashed(self) -> CrashError:
        code = self._process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - LAST_WORDS))
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        words = f": {lines[-1]}" if lines else ", without a word"
        return CrashError(f"the process of the device {self.device!r} was ended {how}{words}")

    @property
    def _pipes(self) -> tuple[IO[str], IO[str]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the process has no pipes")
        return stdin, stdout

    def kill(self) -> None:
        """End the process where it is, from another thread: whoever waits for its answer gets a CrashError."""
        self._process.kill()

    def close(self) -> None:
        """End the process."""
        stdin, stdout = self._pipes
        try:
            stdin.close()
            self._process.wait(QUIT_SECONDS)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        stdout.close()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
