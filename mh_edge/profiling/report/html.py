"""Trees of HTML elements. Names and messages go in as text, so none of them can become markup."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree

Element = ElementTree.Element
Child = Element | str | None

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""What no page may hold: control characters, those that turn around the text beside them, and the halves of characters
by which Python keeps the names of files that are not UTF-8.
"""

NOTHING = "—"
"""Stands for what was not measured."""


def e(tag: str, *children: Child, **attributes: str | float | None) -> Element:
    """An element with children and attributes, those that are None left out.

    In names of attributes `_` stands for `-`, and one at the end for nothing: `e("p", "fast: ", name, class_="note")`.
    """
    element = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            element.set(name.rstrip("_").replace("_", "-"), clean(value) if isinstance(value, str) else f"{value:.5g}")
    add(element, children)
    return element


def add(element: Element, children: Iterable[Child]) -> None:
    """Append texts and elements in order."""
    for child in children:
        if isinstance(child, str):
            if len(element):
                element[-1].tail = (element[-1].tail or "") + clean(child)
            else:
                element.text = (element.text or "") + clean(child)
        elif child is not None:
            element.append(child)


def clean(text: str) -> str:
    """The text with U+FFFD for what cannot be shown."""
    return UNPRINTABLE.sub("\ufffd", text)


def foreign(text: str, **attributes: str | float | None) -> Element:
    """A text from outside (the name of a file, of a node), kept from turning around the words beside it."""
    return e("bdi", text, **attributes)


def document(root: Element) -> str:
    """The text of the page."""
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html") + "\n"
