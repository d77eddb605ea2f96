"""The address of a page, on the terminal: as text, and as a QR code for a phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TextIO

from mh_edge.errors import UnavailableError
from mh_edge.packages import require

EXTRA = "qr"

BORDER = 2
"""Light modules around the code; the standard wants 4, which costs rows, and phones read it with 2."""

HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
"""Two dark or light modules, one above the other -> a character."""

Say = Callable[..., None]
"""say(text, style=""): prints lines on the terminal, where they are not in the way of the progress."""


def show_address(say: Say, terminal: TextIO, url: str, far: bool) -> None:
    """far: whether others on the network can open it, such as a phone, which reads the code."""
    say(f"Open this address in a browser; it works once:\n  {url}")
    if not far:
        return
    say("It is plain http: who reads this network reads the files, and browsers give it neither threads nor a GPU.")
    if not terminal.isatty():
        return
    try:
        segno = require("segno", EXTRA, "a QR code")
    except UnavailableError as error:
        say(str(error))
        return
    code = segno.make_qr(url, error="l")
    say(drawn([[bool(dark) for dark in row] for row in code.matrix_iter(border=BORDER)]), style="black on white")


def drawn(modules: Sequence[Sequence[bool]]) -> str:
    """Dark modules in the foreground's colour, two rows of them a line."""
    rows = [*modules, *([[False] * len(modules[0])] * (len(modules) % 2))]
    return "\n".join(
        "".join(HALVES[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    )
