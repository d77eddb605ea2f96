"""Bundles: what to copy to a device, with its own proof.

    mh_edge.bundle(["out/model.onnx"], "linux-arm64", "kit")

A bundle is a folder, or a .zip of one:

    bundle.json     the platform, the artifacts, where their golden cases lie, size and sha256 of every other file
    README.md       the exact lines for that platform
    models/         the model files with their manifests
    golden/         inputs, and the outputs that they must give: arrays, little-endian, one file for each artifact
    ...             a self-test and a sample in the platform's own language

It holds no time and no path of this machine: the same artifacts give the same bytes.
"""

from __future__ import annotations

from mh_edge.bundling.bundling import Bundle, Bundled, bundle
from mh_edge.bundling.checking import Checked, check
from mh_edge.bundling.platform import PLATFORMS

__all__ = ["PLATFORMS", "Bundle", "Bundled", "Checked", "bundle", "check"]
