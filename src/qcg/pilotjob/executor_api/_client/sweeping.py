"""The end of jobs whose manager could not end them: their environment names its socket."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Dict, List, Tuple

__all__ = ["STARTER", "has_no_environment_yet", "kill_children", "kill_jobs_of", "lives", "parents"]

STARTER = "qcgpj-starter"
"""What lists of processes call the process that starts a manager's jobs."""

_SWEEP_SECONDS = 5.0
_ENDED = ("Z", "X")  # a zombie has ended, and nobody has asked yet how
_KERNEL_THREAD = 0x200000  # the flag PF_KTHREAD


def lives(pid: int, name: str) -> bool:
    """Whether a process with that id and name lives."""
    called, status = _status(pid)
    return called == name and status[0] not in _ENDED


def has_no_environment_yet(pid: int) -> bool:
    """Whether a process is on its way from one program to the next: it has neither's environment for a moment."""
    _, status = _status(pid)
    if status[0] in _ENDED:
        return False
    flags, end_of_environment = int(status[6]), int(status[48])
    return end_of_environment == 0 and not flags & _KERNEL_THREAD


def _status(pid: int) -> Tuple[str, List[str]]:
    """Return the name of a process, and what the kernel says of it beginning with its state."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            called, _, rest = file.read().rpartition(") ")
    except (FileNotFoundError, ProcessLookupError):
        return "", ["X"]
    return called.partition(" (")[2], rest.split()


def parents() -> Dict[int, int]:
    """Return the process id of the parent of each process."""
    statuses = {int(entry): _status(int(entry))[1] for entry in os.listdir("/proc") if entry.isdigit()}
    return {pid: int(status[1]) for pid, status in statuses.items() if len(status) > 1}


def kill_children() -> None:
    """Kill every child of this process, also one that has not become the program yet that it is to run."""
    for pid, parent in parents().items():
        if parent == os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def kill_jobs_of(sockets: str) -> None:
    """Kill every process of the jobs of the manager that has, or had, its sockets in that directory."""
    mark = b"QCG_PM_ZMQ_ADDRESS=ipc://" + os.fsencode(sockets) + b"/"
    deadline = time.monotonic() + _SWEEP_SECONDS
    while sum(_kill_if_marked(entry, mark) for entry in os.listdir("/proc") if entry.isdigit()):
        # what they forked meanwhile bears the mark too; what SIGKILL cannot end does not end later either
        if time.monotonic() > deadline:
            return


def _kill_if_marked(pid: str, mark: bytes) -> bool:
    """Return whether there may be more to kill."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
        if not environment and has_no_environment_yet(int(pid)):
            return True  # to be looked at again
        if int(pid) == os.getpid() or mark not in environment:
            return False
        os.kill(int(pid), signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # ended meanwhile, or another user's: not a job of ours
    return True
