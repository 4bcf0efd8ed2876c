"""The cores and GPUs that jobs can use on the machine of this process.

Executors that share an allocation, each with ``resources=`` for a part of it, must not bind their jobs to the same
cores. So an agent that takes a part only claims its cores, by a name for each that the kernel gives to one process at a
time and takes back when that ends; the guard of the agent holds them as well, so that they are kept until its jobs have
ended.

A GPU is a dictionary: for each of the variables that tell of it, the value that stands for this one. The values are
kept as they are, since they may be numbers, UUIDs or names of slices.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from qcg.pilotjob.config import Config
from qcg.pilotjob.localres import parse_local_resources
from qcg.pilotjob.resources import Node, Resources, ResourcesType

from qcg.pilotjob.executor_api._processes import cpus
from qcg.pilotjob.executor_api._processes.cpus import cores_of, cpu_quota, given_cpus, machine_cores, slots, usable_cpus

__all__ = [
    "HIDES_ALL",
    "PLACE",
    "VARIABLES",
    "CoresHere",
    "Gpu",
    "LocalCPUs",
    "claim",
    "find_cores",
    "gpus_here",
    "gpus_in",
    "local_cpus",
    "resources_of_machine",
]

_claims: List[socket.socket] = []  # held until this process ends


class CoresHere(NamedTuple):
    """The cores of a node.

    `names` are the CPUs of each core, like ``0,4``; a core that jobs are not bound to has a number in place of them.
    They have `cpus` of the CPUs of the `machine`. `taken` are those of them that another executor has claimed.
    """

    names: List[str]
    binds: bool
    cpus: int
    machine: int
    taken: List[str]

    @property
    def report(self) -> Dict[str, Any]:
        """The same for the manager."""
        return {
            "cores": self.names,
            "binds": self.binds,
            "cpus": self.cpus,
            "machine": self.machine,
            "taken": self.taken,
        }


def find_cores(
    *,
    numbers: Optional[List[int]],
    count: int,
    within: Optional[List[int]],
    threads_per_core: int,
    most: Optional[int] = None,
    place: str = "",
) -> CoresHere:
    """Return the cores of this machine that a scheduler has given to the allocation.

    `count` is how many CPUs it says, `numbers` which, `within` where to look, if not everywhere, and `threads_per_core`
    how many jobs may share a core. Where the CPUs cannot be told apart there are `count` cores, and jobs are not bound.
    When there is a `most`, no more are claimed in `place`, which stands for this node of this allocation.
    """
    machine = machine_cores()
    usable = usable_cpus()
    if within is not None:
        usable = sorted(set(usable) & set(within))
        if len(cores_of(usable, machine)) <= count:  # of whole cores, whose threads are its too
            count = len(usable)
    cpus = given_cpus(usable, machine, numbers, count)
    found = slots(cores_of(cpus, machine), threads_per_core) if cpus else [(number,) for number in range(count)]
    names = [",".join(map(str, core)) for core in found]
    here = CoresHere(names, bool(cpus), len(cpus), sum(map(len, machine)), [])
    if most is None:
        return here
    claimed: List[str] = []
    taken: List[str] = []
    for name in names:
        if len(claimed) < most:
            (claimed if claim(f"{place}-{name}") else taken).append(name)
    return here._replace(names=claimed, taken=taken)


def claim(name: str) -> bool:
    """Take the name of a core, or of another thing, in Linux's abstract namespace of sockets; return if it was free."""
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.bind(f"\0qcgpj-core-{name}")
    except OSError as error:
        holder.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    _claims.append(holder)
    return True


Gpu = Dict[str, str]

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
    "SLURM_STEP_GPUS",
)
"""All that may tell of GPUs; a GPU is called by its value in the first of those that its node has."""

_NO_GPU = frozenset(("", "-1", "9999", "NoDevFiles", "none", "void"))
HIDES_ALL = {"HIP_VISIBLE_DEVICES": "-1", "GPU_DEVICE_ORDINAL": "-1", "ZE_AFFINITY_MASK": "9999"}
"""By variable, the value with which no GPU is seen; of those that are not here it is an empty one.

An empty ``ZE_AFFINITY_MASK`` stands for all devices, and so do the other two for programs with HIP.
"""
_COUNTED = ("HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
"""Variables that choose among the devices that ``ROCR_VISIBLE_DEVICES`` leaves, by their places there."""
PLACE = "*"  # the value in such a variable: its place among the GPUs that the job has


def gpus_in(environment: Mapping[str, str]) -> List[Gpu]:
    """Return the GPUs that an environment tells of, in the order in which it names them.

    A variable that tells of another number of GPUs than the first one is left alone.
    """
    lists = {
        name: [text for text in map(str.strip, environment[name].split(",")) if text not in _NO_GPU]
        for name in VARIABLES
        if environment.get(name)
    }
    lists = {name: texts for name, texts in lists.items() if texts}
    if not lists:
        return []
    if "ROCR_VISIBLE_DEVICES" in lists:
        # a program with HIP takes CUDA_VISIBLE_DEVICES for HIP_VISIBLE_DEVICES
        by_place = _COUNTED if not _is_amd() else (*_COUNTED, "CUDA_VISIBLE_DEVICES")
        lists.update({name: [PLACE] * len(lists[name]) for name in by_place if name in lists})
    count = len(next(texts for texts in lists.values() if texts[0] != PLACE))
    lists = {name: texts for name, texts in lists.items() if len(texts) == count}
    return [dict(zip(lists, values)) for values in zip(*lists.values())]


def _is_amd() -> bool:
    return os.path.exists("/dev/kfd") and not os.path.exists("/dev/nvidiactl")


def gpus_here(environment: Mapping[str, str], cores: CoresHere, granted: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the GPUs that `environment` tells of, and the variables that do so, for the manager.

    Executors that share the allocation claim what they use in a place that `granted` names. There are at most as many
    then as go with the part of the CPUs that this agent has claimed, and none that another executor has.
    """
    gpus = gpus_in(environment)
    variables = sorted({name for gpu in gpus for name in gpu})
    if "place" in granted:
        cpus = sum(len(name.split(",")) for name in cores.names)
        most = math.ceil(len(gpus) * cpus / (cores.cpus or granted["count"]))
        claimed: List[Gpu] = []
        for number, gpu in enumerate(gpus):
            if len(claimed) < most and claim(f"{granted['place']}-gpu-{number}"):
                claimed.append(gpu)
        gpus = claimed
    return {"usable": gpus, "variables": variables}


_logger = logging.getLogger(__name__)


class LocalCPUs(NamedTuple):
    """Return how many CPUs of this machine are used, of how many, and why not all; nothing when all are."""

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
    here = local_cpus(exclusive=exclusive)
    if here.note:
        _logger.info(here.note)
        tell(here.note)
    return Resources(ResourcesType.LOCAL, [Node(socket.gethostname(), here.number, 0)])


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
    share = None if exclusive else cpus.share(os.environ if environ is None else environ)
    if share is not None:
        limits.append((max(1, share[0]), f"{share[1]} (resources= gives another number)"))
    number = min(limit for limit, _ in limits)
    if number >= machine:
        return LocalCPUs(machine, machine, "")
    return LocalCPUs(number, machine, " and ".join(reason for limit, reason in limits if limit == number))
