"""What native code prints while it opens or runs a file: TFLite's runtimes say only there why they failed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def printed() -> Iterator[list[str]]:
    """Within it nothing reaches descriptors 1 and 2; the list has what was written there, as one text, afterwards."""
    said: list[str] = []
    with tempfile.TemporaryFile() as lines, open(os.dup(1), "wb") as out, open(os.dup(2), "wb") as err:
        os.dup2(lines.fileno(), 1)
        os.dup2(lines.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            lines.seek(0)
            said.append(lines.read().decode(errors="replace"))
