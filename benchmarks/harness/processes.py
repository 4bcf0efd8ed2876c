"""The processes of a round and what they cost, from /proc: the environments of the systems have no psutil."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import AbstractSet, Dict, Iterable, List, NamedTuple, Set

MARK = "QCGPJ_BENCHMARK"  # in the environment of every process of a round in an allocation, on every node
_PR_SET_CHILD_SUBREAPER = 36
_KILL_SECONDS = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process(NamedTuple):
    """A process at one moment; its CPU time is without that of the children it has waited for: without the jobs'."""

    pid: int
    parent: int
    name: str
    cpu: float
    rss: int


class Cost(NamedTuple):
    """What the client and the processes that serve it have used so far: seconds and bytes."""

    client_cpu: float
    services_cpu: float
    client_rss: int
    services_rss: int


def become_subreaper() -> None:
    """Adopt what outlives its parent: daemons are found among the descendants then."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def cost() -> Cost:
    """Return what this process and its services have used so far; there must be no job."""
    everything = _processes()
    pids = _marked(everything) if MARK in os.environ else _descendants(everything, os.getpid())
    services = [everything[pid] for pid in pids - {os.getpid()}]
    this = everything[os.getpid()]
    return Cost(this.cpu, sum(each.cpu for each in services), this.rss, sum(each.rss for each in services))


def descendants() -> Set[int]:
    """Return the processes that have come from this one and live."""
    return _descendants(_processes(), os.getpid())


def kill_descendants(spare: AbstractSet[int]) -> None:
    """Kill and collect all that has come from this process, which has to be a subreaper, but not `spare`.

    Raises:
        RuntimeError: something does not end, which would weigh on all that is measured later.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    while left := descendants() - spare:
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes that SIGKILL does not end: {left}")
        for pid in left:
            _kill(pid)
        time.sleep(0.01)
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            continue
    except ChildProcessError:
        return  # all are collected


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended meanwhile, which is what was wanted


def _processes() -> Dict[int, Process]:
    found = (_process(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return {process.pid: process for each in found for process in each}


def _process(pid: int) -> List[Process]:
    try:
        text = Path("/proc", str(pid), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []  # it has ended meanwhile
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    if fields[0] == "Z":
        return []
    cpu = (int(fields[11]) + int(fields[12])) / _TICKS
    return [Process(pid, int(fields[1]), head.partition("(")[2], cpu, int(fields[21]) * _PAGE)]


def _descendants(everything: Dict[int, Process], ancestor: int) -> Set[int]:
    children: Dict[int, List[int]] = {}
    for process in everything.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: Set[int] = set()
    looked_at = [ancestor]
    while looked_at:
        new = children.get(looked_at.pop(), [])
        found.update(new)
        looked_at += new
    return found


def _marked(everything: Dict[int, Process]) -> Set[int]:
    """Return the processes of this round on all nodes, which are all on this machine, and Slurm's daemons of its steps.

    Those write their title over their environment; but they are the parents of what they have started.
    """
    mark = f"{MARK}={os.environ[MARK]}".encode()
    marked = {pid for pid in everything if mark in _environment(pid)}
    return marked | {pid for pid in _ancestors(everything, marked) if everything[pid].name == "slurmstepd"}


def _environment(pid: int) -> List[bytes]:
    try:
        return Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []  # it has ended meanwhile, or it is another user's


def _ancestors(everything: Dict[int, Process], pids: Iterable[int]) -> Set[int]:
    found: Set[int] = set()
    for pid in pids:
        each = pid
        while each in everything and each not in found:
            found.add(each)
            each = everything[each].parent
    return found
