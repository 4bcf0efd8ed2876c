"""The nodes that jobs can still use."""

from __future__ import annotations

from typing import Any, Dict, List

from qcg.pilotjob.resources import Resources


def usable_cores(resources: Resources) -> int:
    """Return how many cores jobs can use at the most: all but the one that is kept for the manager."""
    return sum(_usable(resources, node) for node in resources.nodes)


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


def set_cores(node: Any, cores: List[str], *, binds: bool) -> None:
    """Give a node, which is not available yet, the cores that its agent has found, and can bind jobs to or not."""
    resources = node.resources
    resources._binding = resources._binding and binds  # the core knows of one for all nodes
    resources._total_cores += len(cores) - node.total
    resources._used_cores += len(cores) - node.free  # what is not available counts as used
    node._total_cores, node._core_ids, node._free_cores = len(cores), list(cores), list(cores)


def fits(resources: Resources, wanted: Any) -> bool:
    """Whether a job that wants so much could run if nothing else did."""
    per_node = _least(wanted.cores) if wanted.has_cores else 0
    if not wanted.has_nodes:
        return per_node <= usable_cores(resources)
    suitable = [
        node
        for node in resources.nodes
        if _usable(resources, node) >= (per_node or node.total)
        and (not wanted.has_crs or all(_has(node, kind) >= count for kind, count in wanted.crs.items()))
    ]
    return len(suitable) >= _least(wanted.nodes)


def _least(size: Any) -> int:
    return int(size.exact if size.is_exact() else size.min or 0)


def _usable(resources: Resources, node: Any) -> int:
    kept = resources._system_allocation
    return int(node.total) - (1 if kept is not None and kept.node is node else 0)


def _has(node: Any, kind: Any) -> int:
    return int(node.crs[kind].total_count) if node.crs and kind in node.crs else 0


def _kinds(resources: Resources) -> Dict[Any, None]:
    return dict.fromkeys(kind for node in resources.nodes for kind in node.crs or ())


def _consumables(resources: Resources, kind: Any) -> Any:
    return [_has(node, kind) for node in resources.nodes]
