"""A platform of the tests' own, the least that one can be, and a bundle of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mh_edge.bundling.platform import Kit, Platform


class Plain(Platform):
    """Both formats, as they are."""

    name = "plain"
    formats = ("onnx", "tflite")
    takes = ("word",)
    next_step = "Copy it."

    def finish(self, kit: Kit) -> Mapping[str, Mapping[str, Any]]:
        kit.write("README.md", kit.table() + "\n")
        return {member.name: {"word": self.settings.get("word", "")} for member in kit.members}
