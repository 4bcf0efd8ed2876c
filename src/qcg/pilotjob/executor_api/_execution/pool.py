"""The nodes that jobs can still use, with what is counted on them: cores, and consumables like GPUs.

A consumable is a kind of thing of which each node has a number, and a job the same number on each of its nodes. What is
counted, what fits and what is free is the same for all kinds; what a job finds of its part is the matter of the kind.
Nothing is known of a node's consumables before its agent has told of them.

The core gives ``numCores`` without ``numNodes`` wherever cores are free, so that a program got cores of nodes on which
none of it ran. Here such a request means:

- one process (the models ``default`` and ``threads``): all cores on one node;
- MPI: on the first node that has room for all ranks; when none has at that moment, over the nodes in their order, each
  rank with its cores on one node.
"""

from __future__ import annotations

import math
from typing import Any, Dict, Iterable, List, Tuple

from qcg.pilotjob.allocation import Allocation
from qcg.pilotjob.errors import InvalidResourceSpec, NotSufficientResources
from qcg.pilotjob.joblist import Job, JobResources, ResourceSize
from qcg.pilotjob.resources import Resources
from qcg.pilotjob.scheduleralgo import SchedulerAlgorithm

from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.rules import MPI_MODELS

__all__ = ["RANKS", "PlacingAlgorithm", "Size", "kind_of", "place", "ranks_of", "size_of"]

Size = Tuple[Any, ...]
"""What a job asks for, its least number of cores first."""

_known_sizes: Dict[Size, Size] = {}
_kinds: Dict[Size, int] = {}


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
    resources._max_crs, resources._total_crs = {}, {}
    for node in resources.nodes:
        _count(resources, node)


def usable_on(resources: Resources, node: Any) -> int:
    """Return how many cores of `node` jobs can use at the most."""
    kept = resources._system_allocation
    return int(node.total) - (1 if kept is not None and kept.node is node else 0)


def set_cores(node: Any, cores: List[str], *, binds: bool) -> None:
    """Give a node, which is not available yet, the cores that its agent has found, and can bind jobs to or not."""
    resources = node.resources
    resources._binding = resources._binding and binds  # the core knows of one for all nodes
    resources._total_cores += len(cores) - node.total
    resources._used_cores += len(cores) - node.free  # what is not available counts as used
    node._total_cores, node._core_ids, node._free_cores = len(cores), list(cores), list(cores)


def provide(node: Any, consumables: Iterable[Any]) -> None:
    """Add to a node what jobs can have of it beside its cores: objects like the core's CR and CRBind."""
    node._crs = {one.crtype: one for one in consumables}
    if node.resources is not None:  # it is, unless the node was lost meanwhile
        _count(node.resources, node)


def order_nodes(resources: Resources, names: Iterable[str]) -> None:
    """Put nodes that have more consumables behind the others, and those that have the same in the order of `names`.

    Jobs are given the first nodes that they fit on. So those that need little, or nothing, leave what other nodes have
    more of to the jobs that need it, while they can.
    """
    places = {name: place for place, name in enumerate(names)}
    resources._nodes.sort(key=lambda node: (sum(consumables_of(node).values()), places[node.name]))


def most_of(resources: Resources, kind: Any) -> float:
    """Return the most that a node has of a consumable; infinite while it is not known of each node."""
    return max((_has(node, kind) for node in resources.nodes), default=0)


def consumables_of(node: Any) -> Dict[str, int]:
    """Return how much a node has of each consumable, by its name in descriptions."""
    return {kind.name.lower(): int(one.total_count) for kind, one in (node.crs or {}).items()}


def knows_consumables(resources: Resources) -> bool:
    """Return whether all nodes have told what they have beside cores, or never will."""
    return not any(_is_unknown(node) for node in resources.nodes)


def why_not(resources: Resources, wanted: Any) -> str:
    """Return why a job that wants so much could not run even if nothing else did, an empty string when it could.

    It is what comes behind "the job".
    """
    for kind, count in (wanted.crs if wanted.has_crs else {}).items():
        most = most_of(resources, kind)
        if count > most:
            return f"asks for {count} {_named(kind, count)} on a node; no node has more than {most:g}"
    if _fits(resources, wanted):
        return ""
    widths = [usable_on(resources, node) for node in resources.nodes]
    with_more = "".join(f", {count} {_named(kind, count)} on each node" for kind, count in (wanted.crs or {}).items())
    if with_more or not wanted.has_nodes or not wanted.has_cores:
        return f"asks for {wanted.get_min_num_cores()} cores{with_more}; jobs can use {sum(widths)} here"
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
        and all(_has(node, kind) >= count for kind, count in (wanted.crs or {}).items())
    ]
    return len(suitable) >= _least(wanted.nodes)


class Algorithm(SchedulerAlgorithm):  # type: ignore[misc]  # the core is untyped
    """The core's algorithm, where consumables are concerned.

    Mends that a request for whole nodes fails where a free node has too few of a consumable, and that a request for one
    of which no node is known to have any raises a KeyError. Can go when the core looks before it takes.
    """

    @override
    def allocate_job(self, reqs: Any) -> Any:
        if reqs.has_crs:
            free = [node for node in self.resources.nodes if node.available and _has_free(node, reqs.crs)]
            if len(free) < _least(reqs.nodes):
                return None
        return super().allocate_job(reqs)

    @override
    def _allocate_entire_nodes(self, min_nodes: int, max_nodes: int, crs: Any) -> Any:
        allocation = Allocation()
        for node in self.resources.nodes:
            part = node.allocate_exact(node.total, crs) if node.available and node.used == 0 else None
            if part is not None:
                allocation.add_node(part)
            if len(allocation.nodes) == max_nodes:
                break
        if len(allocation.nodes) >= min_nodes:
            return allocation
        allocation.release()
        return None


def _named(kind: Any, count: int) -> str:
    if kind.name == "GPU":
        return "GPU" if count == 1 else "GPUs"
    return str(kind.name).lower()


def _least(size: Any) -> int:
    return int(size.exact if size.is_exact() else size.min or 0)


def _is_unknown(node: Any) -> bool:
    return node.crs is None and not node.available


def _has(node: Any, kind: Any) -> float:
    if _is_unknown(node):
        return math.inf
    return int(node.crs[kind].total_count) if node.crs and kind in node.crs else 0


def _has_free(node: Any, wanted: Dict[Any, int]) -> bool:
    crs = node.crs or {}
    return all(kind in crs and crs[kind].available >= count for kind, count in wanted.items())


def _count(resources: Resources, node: Any) -> None:
    for kind, one in (node.crs or {}).items():
        resources._max_crs[kind] = max(resources._max_crs.get(kind, 0), one.total_count)
        resources._total_crs[kind] = resources._total_crs.get(kind, 0) + one.total_count


RANKS = "ranks"
"""The key of ``model_opts`` that has the number of ranks: on each node when the job asks for nodes, else in all."""


def ranks_of(execution: Any) -> int:
    """Return how many ranks a job asks for, 0 when it gets one for each core.

    Raises:
        InvalidResourceSpec: that is no number.
    """
    ranks = (execution.model_opts or {}).get(RANKS) or 0
    if type(ranks) is not int or ranks < 0:
        raise InvalidResourceSpec(f"the number of ranks is {ranks!r}")
    return ranks


def place(job: Job, resources: Resources) -> None:
    """Write into what `job` asks for where it may run.

    Raises:
        InvalidResourceSpec: no node or number of nodes can give what is asked for, whatever the allocation.
    """
    wanted = job.resources
    for size, what in ((wanted.cores, "cores"), (wanted.nodes, "nodes")):
        _refuse_open_range(size, what, in_array=job.has_iterations)
    ranks = ranks_of(job.execution)
    if ranks and job.execution.model not in MPI_MODELS:
        raise InvalidResourceSpec(f"{ranks} ranks are of an MPI model, not of {job.execution.model or 'default'!r}")
    wanted.cores_per_rank = _cores_per_rank(wanted, ranks)
    is_spread = wanted.has_nodes or job.execution.model in MPI_MODELS or wanted.cores.exact == 1
    if not is_spread and len(resources.nodes) > 1:
        wanted._nodes = ResourceSize(exact=1)


def _refuse_open_range(size: Any, what: str, *, in_array: bool) -> None:
    if size is None or size.is_exact() or (size.scheduler is not None and in_array):
        return
    if size.min is None or size.max is None:
        raise InvalidResourceSpec(f"the range of {what} has no end: it needs both 'min' and 'max'")


def _cores_per_rank(wanted: JobResources, ranks: int) -> int:
    if not ranks or not wanted.has_cores:
        return 1
    if not wanted.cores.is_exact() or wanted.cores.exact % ranks:
        raise InvalidResourceSpec(f"{ranks} ranks cannot share the cores equally")
    return int(wanted.cores.exact // ranks)


class PlacingAlgorithm(Algorithm):
    """The core's algorithm, for cores on any nodes and for sizes that an array's scheduler chooses.

    Mends that the cores of one rank may be on two nodes, that an array on one node may get more cores than a node has,
    and that a range without an end fails the job. Can go when the core knows of ranks.
    """

    @override
    def allocate_job(self, reqs: Any) -> Any:
        if reqs.has_nodes or not reqs.has_cores or reqs.has_crs:
            return super().allocate_job(self._possible(reqs))
        least, most = (reqs.cores.exact,) * 2 if reqs.cores.is_exact() else reqs.cores.range
        if least is None or most is None:
            raise InvalidResourceSpec("the range of cores has no end: it needs both 'min' and 'max'")
        return self._on_any_nodes(least, most, getattr(reqs, "cores_per_rank", 1))

    def _possible(self, reqs: Any) -> Any:
        """Return what is asked for, with no more cores on each node than nodes have.

        Only an array's scheduler can choose too many: it shares out the cores of all nodes.
        """
        is_chosen = not hasattr(reqs, "cores_per_rank")
        if not (is_chosen and reqs.has_cores and reqs.has_nodes and reqs.cores.is_exact() and reqs.nodes.is_exact()):
            return reqs
        widths = sorted((usable_on(self.resources, node) for node in self.resources.nodes), reverse=True)
        possible = widths[reqs.nodes.exact - 1] if reqs.nodes.exact <= len(widths) else 0
        if not 0 < possible < reqs.cores.exact:
            return reqs
        return JobResources(**{**reqs.to_dict(), "numCores": possible})

    def _on_any_nodes(self, least: int, most: int, piece: int) -> Any:
        nodes = [node for node in self.resources.nodes if node.available]
        if self.resources.total_cores < least:
            raise NotSufficientResources(f"{least} exceeds available number of cores ({self.resources.total_cores})")
        parts: List[Tuple[Any, int]] = []
        room_for_all = next((node for node in nodes if node.free >= most), None)
        if room_for_all is not None:
            parts.append((room_for_all, most))
        else:
            left = most
            for node in nodes:
                count = min(left, node.free // piece * piece)
                if count:
                    parts.append((node, count))
                    left -= count
            if most - left < least:
                return None
        allocation = Allocation()
        for node, count in parts:
            allocation.add_node(node.allocate_exact(count))
        return allocation


def size_of(resources: Any) -> Size:
    """Return what a job asks for, its least number of cores first; jobs of one size have the same object."""
    kinds = sorted((kind.name, count) for kind, count in resources.crs.items()) if resources.has_crs else ()
    piece = getattr(resources, "cores_per_rank", 1)  # ranks of many cores may not fit where those of few do
    size = (resources.get_min_num_cores() or 0, _extent(resources.cores), _extent(resources.nodes), piece, *kinds)
    return _known_sizes.setdefault(size, size)  # one for all jobs that have it


def kind_of(resources: Any) -> int:
    """Return the number of all that asks for exactly so many cores and nothing else, 0 for other requests."""
    size = size_of(resources)
    _, cores, nodes, _, *kinds = size
    if cores is None or cores[0] is None or nodes is not None or kinds:
        return 0
    return _kinds.setdefault(size, len(_kinds) + 1)


def _extent(size: Any) -> Any:
    return None if size is None else (size.exact, size.min, size.max)
