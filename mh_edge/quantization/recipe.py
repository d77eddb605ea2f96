"""A recipe: everything that a quantized file was made from besides the float file, so that it can be made again.

It lies in the manifest of the quantized file (`x.int8.onnx.json`) under recipe.quantize, and may stand in a file of its
own. As JSON: {"mh_edge_recipe": 1, "format", "scheme", "options": {...}, "ranges": {tensor: [low, high]},
"source_sha256", "versions": {package: version}}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mh_edge.artifact import FORMATS, Artifact, manifest_path
from mh_edge.errors import InputError, UsageError
from mh_edge.packages import versions
from mh_edge.quantization.scheme import HOMES, Options, Range, Ranges, Scheme

LAYOUT_KEY = "mh_edge_recipe"
LAYOUT = 1

MANIFEST_KEY = "quantize"
"""Under this name a manifest's `recipe` holds the recipe."""

FIELDS: Mapping[str, type] = {
    "format": str,
    "scheme": str,
    "options": dict,
    "ranges": dict,
    "source_sha256": str,
    "versions": dict,
}

SHA256_DIGITS = 64

MADE_BY = {"onnx": ("onnx", "onnxruntime", "onnxruntime-gpu"), "tflite": ("litert-quantizer", "ai-edge-litert")}
"""Distributions whose versions the recipe of each format records."""


@dataclass(frozen=True)
class Recipe:
    """scheme(source, ranges, options) -> the same bytes again, without calibration data.

    ranges: as the calibration saw them, in the scheme's order; {} for a scheme that needs none. source_sha256: of the
    float file. versions: of the packages that quantized; others may round differently.
    """

    format: str
    scheme: str
    options: Options
    ranges: Ranges
    source_sha256: str
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, scheme: Scheme, source: Artifact, options: Options, ranges: Ranges) -> Recipe:
        """What is about to be done, with the packages that are installed."""
        return cls(scheme.format, scheme.name, options, ranges, source.sha256, versions(MADE_BY[scheme.format]))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; a finite float is written with the digits that give it back exactly."""
        return {
            LAYOUT_KEY: LAYOUT,
            "format": self.format,
            "scheme": self.scheme,
            "options": vars(self.options) | {"keep_float": list(self.options.keep_float)},
            "ranges": {tensor: [_text(seen.low), _text(seen.high)] for tensor, seen in self.ranges.items()},
            "source_sha256": self.source_sha256,
            "versions": dict(self.versions),
        }

    @classmethod
    def from_json(cls, data: Any, of: str = "the recipe") -> Recipe:
        """The recipe that `to_json` wrote. of: where it came from, as the subject of the message. Raises InputError for
        anything else.
        """
        try:
            if data[LAYOUT_KEY] != LAYOUT:
                raise ValueError(f"its layout is {data[LAYOUT_KEY]!r}, this version reads {LAYOUT}")
            if unknown := data.keys() - FIELDS.keys() - {LAYOUT_KEY}:
                raise ValueError(f"it holds {min(unknown)!r}, which no recipe does")
            for key, kind in FIELDS.items():
                if not isinstance(data[key], kind):
                    raise ValueError(f"{key} is {data[key]!r}")
            if data["format"] not in HOMES:
                raise ValueError(f"the format is {data['format']!r}")
            sha256 = data["source_sha256"]
            if len(sha256) != SHA256_DIGITS or not set(sha256) <= set("0123456789abcdef"):
                raise ValueError(f"source_sha256 is {sha256!r}")
            if not all(isinstance(version, str) for version in data["versions"].values()):
                raise ValueError(f"versions is {data['versions']!r}")
            ranges = {tensor: _range(tensor, seen) for tensor, seen in data["ranges"].items()}
            options = _options(data["options"])
        except KeyError as error:
            raise _foreign(of, f"it has no {error.args[0]!r}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise _foreign(of, str(error)) from error
        return cls(data["format"], data["scheme"], options, ranges, sha256, data["versions"])

    def fits(self, source: Artifact) -> bool:
        """Whether it was made from this very file: then its ranges hold, and its file comes out byte for byte. If not,
        its scheme and options may be used again, but the ranges must be measured anew (`misfit` says so).

        Raises UsageError when it is a recipe of another format.
        """
        if self.format != source.format:
            raise UsageError(
                f"the recipe is for an .{self.format} file, {str(source.path)!r} is an .{source.format} file.",
                "Give a recipe of the same format, or name a scheme with --scheme.",
            )
        return self.source_sha256 == source.sha256

    def misfit(self, source: Artifact) -> str:
        """The sentence for a file that the recipe does not fit."""
        return (
            f"the recipe was made from another file (sha256 {self.source_sha256[:12]}…; {source.path.name} has "
            f"{source.sha256[:12]}…): its scheme {self.scheme} and its options are used, its ranges are not."
        )


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a .json file: of its own, or a quantized file's manifest. The quantized file may be named instead.

    Raises InputError when there is none, or it is damaged.
    """
    path = Path(path)
    if path.suffix.lower().removeprefix(".") in FORMATS:
        path = manifest_path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the recipe {str(path)!r} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _foreign(str(path), f"it is no JSON ({error})") from error
    if isinstance(data, dict) and "mh_edge_manifest" in data:
        recipe = data.get("recipe")
        if not isinstance(recipe, dict) or MANIFEST_KEY not in recipe:
            raise InputError(
                f"{str(path)!r} is the manifest of a file that was not quantized: it holds no recipe.",
                "Give the manifest of a file that `mh-edge quantize` wrote.",
            )
        data = recipe[MANIFEST_KEY]
    return Recipe.from_json(data, str(path))


def _foreign(of: str, why: str) -> InputError:
    return InputError(
        f"{of} is damaged or holds no recipe: {why}.", "Give what `mh-edge quantize` wrote beside its file."
    )


def _text(number: float) -> float | str:
    """JSON has no infinity, which a mask may hold. A range of NumPy's numbers is written as Python's."""
    return float(number) if math.isfinite(number) else str(float(number))


def _range(tensor: str, seen: Any) -> Range:
    if isinstance(seen, list) and len(seen) == 2 and all(_is_number(end) for end in seen):
        low, high = map(float, seen)
        if low <= high:
            return Range(low, high)
    raise ValueError(f"the range of {tensor!r} is {seen!r}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) or value in ("inf", "-inf")


def _options(data: Mapping[str, Any]) -> Options:
    usual = vars(Options())
    if data.keys() != usual.keys():
        raise ValueError(f"its options are {', '.join(data) or 'none'}, not {', '.join(usual)}")
    for name, value in data.items():
        kind = list if isinstance(usual[name], tuple) else type(usual[name])
        if type(value) is not kind or (kind is list and not all(isinstance(item, str) for item in value)):
            raise ValueError(f"the option {name} is {value!r}")
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    return Options(**given)
