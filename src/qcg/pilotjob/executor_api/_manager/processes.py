"""The jobs' processes: started in groups of their own, followed to the last one, ended together.

The manager process is the subreaper of all that it starts: a process that outlives its parent becomes the manager's
child. So the end of every one of them is a SIGCHLD here, and nothing has to be polled for; and what a job starts in
another group or session is still found among the manager's descendants, by the mark in its environment.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional

import psutil

_logger = logging.getLogger(__name__)

MARK = "QCG_PM_STEP_ID"  # the core gives each job iteration one of its own
_PR_SET_CHILD_SUBREAPER = 36
# A group is all that is needed, and a session costs: where Linux shares the cores among sessions, each job that starts
# in one of its own has to queue for its first moment, which on a busy node halves the number of jobs a second.
_OWN_GROUP: Dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
_LINGER_SECONDS = 1.0  # for what SIGKILL cannot end, like a process in an uninterruptible wait


@dataclass
class _Child:
    process: "subprocess.Popen[bytes]"
    on_exit: Callable[[int], None]
    mark: str
    returncode: Optional[int] = None
    kill_timer: Optional[asyncio.TimerHandle] = None
    linger_timer: Optional[asyncio.TimerHandle] = None
    strays: List[psutil.Process] = field(default_factory=list)


class Children:
    """All processes that the manager has started for jobs. Belongs to the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._children: Dict[int, _Child] = {}
        become_subreaper()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def start(self, command: List[str], mark: str, on_exit: Callable[[int], None], **options: Any) -> int:
        """Start `command` and return its process id; `on_exit` gets the exit code when nothing of it is left.

        `options` are those of ``subprocess.Popen``. What the command leaves behind in its group when it ends is
        killed, as schedulers do at the end of a step.

        Raises:
            OSError: the command cannot be started.
        """
        process = subprocess.Popen(command, **_OWN_GROUP, **options)
        self._children[process.pid] = _Child(process, on_exit, mark)
        return process.pid

    def end(self, pid: int, grace: float) -> None:
        """Ask the command and all that it started to end, with SIGTERM; kill what is left `grace` seconds later.

        Called again, it can only shorten that time.
        """
        child = self._children.get(pid)
        if child is None:
            return
        kill_at = self._loop.time() + grace
        if child.kill_timer is None:
            self._signal(child, signal.SIGTERM)
        elif child.kill_timer.when() <= kill_at:
            return
        else:
            child.kill_timer.cancel()
        child.kill_timer = self._loop.call_at(kill_at, self._kill, pid)

    def kill_rest(self) -> None:
        """Kill every descendant of this process: the last act before it ends."""
        kill_descendants()

    def _kill(self, pid: int) -> None:
        child = self._children[pid]
        self._signal(child, signal.SIGKILL)
        child.linger_timer = self._loop.call_later(_LINGER_SECONDS, self._stop_waiting, pid)

    def _signal(self, child: _Child, number: signal.Signals) -> None:
        # the leader's pid names the group for as long as it is not reaped, and after that while a member lives
        _signal_group(child.process.pid, number)
        child.strays = [process for process in _marked(child.mark) if process.pid != child.process.pid]
        for process in child.strays:
            _send(process, number)

    def _reap(self) -> None:
        for pid, child in list(self._children.items()):
            if child.returncode is None and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if child.kill_timer is None:
                    _signal_group(pid, signal.SIGKILL)
                    child.linger_timer = self._loop.call_later(_LINGER_SECONDS, self._stop_waiting, pid)
                child.returncode = child.process.wait()
            if child.returncode is not None:
                _reap_group(pid)
                if not _group_exists(pid) and not any(_lives(process) for process in child.strays):
                    self._finish(pid)
        _reap_orphans(self._children)

    def _stop_waiting(self, pid: int) -> None:
        child = self._children.get(pid)
        if child is not None and child.returncode is not None:
            _logger.warning("processes of %d do not end after SIGKILL", pid)
            self._finish(pid)

    def _finish(self, pid: int) -> None:
        child = self._children.pop(pid)
        for timer in (child.kill_timer, child.linger_timer):
            if timer is not None:
                timer.cancel()
        assert child.returncode is not None
        child.on_exit(child.returncode)


def kill_descendants() -> None:
    """Kill every process that comes from this one, which is a subreaper: without a child it has no descendant."""
    if not _has_child():
        return
    for process in psutil.Process().children(recursive=True):
        _send(process, signal.SIGKILL)


def _has_child() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def kill_marked(**marks: str) -> None:
    """Kill every process on this node that has all the `marks` in its environment, whoever has started it."""
    for process in psutil.process_iter():
        try:
            env = process.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has ended, or it is another user's and out of our reach
        if all(env.get(name) == value for name, value in marks.items()):
            _send(process, signal.SIGKILL)


def become_subreaper() -> None:
    """Adopt every descendant that outlives its parent."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return  # it has ended meanwhile, which is what was wanted
    except PermissionError:
        _logger.warning("process group %d belongs to another user and cannot be sent %s", pid, number.name)


def _group_exists(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _reap_group(pid: int) -> None:
    try:
        while os.waitid(os.P_PGID, pid, os.WEXITED | os.WNOHANG):
            continue
    except ChildProcessError:
        return  # none of this group is a child of ours


def _reap_orphans(known: Dict[int, _Child]) -> None:
    """Collect what jobs left to us in other groups; the first one that somebody else waits for ends the round."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in known:
            return
        os.waitid(os.P_PID, ended.si_pid, os.WEXITED | os.WNOHANG)


def _marked(mark: str) -> List[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has ended, or it is another user's and out of our reach
    return found


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return  # it has ended, or it is another user's and out of our reach


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
