"""Where a job may run: on one node when it is one process, on several when its ranks find each other by MPI.

The core gives ``numCores`` without ``numNodes`` wherever cores are free, so that a program got cores of nodes on which
none of it ran. Here such a request means:

- one process (the models ``default`` and ``threads``): all cores on one node;
- MPI: on the first node that has room for all ranks; when none has at that moment, over the nodes in their order, each
  rank with its cores on one node.
"""

from __future__ import annotations

from typing import Any, List, Tuple

from qcg.pilotjob.allocation import Allocation
from qcg.pilotjob.errors import InvalidResourceSpec, NotSufficientResources
from qcg.pilotjob.joblist import Job, JobResources, ResourceSize
from qcg.pilotjob.resources import Resources

from qcg.pilotjob.executor_api._execution import pool
from qcg.pilotjob.executor_api._shared.overriding import override

__all__ = ["MPI_MODELS", "RANKS", "Algorithm", "place", "ranks_of"]

MPI_MODELS = ("openmpi", "intelmpi", "srunmpi")
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


class Algorithm(pool.Algorithm):
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
        widths = sorted((pool.usable_on(self.resources, node) for node in self.resources.nodes), reverse=True)
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
