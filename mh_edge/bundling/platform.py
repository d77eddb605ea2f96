"""What a bundle is made for: `Platform`, the contract of all of them, and `PLATFORMS`, their list."""

from __future__ import annotations

import importlib
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mh_edge.artifact import Artifact, file_sha256, manifest_path, read_manifest
from mh_edge.bundling.golden import Golden
from mh_edge.errors import ConversionError, UsageError
from mh_edge.runtimes import REFERENCES
from mh_edge.runtimes.ort.contents import files_beside
from mh_edge.units import human_bytes

PLATFORMS = {
    "linux-arm64": "mh_edge.bundling.linux_arm64:LinuxArm64",
    "android": "mh_edge.bundling.android:Android",
    "web": "mh_edge.bundling.web:Web",
    "mcu": "mh_edge.bundling.mcu:Mcu",
    "ort-mobile": "mh_edge.bundling.ort_mobile:OrtMobile",
    "qnn": "mh_edge.bundling.qnn:Qnn",
}
"""Name -> module:Class."""

KITS = Path(__file__).with_name("kits")
"""The files that every bundle of a platform holds: a folder for each, by the platform's name."""

MODELS, GOLDEN, README = "models", "golden", "README.md"
"""Where things lie in every bundle."""

GAP = re.compile(r"\{\{(\w+)\}\}")
"""A gap in a file of KITS that `Kit.fill` fills."""


@dataclass(frozen=True)
class Member:
    """An artifact of a bundle. source: the artifact that was given. files: what was placed in the bundle for it, the
    model first. golden: its cases.
    """

    source: Artifact
    files: tuple[Path, ...]
    golden: Golden

    @property
    def name(self) -> str:
        """The name of the file that was given, by which the bundle knows it."""
        return self.source.path.name

    @property
    def model(self) -> Path:
        return self.files[0]

    @property
    def golden_file(self) -> str:
        """Its path in the bundle."""
        return f"{GOLDEN}/{self.name}.bin"


@dataclass(frozen=True)
class Kit:
    """A bundle while it is made. folder: nobody else sees it yet. The models and golden cases are there already."""

    platform: str
    folder: Path
    members: tuple[Member, ...]

    @property
    def files(self) -> Path:
        """The platform's own folder of KITS."""
        return KITS / self.platform

    def copy(self, *names: str) -> None:
        """Copy files or folders of the platform's own, as they are."""
        for name in names:
            source = self.files / name
            if source.is_dir():
                shutil.copytree(source, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                self.write(name, source.read_bytes())

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file; its folders are made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def fill(self, name: str, values: Mapping[str, str], to: str | None = None) -> None:
        """Write a file of the platform's own with its gaps, {{word}}, filled. to: its name in the bundle. Raises
        KeyError for a gap without a value.
        """
        text = (self.files / name).read_text(encoding="utf-8")
        self.write(to or name, GAP.sub(lambda gap: values[gap[1]], text))

    def readme(self, **values: str) -> None:
        """Fill the platform's README.md, whose gap {{artifacts}} is a table of them."""
        self.fill(README, {"artifacts": self.table(), **values})

    def table(self) -> str:
        """What the bundle holds, in Markdown: each artifact, its size, inputs and outputs, and how it was proven."""
        lines = ["| model | bytes | inputs | outputs | proof |", "|---|---|---|---|---|"]
        for member in self.members:
            inputs, outputs = (
                "<br>".join(f"`{one.name}` {one.dtype} ({', '.join(map(str, one.shape))})" for one in tensors)
                for tensors in (member.source.inputs, member.source.outputs)
            )
            size = human_bytes(sum(path.stat().st_size for path in member.files))
            name = member.model.relative_to(self.folder).as_posix()
            lines.append(f"| `{name}` | {size} | {inputs} | {outputs} | {proof(member.source)} |")
        return "\n".join(lines)


def proof(artifact: Artifact) -> str:
    """What is known of an artifact from its manifest: a sentence without its end."""
    if artifact.quantized is not None:
        return f"quantized ({artifact.quantized['scheme']}); its manifest says what it lost"
    if artifact.verified is None:
        return "not proven against a Keras model"
    return f"equal to the Keras model on {artifact.verified['feeds']} feeds"


class Platform(ABC):
    """Makes bundles of one kind. settings: its own options, of those in `takes`."""

    name: ClassVar[str]
    """The name that users give it."""
    formats: ClassVar[tuple[str, ...]]
    """The formats of the artifacts that it takes."""
    takes: ClassVar[tuple[str, ...]] = ()
    """The names of the settings that it knows; others are refused."""
    precision: ClassVar[str] = "float32"
    """The coarsest numbers in which it computes a float32 file: a key of mh_edge.profiling.agreement.ALLOWED."""
    next_step: ClassVar[str]
    """A sentence: what to do with a finished bundle."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.settings = dict(settings or {})
        if unknown := [key for key in self.settings if key not in self.takes]:
            raise UsageError(
                f"the platform {self.name!r} has no option {unknown[0]!r}.",
                f"It takes {', '.join(self.takes)}." if self.takes else "It takes none.",
            )

    def require(self, artifact: Artifact) -> None:
        """Raise ConversionError for an artifact that the platform cannot take (why, and which option of `export` or
        `quantize` gives one that it takes), UnavailableError where a package is missing (with the line that installs
        it). To be extended: this one knows the formats alone.
        """
        if artifact.format not in self.formats:
            takes = " and ".join(f".{kind}" for kind in self.formats)
            raise ConversionError(
                f"the platform {self.name!r} takes {takes} files, and {str(artifact.path)!r} is none.",
                f"mh-edge export MODEL --to {self.formats[0]} writes one.",
            )

    def cases(self, artifact: Artifact, found: Golden) -> Golden:
        """Those of the golden cases that the platform can be held to; this one keeps all."""
        return found

    def place(self, artifact: Artifact, models: Path) -> tuple[Path, ...]:
        """Write the model files into the bundle's folder `models` -> those files, the model first, then what it reads.
        This one copies the artifact; its manifest is placed beside it. Raises ConversionError for weights that lie
        outside of the artifact's folder, or would replace another artifact's.
        """
        placed = []
        for path in (artifact.path, *files_beside(artifact.path)):
            target = models / _inside(path, artifact.path)
            if target.exists() and file_sha256(target) != file_sha256(path):
                raise ConversionError(
                    f"two artifacts have different files that are called {target.name!r}.", "Bundle them apart."
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            placed.append(Path(shutil.copyfile(path, target)))
        return tuple(placed)

    def device(self, artifact_format: str) -> str:
        """The device (mh_edge.runtimes) of this machine on which the placed file is run to check its golden cases."""
        return REFERENCES[artifact_format][0]

    @abstractmethod
    def finish(self, kit: Kit) -> Mapping[str, Mapping[str, Any]]:
        """Write README.md, the self-test and the sample -> by the name of an artifact, what bundle.json shall say of it
        under "details"; nothing for most.
        """


def platform(name: str, settings: Mapping[str, str] | None = None) -> Platform:
    """The platform of that name. Raises UsageError for one that is not known, and for settings that it lacks."""
    if name not in PLATFORMS:
        raise UsageError(f"platform {name!r} is not known.", f"Known are {', '.join(PLATFORMS)}.")
    module, _, known = PLATFORMS[name].partition(":")
    found: type[Platform] = vars(importlib.import_module(module))[known]
    return found(settings)


def _inside(path: Path, artifact: Path) -> Path:
    """Where a file lies beside an artifact."""
    folder = artifact.parent
    if not path.is_relative_to(folder) or ".." in (inside := path.relative_to(folder)).parts:
        raise ConversionError(
            f"{str(artifact)!r} has weights outside of its folder, in {str(path)!r}.", "Save it with them beside it."
        )
    return inside


def place_manifest(artifact: Artifact, models: Path) -> Path | None:
    """Copy the artifact's manifest, unless it is stale -> its path in the bundle."""
    if read_manifest(artifact.path, artifact.sha256) is None:
        return None
    return Path(shutil.copyfile(manifest_path(artifact.path), models / manifest_path(artifact.path).name))
