"""Ray of one's own on this machine, or the cluster that RAY_ADDRESS names (`ray job submit` sets it)."""

from __future__ import annotations

import os

import ray

OBJECT_STORE = 100 * 2**20  # bytes of shared memory; Ray itself takes a third of the machine's unless told


def connect(cpus: int = 2) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to anyone
    if "RAY_ADDRESS" in os.environ:
        ray.init()
    else:
        own = {"num_cpus": cpus, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
        ray.init("local", logging_level="warning", **own)  # not one that happens to run on this machine
