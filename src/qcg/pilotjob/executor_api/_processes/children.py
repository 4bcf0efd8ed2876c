"""The jobs' processes: started in groups of their own, followed to the last one, ended together.

::

    loop's thread                               the starter, a process
    -----------------------------------         ---------------------------------------------
    start, make_ready --- orders -------------> starts them and waits for their ends
    _hear <-------------- what became of them
    SIGCHLD -> _reap: what outlives its parent

The manager process is the subreaper of all that comes from it: a process that outlives its parent, the starter
included, becomes the manager's child. So the end of every one of them is told by the starter or a SIGCHLD here, and
nothing has to be polled for; and what a job starts in another group or session is still found among the manager's
descendants, by the mark in its environment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from datetime import datetime
from typing import Any, Callable, Dict, Iterable, List, Optional, Set

import psutil

from qcg.pilotjob.executor_api._processes import descendants, starter
from qcg.pilotjob.executor_api._processes.spawning import CannotStart, Order
from qcg.pilotjob.executor_api._processes.starter_link import StarterLink
from qcg.pilotjob.executor_api._shared import times

_logger = logging.getLogger(__name__)

_START_SECONDS = 0.2  # for a start that returns by itself before the end of it
_AGAIN_SECONDS = 0.1  # when they cannot be looked for
_GATHER_SECONDS = 0.001  # one search, which looks at every process there is, is for all that are told to end meanwhile


class Child:
    """One process that was ordered, with what comes of it.

    Attributes:
        number: what the starter knows it by; 0 for what the starter has not started.
        pid: its process id; 0 as long as there is no process.
        started: when it was started.
        ended: when it ended.
        outlived: something that it has started was there after its end.
    """

    def __init__(
        self,
        mark: str,
        on_exit: Callable[[int], None],
        on_started: Callable[[], None] = lambda: None,
        on_failed: Callable[[CannotStart], None] = lambda _: None,
        on_waits: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_exit` gets the exit code when nothing of it is left, `on_failed` the reason why it never began.

        `on_waits` is called when it has to wait until there is room again for a process.
        """
        self.mark = mark
        self.on_exit = on_exit
        self.on_started = on_started
        self.on_failed = on_failed
        self.on_waits = on_waits
        self.number = 0
        self.pid = 0
        self.started: Optional[datetime] = None
        self.ended: Optional[datetime] = None
        self.outlived = False
        self.returncode: Optional[int] = None
        self.grace: Optional[float] = None
        self.kill_timer: Optional[asyncio.TimerHandle] = None
        self.linger_timer: Optional[asyncio.TimerHandle] = None
        self.strays: List[psutil.Process] = []

    @property
    def is_gone(self) -> bool:
        """Whether nothing is left of its group, nor of what was found outside of that."""
        return not descendants.signal_group(self.pid, 0) and not any(map(descendants.lives, self.strays))


class Children:
    """All processes that the manager has started for jobs. Belongs to the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, starter_pid: int, connection: socket.socket) -> None:
        self._loop = loop
        self._starter = StarterLink(loop, starter_pid, connection, self._hear)
        self._ordered: Dict[int, Child] = {}
        self._ready: Dict[int, Child] = {}  # of those ordered
        self._last_number = 0
        self._children: Dict[int, Child] = {}
        self._lingering: Set[Child] = set()  # ended, but what they have started has not
        self._unsearched: Dict[Child, signal.Signals] = {}  # with what their strays get
        self._search_timer: Optional[asyncio.TimerHandle] = None
        self._taken_back: Optional["asyncio.Future[List[Child]]"] = None
        self._is_alone = False  # the starter has ended
        self._is_closed = False
        self.is_reaping = False
        self.last_seconds = float("inf")  # how long the last one ran that has ended
        self.after_reaping: Callable[[], None] = lambda: None
        self.on_next: Callable[[Child, Child], Callable[[], None]] = lambda *_: lambda: None
        self.on_starter_lost: Callable[[], None] = lambda: None
        self.on_failure: Callable[[Exception], None] = lambda _: None  # what has become of a job could not be told
        descendants.become_subreaper()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def gather_when(self, condition: Callable[[], bool]) -> None:
        """Have several ends told at once, a few milliseconds later, while the condition holds."""
        self._starter.may_gather = condition

    def start(self, order: Order, child: Child, kind: int = 0) -> None:
        """Start what is ordered, soon: what becomes of it is told to `child`.

        What the command leaves behind in its group when it ends is killed, as schedulers do at the end of a step. Then
        what is ready of the same `kind` is started at once; of the kind 0 nothing is.
        """
        self._order(starter.RUN, order, child, kind)

    def make_ready(self, order: Order, child: Child, kind: int) -> None:
        """Have it started when the next process of its kind ends.

        `on_next` is told of both when that has happened, and returns what is called when the end of the first is told.
        """
        self._order(starter.READY, order, child, kind)
        self._ready[child.number] = child

    def start_ready(self, child: Child) -> None:
        """Start what is ready now, without a process that ends."""
        self._ready.pop(child.number, None)
        self._starter.send(starter.NOW, child.number)

    async def take_back(self) -> List[Child]:
        """Start nothing more of what is ready, and return what that is; `on_next` was told of all else."""
        if self._is_alone:
            return self._pop_ready(list(self._ready))
        if self._taken_back is None:
            self._taken_back = self._loop.create_future()
            self._starter.send(starter.TAKE_BACK, 0)
        return await asyncio.shield(self._taken_back)

    def _pop_ready(self, numbers: Iterable[int]) -> List[Child]:
        for number in numbers:
            self._ordered.pop(number, None)
        return [self._ready.pop(number) for number in numbers]

    def _order(self, what: str, order: Order, child: Child, kind: int) -> None:
        self._last_number += 1
        child.number = self._last_number
        self._ordered[child.number] = child
        if self._is_alone:
            self._loop.call_soon(self._hear)
        files, env = dict(order.files), dict(order.env)
        self._starter.send(what, child.number, kind, *order._replace(env=env, files=files))

    def adopt(self, pid: int, child: Child) -> None:
        """Follow a process that the loop's thread has started in a group of its own just now."""
        child.pid = pid
        self._children[pid] = child

    def end(self, child: Child, grace: float) -> None:
        """Ask the command and all that it started to end, with SIGTERM; kill what is left `grace` seconds later.

        Called again, it can only shorten that time.
        """
        if child.number:
            self._starter.send(starter.KEEP, child.number)
        if not self.is_reaping:
            self._hear()  # nothing that has ended may be sent a signal: the id of its group may be another one's soon
        if self._children.get(child.pid) is not child and child not in self._lingering:
            child.grace = grace if child.grace is None else min(grace, child.grace)  # for when it has a process
            if self._is_alone:
                self._loop.call_soon(self._hear)  # it never will
            elif child.number and child.kill_timer is None:
                child.kill_timer = self._loop.call_later(min(grace, _START_SECONDS), self._give_up, child)
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
        self._is_closed = True
        self._starter.close()
        descendants.kill_descendants()

    # ---- what the starter tells

    def _hear(self) -> None:
        self._update(self._take_news)

    def _update(self, *steps: Callable[[], None]) -> None:
        if self._is_closed:
            return
        self.is_reaping = True
        try:
            for step in (*steps, self._finish_those_that_are_gone):
                self._guarded(step)
        finally:
            self.is_reaping = False
            self.after_reaping()

    def _guarded(self, step: Callable[..., None], *arguments: Any) -> None:
        """Call what may fail for one job, and must not keep what is told of the others from being read."""
        try:
            step(*arguments)
        except Exception as error:
            _logger.exception("what has become of a job could not be told")
            self.on_failure(error)

    def _take_news(self) -> None:
        for news in self._starter.news():
            self._guarded(self._take, *news)
        if self._starter.has_ended and not self._is_alone:
            self._is_alone = True
            self.on_starter_lost()
        if self._is_alone:
            self._fail_unstarted()

    def _take(self, what: str, *news: Any) -> None:
        if what == starter.STARTED:
            self._has_started(*news)
        elif what == starter.WAITS:
            child = self._ordered[news[0]]
            if not child.pid:
                child.on_waits()
        elif what == starter.TAKEN_BACK:
            self._answer(self._pop_ready(news[0]))
        else:
            number, *how, following = news
            child = self._ordered.pop(number)
            self._ready.pop(following, None)
            go_on = self.on_next(child, self._ordered[following]) if following else None
            if what == starter.ENDED:
                self._has_ended(child, *how)
            else:
                child.on_failed(CannotStart(*how))
            if go_on is not None:
                with times.RecordTime.set_to(child.ended):  # since when it has the cores; the manager hears it late
                    go_on()

    def _has_started(self, number: int, pid: int, when: float) -> None:
        child = self._ordered[number]
        child.pid = pid
        child.started = times.moment_at(when)
        self._children[pid] = child
        if child.kill_timer is not None:  # that of its start
            child.kill_timer.cancel()
            child.kill_timer = None
        child.on_started()
        if child.grace is not None:
            self.end(child, child.grace)

    def _has_ended(self, child: Child, code: int, left: bool, when: float) -> None:
        assert child.started is not None
        child.ended = times.moment_at(when)
        self.last_seconds = when - child.started.timestamp()
        del self._children[child.pid]
        self._collect(child, code, left)

    def _answer(self, taken_back: List[Child]) -> None:
        if self._taken_back is not None:
            self._taken_back.set_result(taken_back)
            self._taken_back = None

    def _fail_unstarted(self) -> None:
        """End without a start what has no process and was told to end; the others are this process's children.

        A process whose start was not told is one of them too: `close` kills it. What was not told to end will be: who
        hears that the starter has ended ends all jobs, which are interrupted by that, and have not failed.
        """
        if self._taken_back is not None:
            self._answer(self._pop_ready(list(self._ready)))
        for number, child in list(self._ordered.items()):
            if not child.pid and child.grace is not None:
                del self._ordered[number]
                child.on_failed(CannotStart("it was not started: the process that starts jobs has ended"))

    # ---- ends

    def _give_up(self, child: Child) -> None:
        """End a start that has not returned: a file that it opens, or looks for, may never let it go on."""
        if not child.pid:
            self._starter.send(starter.GIVE_UP, child.number)

    def _kill(self, child: Child) -> None:
        self._hear()
        if child in self._lingering or self._children.get(child.pid) is child:
            self._signal(child, signal.SIGKILL)
            child.linger_timer = self._loop.call_later(descendants.LINGER_SECONDS, self._stop_waiting, child)

    def _signal(self, child: Child, number: signal.Signals) -> None:
        # the leader's pid names the group for as long as it is not reaped, and after that while a member lives
        descendants.signal_group(child.pid, number)
        self._unsearched[child] = number
        self._search_soon()

    def _reap(self) -> None:
        self._update(self._take_news, self._reap_all)

    def _reap_all(self) -> None:
        ended = _next_ended()
        while ended is not None:
            os.waitid(os.P_PID, ended.si_pid, os.WEXITED)
            child = self._children.pop(ended.si_pid, None)
            if child is not None:  # otherwise a job has left it
                code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
                self._guarded(self._collect, child, code, descendants.signal_group(child.pid, 0))
            ended = _next_ended()

    def _collect(self, child: Child, code: int, left: bool) -> None:
        child.returncode = code
        child.ended = child.ended or times.RecordTime.now()
        if child.kill_timer is not None:
            self._lingering.add(child)  # it has its time
            child.outlived = left
        elif left and descendants.signal_group(child.pid, signal.SIGKILL):
            self._lingering.add(child)
            child.outlived = True
            child.linger_timer = self._loop.call_later(descendants.LINGER_SECONDS, self._stop_waiting, child)
        else:
            self._finish(child)

    def _finish_those_that_are_gone(self) -> None:
        for child in [child for child in self._lingering if child.is_gone]:
            if child.kill_timer is None:
                self._finish(child)
            else:  # it may have started something since it was told to end, in a session of its own
                self._unsearched.setdefault(child, signal.SIGKILL)
                self._search_soon()

    def _search_soon(self) -> None:
        if self._search_timer is None:
            self._search_timer = self._loop.call_later(_GATHER_SECONDS, self._update, self._search)

    def _search(self) -> None:
        self._search_timer = None
        unsearched, self._unsearched = self._unsearched, {}
        gone = {child for child in self._lingering & unsearched.keys() if child.is_gone}  # what has gone starts no more
        try:
            found = descendants.marked({child.mark for child in unsearched})
        except OSError as error:  # no descriptor, say, to look at a process by
            _logger.warning("processes cannot be looked for just now: %s", error)
            self._unsearched = {**unsearched, **self._unsearched}
            self._search_timer = self._loop.call_later(_AGAIN_SECONDS, self._update, self._search)
            return
        for child, number in unsearched.items():
            strays = (process for process in found[child.mark] if process.pid != child.pid)
            child.strays = list(filter(descendants.lives, strays))
            child.outlived = child.outlived or bool(child.strays)
            for process in child.strays:
                descendants.send(process, number)
            if child in gone and not child.strays:
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
        # the search for what the command has left takes time, in which the next one may have begun on the same cores
        with times.RecordTime.set_to(None if child.outlived else child.ended):
            child.on_exit(child.returncode)


def _next_ended() -> Any:
    """Return how a process has ended that still has to be waited for, None when there is none."""
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
