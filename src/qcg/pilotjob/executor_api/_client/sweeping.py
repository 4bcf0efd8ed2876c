"""The end of jobs whose manager could not end them: their environment names its socket."""

from __future__ import annotations

import os
import signal

__all__ = ["STARTER", "kill_jobs_of", "lives"]

STARTER = "qcgpj-starter"
"""What lists of processes call the process that starts a manager's jobs."""


def lives(pid: int, name: str) -> bool:
    """Whether a process with that id and name lives."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            called, _, rest = file.read().rpartition(") ")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return called == f"{pid} ({name}" and rest[0] not in "ZX"  # it has ended, and nobody has asked yet how


def kill_jobs_of(sockets: str) -> None:
    """Kill every process of the jobs of the manager that has, or had, its sockets in that directory."""
    mark = b"QCG_PM_ZMQ_ADDRESS=ipc://" + os.fsencode(sockets) + b"/"
    while sum(_kill_if_marked(entry, mark) for entry in os.listdir("/proc") if entry.isdigit()):
        continue  # what they forked meanwhile bears the mark too


def _kill_if_marked(pid: str, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:
            if int(pid) == os.getpid() or mark not in environment.read():
                return False
        os.kill(int(pid), signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # ended meanwhile, or another user's: not a job of ours
    return True
