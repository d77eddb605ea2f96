"""The page: verdict, problems, table, charts, and what it was measured on."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from importlib import resources
from pathlib import Path

from mh_edge.errors import ConversionError, UsageError
from mh_edge.profiling.report import distribution, operations, pareto, placement, summary, verdict
from mh_edge.profiling.report.entries import entries
from mh_edge.profiling.report.html import Element, document, e, foreign
from mh_edge.profiling.result import Profile

STYLE = "style.css"

ALLOWED = "default-src 'none'; style-src 'unsafe-inline'"
"""What the page tells the browser that it may do: no script, no image, no request; its own style."""


def page(profile: Profile) -> str:
    """The whole file as text. It holds no script and asks for nothing else."""
    rows = entries(profile)
    charts = [
        distribution.section(profile, rows),
        pareto.section(rows, profile.noise),
        operations.section(rows),
        placement.section(rows),
    ]
    files, devices = dict.fromkeys(one.name for one in rows), dict.fromkeys(row.device for row in profile.rows)
    title = f"Profile of {_counted(files, 'file')} on {_counted(devices, 'device')}"
    table = summary.section(rows) if rows else None
    said = verdict.problems(rows), table, verdict.elsewhere(rows), verdict.notes(rows)
    sections = [one for one in (*said, *charts, _measured(profile)) if one is not None]
    head = e(
        "head",
        e("meta", charset="utf-8"),
        e("meta", http_equiv="Content-Security-Policy", content=ALLOWED),
        e("meta", name="viewport", content="width=device-width, initial-scale=1"),
        e("meta", name="color-scheme", content="light dark"),
        e("title", f"{title}: {'passed' if profile.passed else 'failed'}"),
        e("style", resources.files(__package__).joinpath(STYLE).read_text(encoding="utf-8")),
    )
    body = e(
        "body",
        e("header", e("h1", title), verdict.headline(profile, rows)),
        _contents(sections),
        e("main", *sections),
    )
    return document(e("html", head, body, lang="en"))


def check_target(path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Raise UsageError where no page can be written, or only over one of the inputs, by whatever name, before anything
    is measured for it.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder, so no page can be written there.", "Name a file: report.html.")
    if path.exists() and not path.is_file():
        raise UsageError(f"{str(path)!r} is no ordinary file.", "Name a file: report.html.")
    if not path.parent.is_dir():
        raise UsageError(f"{str(path)!r} cannot be written: there is no folder {str(path.parent)!r}.", "Make it first.")
    for one in inputs:
        if path.exists() and os.path.exists(one) and path.samefile(one):
            raise UsageError(
                f"the page {str(path)!r} would be written over {str(one)!r}, which is measured or read.",
                "Name another file: report.html.",
            )


def write(profile: Profile, path: str | Path) -> None:
    """Write the page; what was there before stays until all of it is written.

    Raises UsageError as `check_target` does, ConversionError when the system refuses (no permission, disk full).
    """
    path = Path(path).resolve()
    check_target(path)
    draft = path.with_name(f".mh-edge-{os.getpid()}.html")
    text = page(profile).encode("utf-8")
    try:
        with draft.open("xb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise ConversionError(
            f"{str(path)!r} cannot be written: {error.strerror or error}.",
            "Make room, or name another file with --html.",
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _counted(names: Collection[str], what: str) -> str:
    """The only one by its name."""
    return next(iter(names)) if len(names) == 1 else f"{len(names)} {what}s"


def _contents(sections: list[Element]) -> Element:
    """Where to find what; titles are those of the sections."""
    links = [e("li", e("a", section[0].text or "", href=f"#{section.get('id')}")) for section in sections]
    return e("nav", e("ul", *links), aria_label="Contents")


def _measured(profile: Profile) -> Element:
    """What it was measured on and how."""
    sizes = ", ".join(f"{name} = {size}" for name, size in profile.sizes.items())
    facts = {
        **profile.machine,
        "threads": "each runtime's own choice" if profile.threads is None else str(profile.threads),
        "inputs": profile.feeds,
        "sizes": sizes,
        "openings of each file": str(profile.openings),
    }
    listed = [
        part
        for name, value in facts.items()
        if value
        for part in (e("dt", foreign(name)), e("dd", foreign(str(value))))
    ]
    return e(
        "section",
        e("h2", "How it was measured"),
        e("dl", *listed),
        e(
            "p",
            "Files and devices took turns, so that what slows the machine down slows all of them down. Each file was "
            "opened anew several times; a range tells how much the openings differ. The first row ran twice among the "
            "others: by how much it differed from itself is the noise of the machine, and a smaller difference is "
            "none. Memory is what the process grew by at most while it opened and ran the file. Where nodes ran is "
            "what the runtime itself told.",
            class_="note",
        ),
        id="method",
    )
