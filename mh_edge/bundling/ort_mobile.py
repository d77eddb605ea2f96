"""ort-mobile: .ort files, which every ONNX Runtime opens, and the list of operators and types from which a minimal
build of it is made: a small one, that knows no .onnx and nothing that these files do not need.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mh_edge.artifact import Artifact
from mh_edge.bundling import ort_format
from mh_edge.bundling.platform import MODELS, Kit, Platform
from mh_edge.errors import ConversionError
from mh_edge.packages import version
from mh_edge.runtimes.ort.contents import precision
from mh_edge.runtimes.ort.wheels import wheels
from mh_edge.units import human_bytes

CONFIG = f"{MODELS}/required_operators_and_types.config"
"""Its path in the bundle: one for all models, because an application has one ONNX Runtime."""

MOST_BYTES = 2_000_000_000
"""FlatBuffers count in 31 bits; what is not weights takes some."""


class OrtMobile(Platform):
    """Every .onnx file that ONNX Runtime's CPU runs, weights included; float16 becomes float32 and is refused."""

    name = "ort-mobile"
    formats = ("onnx",)
    next_step = "README.md says how the .ort file is opened, and how a minimal ONNX Runtime is built for it."

    def require(self, artifact: Artifact) -> None:
        super().require(artifact)
        if precision(artifact.path) == "float16":
            raise ConversionError(
                f"{str(artifact.path)!r} computes in float16, for which ONNX Runtime's CPU has few kernels: its "
                "converter would write the weights back as float32, in a file larger than that of the float32 model.",
                "Bundle the float32 model, or a smaller one: mh-edge quantize --scheme int8-dynamic (or int4).",
            )
        if artifact.bytes > MOST_BYTES:
            raise ConversionError(
                f"{str(artifact.path)!r} has {human_bytes(artifact.bytes)}, and an .ort file holds 2 GB at most.",
                "mh-edge quantize --scheme int8-dynamic (or int4) makes it smaller.",
            )

    def place(self, artifact: Artifact, models: Path) -> tuple[Path, ...]:
        return (ort_format.made(models / f"{artifact.path.stem}.ort", artifact.path),)

    def finish(self, kit: Kit) -> Mapping[str, Mapping[str, Any]]:
        ort_format.made(kit.folder / CONFIG, *(member.model for member in kit.members))
        kit.copy("bundle.h", "sample.cc", "selftest.cc")
        runtime = next(filter(None, map(version, wheels())), "")
        kit.readme(
            config=CONFIG,
            runtime=runtime,
            minor=runtime.rpartition(".")[0],
            model=kit.members[0].model.relative_to(kit.folder).as_posix(),
            file=kit.members[0].model.name,
        )
        return {member.name: {"config": CONFIG, "optimization_style": ort_format.STYLE} for member in kit.members}
