"""The `mh-edge` command as a shell finds it, also where the package is not installed but only importable."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

SCRIPT = """#!{python}
import sys
from mh_edge.cli import main
sys.exit(main())
"""


def environment(folder: Path, *more: Path) -> dict[str, str]:
    """The environment of a process that imports this checkout (and `more`) and finds `mh-edge`, put into `folder`."""
    program = folder / "mh-edge"
    folder.mkdir(parents=True, exist_ok=True)
    program.write_text(SCRIPT.format(python=sys.executable), encoding="utf-8")
    program.chmod(0o755)
    paths = [str(path) for path in (*more, ROOT, ROOT / "converters")]
    return os.environ | {
        "PATH": os.pathsep.join([str(folder), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(paths),
    }
