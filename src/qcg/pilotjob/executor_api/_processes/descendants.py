"""Find and end what comes from this process, and what bears a job's mark."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import time
from typing import Dict, Iterator, List, Mapping, Set

import psutil

from qcg.pilotjob.executor_api._shared.proc import MARK, WITHIN, has_no_environment_yet, parents

__all__ = [
    "LINGER_SECONDS",
    "MARK",
    "all_marked",
    "become_subreaper",
    "kill_descendants",
    "kill_marked",
    "lives",
    "marked",
    "send",
    "signal_group",
]

_logger = logging.getLogger(__name__)

LINGER_SECONDS = 1.0  # for what SIGKILL cannot end, like a process in an uninterruptible wait
_PR_SET_CHILD_SUBREAPER = 36
_EXEC_SECONDS = 0.5  # the moment of an exec takes less than a thousandth of that, where there is a core for it


def kill_descendants() -> None:
    """Kill every process that comes from this one, which is a subreaper: without a child it has no descendant.

    Return when all have ended, or are those that SIGKILL cannot end: nothing may run on beside what follows.
    """
    deadline = time.monotonic() + LINGER_SECONDS
    while _has_child():
        for process in _descendants():
            send(process, signal.SIGKILL)
        _collect_ended()
        if time.monotonic() > deadline:
            _logger.warning("processes do not end after SIGKILL: %s", [process.pid for process in _descendants()])
            return
        time.sleep(0.001)


def _collect_ended() -> None:
    with contextlib.suppress(ChildProcessError):  # none is left
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            continue


def _has_child() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def kill_marked(**marks: str) -> None:
    """Kill every process on this node that has all the `marks` in its environment, whoever has started it."""
    deadline = time.monotonic() + LINGER_SECONDS
    while _kill_once(marks) and time.monotonic() < deadline:
        continue  # what they forked meanwhile bears the marks too


def _kill_once(marks: Mapping[str, str]) -> bool:
    found = False
    for process in psutil.process_iter():
        env = _environment(process)
        if all(env.get(name) == value for name, value in marks.items()):
            found = True
            send(process, signal.SIGKILL)
    return found


def become_subreaper() -> None:
    """Adopt every descendant that outlives its parent."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")


def signal_group(pid: int, number: int) -> bool:
    """Send a signal to a group, and return whether there was one; the signal 0 does nothing else."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        if number:
            _logger.warning("process group %d belongs to another user and cannot be sent signal %d", pid, number)
    return True


def marked(marks: Set[str]) -> Dict[str, List[psutil.Process]]:
    """Return for each of the marks the descendants that have it."""
    found: Dict[str, List[psutil.Process]] = {mark: [] for mark in marks}
    for process in _descendants() if marks else ():
        for mark in marks & _marks_of(process):
            found[mark].append(process)
    return found


def all_marked(marks: Set[str]) -> Dict[str, List[psutil.Process]]:
    """Return for each of the marks the living processes on this node that have it, whoever has started them."""
    found: Dict[str, List[psutil.Process]] = {mark: [] for mark in marks}
    for process in psutil.process_iter():
        for mark in marks & _marks_of(process):
            if lives(process):
                found[mark].append(process)
    return found


def _marks_of(process: psutil.Process) -> Set[str]:
    """Return the mark of the job whose process it is, and those of the jobs that this one is within.

    A process of no job has none: an empty mark, as srun's has in the manager, would find all of these.
    """
    env = _environment(process)
    return {mark for mark in [env.get(MARK), *env.get(WITHIN, "").split()] if mark}


def _descendants() -> Iterator[psutil.Process]:
    """Yield what comes from this process; psutil leaves out what comes from one that ends while it looks."""
    children: Dict[int, List[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    unseen = [os.getpid()]
    while unseen:
        below = children.get(unseen.pop(), [])
        unseen += below
        for pid in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                yield psutil.Process(pid)


def _environment(process: psutil.Process) -> Mapping[str, str]:
    """Return the environment of a process; none when it has ended, or is another user's and out of our reach."""
    try:
        env: Mapping[str, str] = process.environ()
        if env:
            return env
        deadline = time.monotonic() + _EXEC_SECONDS
        while has_no_environment_yet(process.pid) and time.monotonic() < deadline:
            time.sleep(0.0005)
        return process.environ()  # type: ignore[no-any-return]  # psutil is untyped
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return {}


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    try:
        process.send_signal(number)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return  # it has ended, or it is another user's and out of our reach


def lives(process: psutil.Process) -> bool:
    """Return whether a process has not ended; one that has, and waits to be asked how, does not live."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
