"""A headless browser of our own for one visit: of Chromium's kin, in a profile folder that nobody used before. It is
ended with its children, and all that it wrote is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mh_edge.errors import UnavailableError, UsageError
from mh_edge.runtimes.base import printable
from mh_edge.runtimes.worker import end_with

NAME = "chromium"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""What the name means: of those that are installed the first."""

FLAGS = (
    "--headless=new", "--no-first-run", "--no-default-browser-check", "--no-proxy-server", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--enable-unsafe-webgpu",
)  # fmt: skip
"""The last one: on Linux there is no WebGPU without it, and no software GPU in its place."""

ROOT_FLAG = "--no-sandbox"
"""Its sandbox needs an ordinary user."""

LAST_LINES = 3
FATAL = "FATAL"
"""In the line that says why Chromium ended; others follow it."""

LONGEST_FOLDER = 55
"""Chromium's socket lies in it, with a name of 45 characters; a socket's path has 103 at most."""

SHORT = "/tmp"  # noqa: S108 - mkdtemp makes a folder of one's own there

TRIES = 40
PAUSE_SECONDS = 0.05
"""Processes that were ended may still hold files for a moment."""

GUARD = (
    "trap '' HUP INT TERM; read -r line; kill -s KILL -- \"-$1\"; "
    'for i in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$2"; test -e "$2" || break; sleep 0.2; done'
)
"""Of a shell: end the group $1 and remove the folder $2 as its input ends. It does so even where we are killed."""


class Chromium:
    """A browser that runs. `require_running` raises UnavailableError once it does not."""

    def __init__(self, program: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self._program, self._process, self._log = program, process, log

    def require_running(self) -> None:
        code = self._process.poll()
        if code is None:
            return
        said = printable(self._log.read_text(encoding="utf-8", errors="replace")).splitlines()
        fatal = [line for line in said if FATAL in line]
        words = " | ".join(line.strip() for line in (fatal or said)[-LAST_LINES:])
        raise UnavailableError(
            f"{self._program} ended with {code} before the page was done: {words or 'it printed nothing'}.",
            "Open the address in another browser: leave --browser away.",
        )


def program(name: str) -> str:
    """The program of `--browser`: "chromium", or a path. Raises UsageError for another name, UnavailableError where it
    is not installed.
    """
    if name == NAME:
        if found := next(filter(None, map(shutil.which, PROGRAMS)), None):
            return found
        raise UnavailableError(f"none of {', '.join(PROGRAMS)} is installed.", "apt install chromium")
    if os.sep not in name:
        raise UsageError(f"--browser {name!r} is not known.", f"It is {NAME}, or the path of a browser of its kin.")
    if not os.access(name, os.X_OK) or Path(name).is_dir():
        raise UsageError(f"--browser {name!r} is no program.", f"Give the path of one, or {NAME}.")
    return name


@contextlib.contextmanager
def opened(name: str, url: str) -> Iterator[Chromium]:
    """Within it, a browser shows the address. Raises what `program` raises, UnavailableError where that fails."""
    found = program(name)
    folder = _folder()
    homes = {one: str(folder) for one in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR")}
    flags = (*FLAGS, *([ROOT_FLAG] if os.geteuid() == 0 else []))
    log = folder / "log"
    try:
        with log.open("wb") as said:
            try:
                process = subprocess.Popen(  # noqa: S603 - the user's own choice
                    [found, *flags, f"--user-data-dir={folder / 'profile'}", url],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    env=os.environ | homes,
                    start_new_session=True,  # so that its children can be ended with it
                    preexec_fn=partial(end_with, os.getpid()),  # and it with this process, however that ends
                )
            except OSError as error:
                raise UnavailableError(f"{found} does not start: {error.strerror}.", "apt install chromium") from error
        guard = subprocess.Popen(  # noqa: S603 - its words are ours
            ["/bin/sh", "-c", GUARD, "sh", str(process.pid), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield Chromium(found, process, log)
        finally:
            guard.kill()
            guard.communicate()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    finally:
        _remove(folder)


def _folder() -> Path:
    """A new one for temporary files, where names are short enough."""
    folder = tempfile.mkdtemp(prefix="mh-edge-")
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="mh-edge-", dir=SHORT)
    return Path(folder)


def _remove(folder: Path) -> None:
    for _ in range(TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(PAUSE_SECONDS)
