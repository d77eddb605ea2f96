"""A browser as a device: the page of the platform `web` is served to it, runs there, and sends what came out.

    mh-edge profile model.onnx --device browser

Its outputs are judged here, as those of every other device; what it says of its times and of where nodes ran is checked
for sense, and shown as its word.
"""

from __future__ import annotations

from mh_edge.profiling.browser.browsing import Offer, profile_in_browser

__all__ = ["Offer", "profile_in_browser"]
