"""The jobs' processes: started in groups of their own, followed to the last one, ended together.

::

    loop's thread                        Starters, a few threads
    -----------------------------        ------------------------------------------------
    start  --- Order, Child ----------> Spawner.spawn: until the program runs
    _take_started <--- Child ---------- started
    SIGCHLD -> _reap -> on_exit

What was started is taken over when the loop is awake anyway, as at the end of a job. The loop is woken where something
waits for that, and a timer does what nothing else does.

The manager process is the subreaper of all that it starts: a process that outlives its parent becomes the manager's
child. So the end of every one of them is a SIGCHLD here, and nothing has to be polled for; and what a job starts in
another group or session is still found among the manager's descendants, by the mark in its environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
from datetime import datetime
from typing import Any, Callable, Dict, List, Mapping, Optional, Set

import psutil

from qcg.pilotjob.executor_api._manager.spawning import CannotStart, Order
from qcg.pilotjob.executor_api._manager.starters import Starters

_logger = logging.getLogger(__name__)

MARK = "QCG_PM_STEP_ID"  # the core gives each job iteration one of its own
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_SECONDS = 0.05  # in which what was started is taken over
_LINGER_SECONDS = 1.0  # for what SIGKILL cannot end, like a process in an uninterruptible wait


class Child:
    """One process that was ordered, with what comes of it.

    Attributes:
        pid: its process id; 0 as long as there is no process.
        started: when it was started.
    """

    def __init__(
        self,
        mark: str,
        on_exit: Callable[[int], None],
        on_started: Callable[[], None] = lambda: None,
        on_failed: Callable[[CannotStart], None] = lambda _: None,
    ) -> None:
        """`on_exit` gets the exit code when nothing of it is left, `on_failed` the reason why it never began."""
        self.mark = mark
        self.on_exit = on_exit
        self.on_started = on_started
        self.on_failed = on_failed
        self.pid = 0
        self.started: Optional[datetime] = None
        self.failure: Optional[CannotStart] = None
        self.returncode: Optional[int] = None
        self.grace: Optional[float] = None
        self.kill_timer: Optional[asyncio.TimerHandle] = None
        self.linger_timer: Optional[asyncio.TimerHandle] = None
        self.strays: List[psutil.Process] = []


class Children:
    """All processes that the manager has started for jobs. Belongs to the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, environment: Mapping[str, str]) -> None:
        """`environment` is what the orders' environments differ from."""
        self._loop = loop
        self._starters = Starters(environment, self._wake)
        self._children: Dict[int, Child] = {}
        self._lingering: Set[Child] = set()  # ended, but what they have started has not
        self._look: Optional[asyncio.TimerHandle] = None
        self.is_reaping = False
        self.after_reaping: Callable[[], None] = lambda: None
        become_subreaper()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def start(self, order: Order, child: Child) -> None:
        """Start what is ordered, soon: what becomes of it is told to `child`.

        What the command leaves behind in its group when it ends is killed, as schedulers do at the end of a step.
        """
        self._starters.order(order, child)
        if self._look is None:
            self._look = self._loop.call_later(_LOOK_SECONDS, self._look_for_started)

    def adopt(self, pid: int, child: Child) -> None:
        """Follow a process that the loop's thread has started in a group of its own just now."""
        child.pid = pid
        self._children[pid] = child

    def end(self, child: Child, grace: float) -> None:
        """Ask the command and all that it started to end, with SIGTERM; kill what is left `grace` seconds later.

        Called again, it can only shorten that time.
        """
        if self._children.get(child.pid) is not child and child not in self._lingering:
            child.grace = grace if child.grace is None else min(grace, child.grace)  # for when it is known here
            self._starters.wake_at_next()
            self._loop.call_soon(self._reap)
            return
        kill_at = self._loop.time() + grace
        if child.kill_timer is None:
            self._signal(child, signal.SIGTERM)
        elif child.kill_timer.when() <= kill_at:
            return
        else:
            child.kill_timer.cancel()
        child.kill_timer = self._loop.call_at(kill_at, self._kill, child)

    def close(self) -> None:
        """Start nothing more, and kill every descendant of this process: the last act. From any thread."""
        self._starters.close()
        kill_descendants()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: all is over
            self._loop.call_soon_threadsafe(self._reap)

    def _look_for_started(self) -> None:
        self._look = None
        self._take_started()
        if self._starters.under_way:
            self._starters.wake_at_next()
            self._take_started()

    def _take_started(self) -> None:
        for child in self._starters.started():
            if child.failure is not None:
                child.on_failed(child.failure)
                continue
            self._children[child.pid] = child
            child.on_started()
            if child.grace is not None:
                self.end(child, child.grace)

    # ---- ends

    def _kill(self, child: Child) -> None:
        self._signal(child, signal.SIGKILL)
        child.linger_timer = self._loop.call_later(_LINGER_SECONDS, self._stop_waiting, child)

    def _signal(self, child: Child, number: signal.Signals) -> None:
        # the leader's pid names the group for as long as it is not reaped, and after that while a member lives
        _signal_group(child.pid, number)
        child.strays = [process for process in _marked(child.mark) if process.pid != child.pid]
        for process in child.strays:
            _send(process, number)

    def _reap(self) -> None:
        self.is_reaping = True
        try:
            self._reap_all()
        finally:
            self.is_reaping = False
            self.after_reaping()

    def _reap_all(self) -> None:
        self._take_started()
        ended = _next_ended()
        while ended and (ended in self._children or not self._is_being_started(ended)):
            if ended in self._children:
                self._collect(self._children.pop(ended))
            else:
                _forget(ended)  # left by a job
            ended = _next_ended()
        for child in list(self._lingering):
            self._finish_if_gone(child)

    def _is_being_started(self, pid: int) -> bool:
        """Whether `pid` may be that of a start of which the thread has not told yet; then it wakes the loop."""
        if not self._starters.under_way or not _leads_group(pid):
            return False
        self._starters.wake_at_next()
        self._take_started()
        return pid not in self._children and bool(self._starters.under_way)

    def _collect(self, child: Child) -> None:
        ended = os.waitid(os.P_PID, child.pid, os.WEXITED)
        assert ended is not None
        child.returncode = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        if child.kill_timer is not None:
            self._lingering.add(child)  # it has its time
        elif _signal_group(child.pid, signal.SIGKILL):  # its id cannot be another one's already: they are given in turn
            self._lingering.add(child)
            child.linger_timer = self._loop.call_later(_LINGER_SECONDS, self._stop_waiting, child)
        else:
            self._finish(child)

    def _finish_if_gone(self, child: Child) -> None:
        if not _signal_group(child.pid, 0) and not any(_lives(process) for process in child.strays):
            self._finish(child)

    def _stop_waiting(self, child: Child) -> None:
        if child in self._lingering:
            _logger.warning("processes of %d do not end after SIGKILL", child.pid)
            self._finish(child)

    def _finish(self, child: Child) -> None:
        self._lingering.discard(child)
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
    for process in _with(marks, psutil.process_iter()):
        _send(process, signal.SIGKILL)


def become_subreaper() -> None:
    """Adopt every descendant that outlives its parent."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")


def _signal_group(pid: int, number: int) -> bool:
    """Send a signal to a group, and return whether there was one; the signal 0 does nothing else."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        if number:
            _logger.warning("process group %d belongs to another user and cannot be sent signal %d", pid, number)
    return True


def _next_ended() -> int:
    """Return the id of a process that has ended and still has to be waited for, 0 when there is none."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return ended.si_pid if ended is not None else 0


def _forget(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # a start that has failed, for which its thread has waited
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)


def _leads_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def _marked(mark: str) -> List[psutil.Process]:
    return _with({MARK: mark}, psutil.Process().children(recursive=True))


def _with(marks: Mapping[str, str], processes: Any) -> List[psutil.Process]:
    """Return those of the processes that have all the marks in their environment."""
    found = []
    for process in processes:
        try:
            env = process.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has ended, or it is another user's and out of our reach
        if all(env.get(name) == value for name, value in marks.items()):
            found.append(process)
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
