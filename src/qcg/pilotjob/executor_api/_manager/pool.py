"""The nodes that jobs can still use."""

from __future__ import annotations

from typing import Any, Dict

from qcg.pilotjob.resources import Resources


def usable_cores(resources: Resources) -> int:
    """Return how many cores jobs can use at the most: all but the one that is kept for the manager."""
    return sum(usable_on(resources, node) for node in resources.nodes)


def drop_node(resources: Resources, name: str) -> None:
    """Take a node out of the pool, with what is used of it.

    The core can only call a node unavailable, and counts its cores as free again when a job there ends.
    """
    for node in [node for node in resources.nodes if node.name == name]:
        resources._used_cores -= node.used if node.available else node.total
        resources._total_cores -= node.total
        resources._nodes.remove(node)
        node.resources = None  # what jobs release there concerns nobody
    resources._max_crs = {kind: max(_consumables(resources, kind)) for kind in _kinds(resources)}
    resources._total_crs = {kind: sum(_consumables(resources, kind)) for kind in _kinds(resources)}


def usable_on(resources: Resources, node: Any) -> int:
    """Return how many cores of `node` jobs can use at the most."""
    kept = resources._system_allocation
    return int(node.total) - (1 if kept is not None and kept.node is node else 0)


def why_not(resources: Resources, wanted: Any) -> str:
    """Return why a job that wants so much could not run even if nothing else did, an empty string when it could.

    It is what comes behind "the job".
    """
    if _fits(resources, wanted):
        return ""
    widths = [usable_on(resources, node) for node in resources.nodes]
    if not wanted.has_nodes or not wanted.has_cores:
        return f"asks for {wanted.get_min_num_cores()} cores; jobs can use {sum(widths)} here"
    cores, nodes = _least(wanted.cores), _least(wanted.nodes)
    if nodes == 1 and cores > sum(widths):
        return f"asks for {cores} cores; jobs can use {sum(widths)} here; no node has {cores} cores"
    if nodes == 1:
        return f"asks for {cores} cores on one node; no node has {cores} cores, the widest has {max(widths, default=0)}"
    suitable = sum(width >= cores for width in widths)
    return f"asks for {nodes} nodes with {cores} cores each; {suitable} here can give that"


def _fits(resources: Resources, wanted: Any) -> bool:
    per_node = _least(wanted.cores) if wanted.has_cores else 0
    if not wanted.has_nodes:
        piece = getattr(wanted, "cores_per_rank", 1)
        return per_node <= sum(usable_on(resources, node) // piece * piece for node in resources.nodes)
    suitable = [
        node
        for node in resources.nodes
        if usable_on(resources, node) >= (per_node or node.total)
        and (not wanted.has_crs or all(_has(node, kind) >= count for kind, count in wanted.crs.items()))
    ]
    return len(suitable) >= _least(wanted.nodes)


def _least(size: Any) -> int:
    return int(size.exact if size.is_exact() else size.min or 0)


def _has(node: Any, kind: Any) -> int:
    return int(node.crs[kind].total_count) if node.crs and kind in node.crs else 0


def _kinds(resources: Resources) -> Dict[Any, None]:
    return dict.fromkeys(kind for node in resources.nodes for kind in node.crs or ())


def _consumables(resources: Resources, kind: Any) -> Any:
    return [_has(node, kind) for node in resources.nodes]
