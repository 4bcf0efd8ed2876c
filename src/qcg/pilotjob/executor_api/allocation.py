"""Ask a scheduler for an allocation, from a program on the login node: the request, and what has come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Callable, Mapping, Optional, Tuple, Union

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._description.walltimes import Walltime

__all__ = ["Allocation", "AllocationStatus"]


@dataclass(frozen=True)
class Allocation:
    """An allocation that an executor gets from the scheduler by itself.

    The scheduler is spoken to by psij-python (``pip install 'qcg-pilotjob-executor-api[allocations]'``). The executor's
    `wd` has to be in a file system that this machine and the nodes share.

    Args:
        nodes: how many nodes; more than one with Slurm only, elsewhere see `count`.
        walltime: how long: ``90m``, ``1h30m``, ``01:30:00``, ``1-12:00:00``, a ``timedelta``, or a number, which is
            seconds.
        queue: the partition or queue; by default the scheduler's default.
        account: whose core-hours are used; by default the scheduler's default.
        cores_per_node: cores of each node that jobs get; by default whole nodes are asked for, with all their cores.
        scheduler: ``slurm``, ``pbs``, ``pbs_classic``, ``lsf``, or ``local`` (processes of this machine); by default
            the one whose command for submissions is found here.
        reservation: of the scheduler's.
        options: more for the scheduler, by psij's names: ``{"slurm.qos": "debug"}``; with Slurm also without a value:
            ``{"slurm.requeue": True}``. Those of other schedulers have no effect.
        setup: lines of shell that are run on the first node before Python is started there, like ``module load``.
        python: the interpreter on the nodes, with this package in it; by default the one that runs this program, and
            what can be imported here can be there.
        renew: how many times another allocation is asked for when one has ended and jobs are left. What had ended
            stays as it is, and all else goes on, see `rerun`.
        rerun: whether jobs that ran when an allocation ended run again, from their beginning, in the next one;
            otherwise they are FAILED.
        count: how many allocations like this at a time. Jobs go where cores are free.
        queue_timeout: seconds that an allocation may wait in the queue.
        start_timeout: seconds within which the manager has to be ready when the allocation has begun.
        silence: seconds for which the manager goes on when it cannot hear the client, because the network, this
            machine or the program is gone. After that it ends all jobs, and gives the allocation back.
        idle: seconds after the end of the last job until a detached manager gives the allocation back.
        poll: seconds between two looks at the scheduler's queue.
        tunnel: where to connect to instead, for a port on a node that can be reached through a tunnel only: called
            with host and port, it returns host and port. It is called in a thread, for each of the node's names and
            addresses and for two ports.
    """

    nodes: int = 1
    walltime: Walltime = "1h"
    queue: Optional[str] = None
    account: Optional[str] = None
    cores_per_node: Optional[int] = None
    scheduler: Optional[str] = None
    reservation: Optional[str] = None
    options: Mapping[str, Union[str, float, bool, None]] = field(default_factory=dict)
    setup: str = ""
    python: Optional[str] = None
    renew: int = 0
    rerun: bool = True
    count: int = 1
    queue_timeout: Optional[float] = None
    start_timeout: float = 120.0
    silence: float = 300.0
    idle: float = 60.0
    poll: float = 10.0
    tunnel: Optional[Callable[[str, int], Tuple[str, int]]] = None


@dataclass(frozen=True)
class AllocationStatus:
    """Tells where an allocation stands.

    Attributes:
        state: ``ASKED`` before the scheduler has taken it, ``QUEUED``, ``STARTING`` as long as the manager is not
            ready, ``RUNNING``, ``LAPSED`` when it has ended and another one is asked for when there is work,
            ``ENDED``, ``DETACHED``.
        id: the scheduler's name for it.
        number: which of the executor's allocations this is, counted from 1 with those that were renewed.
        position: its place in the queue, where the scheduler tells; 1 is the first.
        expected: when the scheduler expects it to start, where it tells.
        until: when it will end, once it has started.
        nodes: how many there are, once it runs.
        cores: how many jobs can use, once it runs.
        message: why it has ended, or what the scheduler says.
    """

    state: str = "ASKED"
    id: str = ""
    number: int = 1
    position: Optional[int] = None
    expected: Optional[datetime] = None
    until: Optional[datetime] = None
    nodes: Optional[int] = None
    cores: Optional[int] = None
    message: str = ""
