"""The blocks of a Markdown page, run in order in one folder, as a reader would.

```python blocks share their names. ```console blocks hold commands after `$ ` and what they print; only `mh-edge` is
run, and `; echo "exit code $?"` after it is understood. A ```json COMMAND block shows the keys and types of the object
that COMMAND prints. Other blocks are not run.

`python tests/documentation.py README.md` puts what the commands print now into the page.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = re.compile(
    r"^```(?P<kind>python|console|json)(?: (?P<command>.*?))?\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
ECHO = '; echo "exit code $?"'
FEED = re.compile(r"\[[^\]]*\(seed [^)]*\)\]|mh-edge-failures/\S+\.npz")
NUMBER = re.compile(r"\d+(\.\d+)*(e[-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    """One fenced block: where its body lies in the page, and at which line."""

    kind: str
    command: str | None
    body: str
    line: int
    start: int
    end: int


def blocks(page: str) -> Iterator[Block]:
    for found in BLOCK.finditer(page):
        line = page.count("\n", 0, found.start()) + 1
        yield Block(found["kind"], found["command"], found["body"], line, found.start("body"), found.end("body"))


class Reader:
    """Runs blocks. main: the command line; capture: runs a function and returns (its value, stdout and stderr)."""

    def __init__(self, main: Callable[[list[str]], int], capture: Callable[[Callable[[], int]], tuple[int, str]]):
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self._main = main
        self._capture = capture

    def python(self, block: Block, page: str) -> None:
        # Blank lines before the code make a traceback show the line of the page.
        exec(compile("\n" * block.line + block.body, page, "exec"), self.names)  # noqa: S102

    def console(self, block: Block) -> str:
        """The block with what the commands print now."""
        shown = []
        for line in block.body.splitlines():
            if not line.startswith("$ "):
                continue
            shown += [line, *self.output(line[2:]).splitlines()]
        return "".join(f"{line.rstrip()}\n" for line in shown)

    def output(self, command: str) -> str:
        code, printed = self._run(command.removesuffix(ECHO))
        assert code == 0 or command.endswith(ECHO), f"{command} gave {code}: {printed}"
        text = "\n".join(line.rstrip() for line in printed.splitlines()).strip("\n")
        return f"{text}\nexit code {code}" if command.endswith(ECHO) else text

    def differences(self, block: Block) -> list[str]:
        """What a json block shows and its command does not print."""
        return list(keys(json.loads(block.body), json.loads(self._run(str(block.command))[1])))

    def _run(self, command: str) -> tuple[int, str]:
        program, *words = shlex.split(command)
        assert program == "mh-edge", f"only mh-edge is run, not {command!r}"
        return self._capture(lambda: self._main(words))


def without_numbers(text: str) -> str:
    """Sizes, errors, versions and which feed is worst differ from machine to machine, and with them the width of
    columns; other words do not.
    """
    return NUMBER.sub("#", FEED.sub("(feed)", re.sub(r"[\s─]+", " ", text))).strip()


def keys(shown: Any, got: Any, at: str = "") -> Iterator[str]:
    """Every key or type that the page shows and the program does not give."""
    if isinstance(shown, dict):
        if not isinstance(got, dict):
            yield f"{at} is no object"
        elif at.endswith((".ops", ".rules")):
            return  # their keys are the model's
        else:
            for key, value in shown.items():
                yield from keys(value, got[key], f"{at}.{key}") if key in got else [f"{at}.{key} is missing"]
    elif isinstance(shown, list) and shown and isinstance(got, list) and got:
        yield from keys(shown[0], got[0], f"{at}[0]")
    elif shown is not None and got is not None and _kind(shown) is not _kind(got):
        yield f"{at} is {got!r}"


def _kind(value: Any) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


def _captured(run: Callable[[], int]) -> tuple[int, str]:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = run()
    return code, printed.getvalue()


def rewritten(page: Path, folder: Path) -> str:
    """The page with what its commands print now."""
    from mh_edge.cli import main

    text, reader, parts, at = page.read_text(encoding="utf-8"), Reader(main, _captured), [], 0
    os.chdir(folder)
    for block in blocks(text):
        if block.kind == "python":
            reader.python(block, str(page))
        elif block.kind == "console":
            parts += [text[at : block.start], reader.console(block)]
            at = block.end
    return "".join([*parts, text[at:]])


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        for sample in sys.argv[2:]:
            name, _, source = sample.partition("=")
            (Path(scratch) / name).write_bytes(Path(source).read_bytes())
        target.write_text(rewritten(target, Path(scratch)), encoding="utf-8")
