"""The cores that jobs can use on a node, found by the agent there: one truth for what is counted and what is bound to.

Executors that share an allocation, each with ``resources=`` for a part of it, must not bind their jobs to the same
cores. So an agent that takes a part only claims its cores, by a name for each that the kernel gives to one process at a
time and takes back when that ends; the guard of the agent holds them as well, so that they are kept until its jobs have
ended.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, Dict, List, NamedTuple, Optional

from qcg.pilotjob.executor_api._processes.cpus import cores_of, given_cpus, machine_cores, slots, usable_cpus

__all__ = ["CoresHere", "claim", "find_cores"]

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
