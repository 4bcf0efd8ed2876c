"""What jobs can use when no Slurm allocation is used: the CPUs of this machine that this process may use."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from qcg.pilotjob.config import Config
from qcg.pilotjob.localres import parse_local_resources
from qcg.pilotjob.resources import Node, Resources, ResourcesType

from qcg.pilotjob.executor_api._processes import batch_systems
from qcg.pilotjob.executor_api._processes.cgroups import cpu_quota
from qcg.pilotjob.executor_api._processes.cpus import usable_cpus

_logger = logging.getLogger(__name__)

__all__ = ["LocalCPUs", "local_cpus", "resources_of_machine"]


class LocalCPUs(NamedTuple):
    """How many CPUs of this machine are used, of how many, and why not all, in words; nothing when all are."""

    number: int
    machine: int
    reason: str

    @property
    def note(self) -> str:
        """What the user is to be told, an empty string when the whole machine is used."""
        return f"using {self.number} of {self.machine} CPUs: {self.reason}" if self.reason else ""


def resources_of_machine(config: Dict[Any, Any], tell: Callable[[str], None], *, exclusive: bool = False) -> Resources:
    """Return the nodes that the configuration declares, or else this machine, with the CPUs that `local_cpus` counts.

    In place of the core's function, which counts all CPUs of the machine. Calls `tell` when fewer of them are used.
    """
    if Config.EXECUTION_NODES.get(config):
        return parse_local_resources(config)
    cpus = local_cpus(exclusive=exclusive)
    if cpus.note:
        _logger.info(cpus.note)
        tell(cpus.note)
    return Resources(ResourcesType.LOCAL, [Node(socket.gethostname(), cpus.number, 0)])


def local_cpus(
    root: Path = Path("/"), environ: Optional[Mapping[str, str]] = None, *, exclusive: bool = False
) -> LocalCPUs:
    """Count the CPUs (hardware threads) that this process may use: what affinity, quota and batch system all allow.

    A part of a CPU in a quota does not count, but one CPU is always used. The share of a batch system's job is not
    looked at when that job has the machine to itself (`exclusive`).
    """
    affinity, quota, counted = len(usable_cpus()), cpu_quota(root), os.cpu_count()
    machine = max(os.sysconf("SC_NPROCESSORS_ONLN"), affinity)
    limits: List[Tuple[int, str]] = [(affinity, f"the affinity of this process (taskset, cpuset) has {affinity}")]
    if counted is not None and counted < machine:  # from Python 3.13 on users can say so
        limits.append((counted, f"PYTHON_CPU_COUNT is {counted}"))
    if quota is not None:
        limits.append((max(1, int(quota)), f"the cgroup's quota is {quota:.4g}"))
    share = None if exclusive else batch_systems.share(os.environ if environ is None else environ)
    if share is not None:
        limits.append((max(1, share[0]), f"{share[1]} (resources= gives another number)"))
    number = min(limit for limit, _ in limits)
    if number >= machine:
        return LocalCPUs(machine, machine, "")
    return LocalCPUs(number, machine, " and ".join(reason for limit, reason in limits if limit == number))
