"""Reads the nodes and cores on which a job ran, as the manager writes them."""

from __future__ import annotations

from typing import Dict, List

__all__ = ["by_node"]


def by_node(allocation: str) -> Dict[str, List[str]]:
    """Read the core's ``node[core:core],node[core]``; GPUs are written in the same way. A node may have none."""
    nodes = (part.rstrip("]").partition("[") for part in allocation.split(",") if part)
    return {name: cores.split(":") if cores else [] for name, _, cores in nodes}
