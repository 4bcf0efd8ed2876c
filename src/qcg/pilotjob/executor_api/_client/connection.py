"""All that an executor has once its manager is there: the way of a submission, and the ways out."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from concurrent.futures import Future
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Protocol, Sequence, Type

from qcg.pilotjob.executor_api._client.dispatcher import Attach, Dispatcher
from qcg.pilotjob.executor_api._client.inbox import Leaving
from qcg.pilotjob.executor_api._client.links import Link
from qcg.pilotjob.executor_api._description.rendering import rendered, unused
from qcg.pilotjob.executor_api._description.validation import refuse_cycles, refuse_what_is_ours, validated
from qcg.pilotjob.executor_api.errors import ExecutorClosed, JobUnknown
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture, Source
from qcg.pilotjob.executor_api.templates.qcgpj_template import read

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._client.progress import Progress
    from qcg.pilotjob.executor_api._client.requests import Question
    from qcg.pilotjob.executor_api.allocation import AllocationStatus

__all__ = ["Connection", "on_signals"]


class Pool(Protocol):
    """Has workers that are jobs of the executor."""

    def when_ended(self, what: Callable[[], None]) -> None:
        """Call `what` when the pool has ended; at once when it has."""


class Target(Protocol):
    """A `Dispatcher`, or what stands in its place for several."""

    @property
    def link(self) -> Link:
        """What is known of the manager, or of one of several that are alike."""

    @property
    def dispatchers(self) -> Sequence[Dispatcher]:
        """One for each manager."""

    @property
    def statuses(self) -> Sequence[AllocationStatus]:
        """Where the allocations stand that were asked for by this executor."""

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller runs in the thread of a dispatcher; it must not wait there."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more goes on."""

    def submit(self, future: QCGPJFuture, jobs: Sequence[Any]) -> None:
        """Queue the jobs of `future`."""

    def follow(self, future: QCGPJFuture) -> "Future[None]":
        """Have `future` follow jobs that the manager has."""

    def leave(self, how: Leaving) -> None:
        """Take no more jobs, and end as `how` says."""

    def abandon(self) -> None:
        """Leave when all jobs are done; called where no lock may be taken."""

    def join(self, timeout: Optional[float] = None) -> bool:
        """Wait for the end; return whether it came."""

    def detach(self) -> str:
        """Take no more jobs, and leave the allocation to itself; return the directory by which it is found again."""

    def core_client(self, attach: Attach) -> Any:
        """Return the client of the core for requests by hand."""


class Connection:
    """An executor's connection to its manager, or to several. Any thread may use it."""

    def __init__(self, dispatcher: Target, source: Callable[[Callable[[], Any]], Source]) -> None:
        """Use `dispatcher`, which has started; `source` gets what returns the core's client, and answers futures."""
        self.dispatcher = dispatcher
        self._source = source(self.manager)
        self._progress: Optional[Progress] = None
        self._is_closed = False
        self.restore_signals: Callable[[], None] = lambda: None

    def submit(
        self,
        template: Any,
        dictionaries: Sequence[Optional[Mapping[str, Any]]],
        keywords: Dict[str, Any],
        *,
        for_pool: bool = False,
    ) -> QCGPJFuture:
        """Submit the jobs of a template; see ``QCGPJExecutor.submit``. Jobs `for_pool` are its workers."""
        if not for_pool:
            self._refuse_when_closed()
        text, defaults = read(template)
        parameters = keywords
        if dictionaries:
            parameters = {}
            for given in (*dictionaries, keywords):
                parameters.update(_parameters(given))
        surplus = unused(text, keywords)
        if surplus:
            warnings.warn(f"{surplus}; what is given for it has no effect", UserWarning, stacklevel=3)
        capacity = self.dispatcher.link.capacity
        jobs = [validated(job, capacity) for job in rendered(text, parameters, defaults)]
        if not self.dispatcher.link.trusted:
            refuse_what_is_ours(jobs)
        if len(jobs) > 1:
            refuse_cycles(jobs)
        future = QCGPJFuture([job["name"] for job in jobs], self._source)
        self.dispatcher.submit(future, jobs)
        if self._progress is not None:
            self._progress.counts.add(future)
        return future

    def attach(self, names: Sequence[str], timeout: Optional[float] = None) -> QCGPJFuture:
        """Follow jobs that the manager has; see ``QCGPJExecutor.attach``.

        Raises:
            concurrent.futures.TimeoutError: the manager has not told after `timeout` seconds that it has them.
        """
        self._refuse_when_closed()
        future = QCGPJFuture(_job_names(names), self._source)
        known = self.dispatcher.follow(future)
        if self._progress is not None:
            self._progress.counts.add(future, attached=True)
        if not self.dispatcher.is_current_thread:
            known.result(timeout)
        return future

    def manager(self) -> Any:
        """Return a client of the core for requests by hand: the given one, or one made at the first call."""
        return self.dispatcher.core_client(self.attach)

    def show(self, bar_class: Type[Any]) -> None:
        """Show the jobs that come from now on by a bar of tqdm's."""
        from qcg.pilotjob.executor_api._client.progress import Progress

        self._progress = Progress(self, bar_class)
        self._progress.start()

    @property
    def dispatchers(self) -> Sequence[Dispatcher]:
        """One for each manager."""
        return self.dispatcher.dispatchers

    @property
    def is_only_client(self) -> bool:
        """Whether all jobs that the manager has are this executor's."""
        return self.dispatcher.link.is_ours

    @property
    def has_ended(self) -> bool:
        """Whether nothing more goes on here."""
        return self.dispatcher.has_ended

    def leave_after(self, pools: Sequence[Pool], *, cancel_queued: bool) -> None:
        """Take no more jobs of the user's, and leave when the pools have ended: until then they need workers."""
        self._is_closed = True
        open_pools = {*pools}
        lock = threading.Lock()

        def has_ended(pool: Pool) -> None:
            with lock:
                open_pools.discard(pool)
                is_last = not open_pools
            if is_last:
                self.leave(cancel_queued=cancel_queued)

        if not pools:
            self.leave(cancel_queued=cancel_queued)
        for pool in pools:
            pool.when_ended(partial(has_ended, pool))

    def _refuse_when_closed(self) -> None:
        if self._is_closed and not self.has_ended:  # what has ended refuses by itself, and knows why it has
            raise ExecutorClosed("cannot submit or attach after shutdown of the executor")

    def leave(self, *, cancel_queued: bool) -> None:
        """Take no more jobs, and end when those submitted have ended."""
        self.dispatcher.leave(Leaving.WITHOUT_QUEUED if cancel_queued else Leaving.WHEN_DONE)

    def cancel_all(self) -> None:
        """Take no more jobs, cancel those that have not ended, and end."""
        self.dispatcher.leave(Leaving.NOW)

    @property
    def statuses(self) -> Sequence[AllocationStatus]:
        """Where the allocations stand that were asked for by this executor."""
        return self.dispatcher.statuses

    def has_ended_within(self, seconds: float) -> bool:
        """Wait for the end; return whether it came."""
        return self.dispatcher.join(seconds)

    def glance(self, message: bytes) -> List[Question]:
        """Ask each manager for what is of use only at once."""
        return [dispatcher.glance(message) for dispatcher in self.dispatchers]

    def detach(self) -> str:
        """Take no more jobs, and leave the allocation to itself; return the directory by which it is found again."""
        directory = self.dispatcher.detach()
        self.join()
        return directory

    def abandon(self) -> None:
        """Do as `leave`, without a lock: the executor is garbage."""
        self.dispatcher.abandon()

    def join(self) -> None:
        """Wait for the end."""
        if self.dispatcher.join() and self._progress is not None:
            self._progress.join()
        if threading.current_thread() is threading.main_thread():
            self.restore_signals()


def _job_names(names: Sequence[Any]) -> List[str]:
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"attach() takes the names of jobs, got {name!r}")
        if ":" in name:
            array, _, number = name.partition(":")
            raise JobUnknown(
                f"{name!r} is an iteration; attach({array!r}).iterations() tells how number {number} fares"
            )
    if not names:
        raise TypeError("attach() takes the name of a job, or several")
    return list(dict.fromkeys(names))


def _parameters(given: Any) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(
            f"submit() takes dictionaries of parameters after the template, got {given!r}; write name='...' or "
            "{'name': '...'}"
        )
    return given


def on_signals(numbers: List[int], connection: Connection) -> None:
    """Have each of the signals end the run of `connection` in peace; after its end, give them back their meaning."""
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, _: Optional[FrameType]) -> None:
        if connection.has_ended:
            _restore(number, before[number])
            os.kill(os.getpid(), number)
        else:
            connection.leave(cancel_queued=True)

    def restore() -> None:
        for number in numbers:
            if signal.getsignal(number) is stop:
                _restore(number, before[number])

    for number in numbers:
        signal.signal(number, stop)
    connection.restore_signals = restore


def _restore(number: int, handler: Any) -> None:
    # a handler that was not set in Python is None, and cannot be set from there
    signal.signal(number, signal.SIG_DFL if handler is None else handler)
