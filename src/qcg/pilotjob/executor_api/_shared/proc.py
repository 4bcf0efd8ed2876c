"""The end of jobs whose manager could not end them: their environment names its socket."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from typing import Callable, Dict, Iterator, List, Mapping, Tuple

__all__ = [
    "ADDRESS",
    "AGENT_OF",
    "MARK",
    "STARTER",
    "WITHIN",
    "enclosing",
    "has_no_environment_yet",
    "kill_children",
    "kill_children_of_thread",
    "kill_jobs_of",
    "kill_starters_of",
    "lives",
    "mark_starter",
    "parents",
]

STARTER = "qcgpj-starter"
"""What lists of processes call the process that starts a manager's jobs."""
AGENT_OF = "QCGPJ_AGENT_OF"
"""The variable in an agent's environment that names its manager's directory of sockets; its jobs do not have it."""
ADDRESS = "QCG_PM_ZMQ_ADDRESS"
"""The variable in a job's environment that names its manager's socket; the core sets it."""
MARK = "QCG_PM_STEP_ID"
"""The variable in a job's environment that tells it from all others; the core gives each iteration one of its own."""
WITHIN = "QCGPJ_WITHIN"
"""The variable of jobs of an executor within a job: the `ADDRESS` and `MARK` of each job that they are within."""

_SWEEP_SECONDS = 5.0
_ENDED = ("Z", "X")  # a zombie has ended, and nobody has asked yet how
_KERNEL_THREAD = 0x200000  # the flag PF_KTHREAD


def lives(pid: int, name: str) -> bool:
    """Return whether a process with that id and name lives."""
    called, status = _status(pid)
    return called == name and status[0] not in _ENDED


def has_no_environment_yet(pid: int) -> bool:
    """Return whether a process is between two programs: for a moment it has the environment of neither."""
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
    statuses = {pid: _status(pid)[1] for pid in _processes()}
    return {pid: int(status[1]) for pid, status in statuses.items() if len(status) > 1}


def kill_children() -> None:
    """Kill every child of this process, also one that has not become the program yet that it is to run."""
    for pid, parent in parents().items():
        if parent == os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def kill_children_of_thread(thread: int) -> None:
    """Kill every child that a thread of this process has started, also one that is not a program yet.

    Where the kernel does not tell whose children they are (CONFIG_PROC_CHILDREN), kill none.
    """
    with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{thread}/children") as file:
        for pid in map(int, file.read().split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def kill_jobs_of(sockets: str) -> List[int]:
    """Kill every process of the jobs and agents of the manager that has, or had, its sockets in that directory.

    What they fork meanwhile bears the mark too, and so do the jobs of an executor within such a job. Return the ids of
    what does not end.
    """
    marks = [f"{ADDRESS}=ipc://{sockets}/", f"{AGENT_OF}={sockets}\0"]
    encoded = [os.fsencode(mark) for mark in marks]
    within = re.compile(os.fsencode(rf"(\A|\0){WITHIN}=([^\0]* )?ipc://{re.escape(sockets)}/"))
    return _kill_until_gone(lambda pid: _is_marked(pid, encoded, within))


def enclosing(environment: Mapping[str, str]) -> str:
    """Return what `WITHIN` is for the jobs of a manager that has that environment; nothing where it is in no job."""
    return " ".join(filter(None, [environment.get(WITHIN), environment.get(ADDRESS), environment.get(MARK)]))


def kill_starters_of(sockets: str) -> List[int]:
    """Kill the process that starts the jobs of the manager that has, or had, its sockets in that directory.

    What it has forked, and is not a program yet, is killed too: that bears no mark of a job, but still has the files of
    the starter. Return the ids of what does not end.
    """
    return _kill_until_gone(lambda pid: _has_open(pid, _starter_file(sockets)))


def mark_starter(sockets: str) -> None:
    """Mark this process, and what it forks until that is a program, as the starter of that manager."""
    os.memfd_create(_starter_file(sockets))


def _starter_file(sockets: str) -> str:
    return f"{STARTER}:{os.path.basename(sockets)}"


def _kill_until_gone(is_meant: Callable[[int], bool]) -> List[int]:
    deadline = time.monotonic() + _SWEEP_SECONDS
    while True:
        left = [pid for pid in _processes() if _kill_if(is_meant, pid)]
        if not left or time.monotonic() > deadline:  # what SIGKILL cannot end does not end later either
            return left
        time.sleep(0.001)


def _kill_if(is_meant: Callable[[int], bool], pid: int) -> bool:
    """Return whether there may be more to kill."""
    try:
        if pid == os.getpid() or not is_meant(pid):
            return False
        if not has_no_environment_yet(pid):
            os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # ended meanwhile, or another user's: not a job of ours
    return True


def _is_marked(pid: int, marks: List[bytes], within: "re.Pattern[bytes]") -> bool:
    """Return whether a process has one of the marks in its environment, or has no environment yet."""
    with open(f"/proc/{pid}/environ", "rb") as file:
        environment = file.read()
    if not environment:
        return has_no_environment_yet(pid)
    return any(mark in environment for mark in marks) or within.search(environment) is not None


def _has_open(pid: int, name: str) -> bool:
    """Return whether a process has the file of that name in memory open."""
    directory = f"/proc/{pid}/fd"
    for number in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            if os.readlink(f"{directory}/{number}").startswith(f"/memfd:{name} "):
                return True
    return False


def _processes() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
