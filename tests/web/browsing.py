"""A headless Chromium, from the system's packages, driven by Playwright: pages opened as on a screen, and asked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ELSEWHERE = "elsewhere.test"
"""A name of this machine that browsers do not know as such, so that a page from it by http is no secure context."""

FLAGS = (
    "--no-sandbox",
    "--enable-unsafe-webgpu",
    "--hide-scrollbars",
    "--disable-background-networking",
    f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1",
)
"""WebGPU on software Vulkan, where there is no GPU, is kept from pages unless it is asked for."""

RESULT = "JSON.parse(document.getElementById('result').textContent)"

PATIENCE = 300_000
"""Milliseconds for a page that compiles shaders on a busy machine."""


class Chromium:
    """One page. asked, complaints: the addresses it asked for, and what it wrote to the console as an error or threw,
    since it was opened.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("requestfailed", lambda request: self.complaints.append(f"{request.url}: {request.failure}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)

    def open(self, what: Path | str, *, width: int = 1280, dark: bool = False, media: Any = "screen") -> None:
        """Show a file or an address, as on a screen so wide with that preference."""
        self.look(width=width, dark=dark, media=media)
        self.asked.clear()
        self.complaints.clear()
        self.page.goto(what.resolve().as_uri() if isinstance(what, Path) else what)

    def look(self, *, width: int = 1280, dark: bool = False, media: Any = "screen") -> None:
        self.page.emulate_media(color_scheme="dark" if dark else "light", media=media)
        self.page.set_viewport_size({"width": width, "height": 900})

    def value(self, script: str) -> Any:
        """What an expression of JavaScript is on the page."""
        return self.page.evaluate(script)

    def result(self) -> Any:
        """What a page of a web bundle found, once it is done: what a program reads."""
        self.page.wait_for_selector("#verdict.passed, #verdict.failed", timeout=PATIENCE)
        told = self.value(RESULT)
        assert told == self.value("JSON.parse(JSON.stringify(window.mhEdgeResult))")
        return told


@contextmanager
def chromium() -> Iterator[Chromium]:
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    assert found is not None, "no chromium here: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield Chromium(browser.new_page())
        browser.close()
