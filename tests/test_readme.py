"""What README.md shows is what the program does: its blocks are run, in order, in one folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import mh_edge
from documentation import Block, Reader, blocks, keys, without_numbers
from mh_edge.cli import COMMANDS, main
from mh_edge.rules import TARGETS, rules_for
from program_on_path import ROOT

PAGE = ROOT / "README.md"
OLD_CHECKPOINT = ROOT / "tests/fixtures/reference/attention_masking.h5"


@pytest.mark.slow
def test_every_block_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def capture(run: Callable[[], int]) -> tuple[int, str]:
        capfd.readouterr()
        code = run()
        printed = capfd.readouterr()
        return code, printed.out + printed.err

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    shutil.copy(OLD_CHECKPOINT, "old.h5")
    reader = Reader(main, capture)
    for block in blocks(PAGE.read_text(encoding="utf-8")):
        run(reader, block)


def run(reader: Reader, block: Block) -> None:
    where = f"README.md, line {block.line}"
    if block.kind == "python":
        reader.python(block, str(PAGE))
    elif block.kind == "console":
        got = reader.console(block)
        if "--help" in block.body:
            assert got == block.body, where
        assert without_numbers(got) == without_numbers(block.body), where
    else:
        assert not reader.differences(block), where


def test_the_readme_names_every_command_and_extra() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"mh-edge {command}" in text
    extras = re.findall(
        r"^([a-z-]+) =$", (ROOT / "setup.cfg").read_text().partition("extras_require]")[2], re.MULTILINE
    )
    assert {"export", "cpu", "litert", "local", "dev"} <= set(extras)
    for extra in extras:
        assert f"`{extra}`" in text or f"mh-edge[{extra}]" in text


@pytest.mark.parametrize("target", TARGETS)
def test_the_readme_names_every_layer_with_a_rule(target: str) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Rules\n")[2]
    for rule in rules_for(target):
        if rule.layer.__module__.startswith(("keras.", "mh_edge.")):
            assert f"`{rule.name}`" in section or rule.name in mh_edge.layers.__all__


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").rglob("*.md")),
    ],
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}"


def test_the_reader_sees_what_is_wrong() -> None:
    assert list(keys({"a": {"b": 1}}, {"a": {}})) == [".a.b is missing"]
    assert list(keys({"a": [{"b": "x"}]}, {"a": [{"b": 1}]})) == [".a[0].b is 1"]
    assert not list(keys({"a": 1.5, "c": None}, {"a": 2, "c": "x", "more": 0}))
    assert without_numbers("error 1.2e-07,  size 15.2 kB ──") == without_numbers("error 3e-08, size 7 kB")
    assert without_numbers("equal") != without_numbers("NOT EQUAL")
