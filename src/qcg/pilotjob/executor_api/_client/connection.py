"""All that an executor has once its manager is there: the way of a submission, and the ways out."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Type, Union

from qcg.pilotjob.executor_api._client.answers import ExecutorSource
from qcg.pilotjob.executor_api._client.dispatcher import Dispatcher
from qcg.pilotjob.executor_api._client.inbox import Leaving
from qcg.pilotjob.executor_api._client.links import Link
from qcg.pilotjob.executor_api._description.rendering import rendered, unused
from qcg.pilotjob.executor_api._description.validation import refuse_cycles, refuse_what_is_ours, validated
from qcg.pilotjob.executor_api.errors import ExecutorClosed, InvalidOption, JobUnknown
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture
from qcg.pilotjob.executor_api.templates.qcgpj_template import read

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._allocation.own_allocation import Keeper
    from qcg.pilotjob.executor_api._allocation.several import Spread
    from qcg.pilotjob.executor_api._client.own_manager import ManagerProcess
    from qcg.pilotjob.executor_api._client.progress import Progress
    from qcg.pilotjob.executor_api._functions.hub import Hub
    from qcg.pilotjob.executor_api.allocation import AllocationStatus

__all__ = ["Connection", "on_signals"]


class Connection:
    """An executor's connection to its manager. Any thread may use it."""

    def __init__(
        self,
        process: Optional[ManagerProcess],
        manager: Any = None,
        keepers: Sequence[Keeper] = (),
        *,
        rerun: bool = True,
    ) -> None:
        """Connect to `process` when it is ready, or to the `manager` of the core or of another executor's directory.

        With `keepers` it is connected later, when there is a manager in their allocations.

        Raises:
            AllocationFailed: the scheduler refuses an allocation.
            ManagerStartError: the process is not ready in time.
            InvalidOption: `manager` is neither.
            ManagerDied: the other executor's manager has ended.
        """
        self._manager = None if isinstance(manager, (str, os.PathLike)) else manager
        self._own_manager: Any = None
        self._keepers = keepers
        self._lock = threading.RLock()  # a signal handler may ask for the same
        self._progress: Optional[Progress] = None
        self._is_closed = False
        self.restore_signals: Callable[[], None] = lambda: None
        self.dispatcher: Union[Dispatcher, Spread]
        if len(keepers) > 1:
            self.dispatcher, self._source = self._spread(keepers, rerun)
            return
        link = _link(process, manager, keepers)
        try:
            dispatcher = self.dispatcher = _dispatcher(link)
        except BaseException:
            if link.process is not None:
                link.process.kill()
            raise
        dispatcher.at_end = self._close_manager
        self._source = ExecutorSource(dispatcher, self.manager)

    def _spread(self, keepers: Sequence[Keeper], rerun: bool) -> Tuple[Spread, ExecutorSource]:
        from qcg.pilotjob.executor_api._allocation.several import Spread, SpreadSource

        try:
            for keeper in keepers:
                keeper.await_ready()
            spread = Spread(keepers, rerun=rerun)
        except BaseException:
            for keeper in keepers:
                keeper.kill()
            raise
        return spread, SpreadSource(spread, self.manager)

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
            self._progress.tally.add(future)
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
            self._progress.tally.add(future, attached=True)
        if not self.dispatcher.is_current_thread:
            known.result(timeout)
        return future

    def manager(self) -> Any:
        """Return a client of the core for requests by hand: the given one, or one made at the first call."""
        if self._manager is not None:
            return self._manager
        if not isinstance(self.dispatcher, Dispatcher):
            raise InvalidOption("qcgpj_manager is for one allocation; with count= there are several managers")
        with self._lock:
            if self._own_manager is None:
                from qcg.pilotjob.executor_api._client.core_client import ConnectedManager, DistantManager

                kind = ConnectedManager if self.dispatcher.link.open is None else DistantManager
                made = kind(self.dispatcher, self.attach)
                if self._own_manager is not None:  # a signal handler has made one meanwhile
                    made.close()
                else:
                    self._own_manager = made
            return self._own_manager

    def show(self, bar_class: Type[Any]) -> None:
        """Show the jobs that come from now on by a bar of tqdm's."""
        from qcg.pilotjob.executor_api._client.progress import Progress

        self._progress = Progress(self, bar_class)

    @property
    def dispatchers(self) -> Sequence[Dispatcher]:
        """One for each manager."""
        return [self.dispatcher] if isinstance(self.dispatcher, Dispatcher) else self.dispatcher.dispatchers

    @property
    def is_only_client(self) -> bool:
        """Whether all jobs that the manager has are this executor's."""
        return self.dispatcher.link.process is not None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more goes on here."""
        return self.dispatcher.has_ended

    def leave_after(self, pools: Sequence[Hub], *, cancel_queued: bool) -> None:
        """Take no more jobs of the user's, and leave when the pools have ended: until then they need workers."""
        self._is_closed = True
        open_pools = {*pools}
        lock = threading.Lock()

        def has_ended(pool: Hub) -> None:
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

    def allocations(self) -> Sequence[AllocationStatus]:
        """Return where the allocations stand that are this executor's."""
        return [keeper.status for keeper in self._keepers]

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

    def _close_manager(self) -> None:
        with self._lock:
            if self._own_manager is not None:
                self._own_manager.close()


def _link(process: Optional[ManagerProcess], manager: Any, keepers: Sequence[Keeper]) -> Link:
    if process is not None:
        process.await_ready()
        return Link.to_process(process)
    if keepers:
        keepers[0].await_ready()
        return Link.to_allocation(keepers[0])
    if isinstance(manager, (str, os.PathLike)):
        return Link.to_directory(manager)
    return Link.to_manager(manager)


def _dispatcher(link: Link) -> Dispatcher:
    if link.open is None:
        return Dispatcher(link)
    from qcg.pilotjob.executor_api._client.remote_dispatcher import RemoteDispatcher

    return RemoteDispatcher(link)


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
    """Let each of the signals end the run of `connection` in peace; once that has ended they mean what they meant."""
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
