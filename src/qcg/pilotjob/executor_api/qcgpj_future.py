"""The future of a submission: one job, an array, or a list of jobs."""

from __future__ import annotations

import concurrent.futures
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import CANCELLED, PENDING
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api._shared.futures import Condition, GuardsCallbacks
from qcg.pilotjob.executor_api._shared.job_info import failure_of, iterations_of
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api.errors import JobTimeout
from qcg.pilotjob.executor_api.jobs import FINAL_STATES, HasJobNames, IterationInfo, JobInfo

__all__ = ["ManagerSource", "QCGPJFuture", "Source"]


class Source(ABC):
    """Answers a future's questions."""

    @property
    @abstractmethod
    def manager(self) -> Any:
        """The core manager that can be asked by hand."""

    @abstractmethod
    def refresh(self, future: QCGPJFuture) -> None:
        """Bring the future up to date."""

    @abstractmethod
    def await_end(self, future: QCGPJFuture, timeout: Optional[float]) -> None:
        """Return when ``Future.result`` may be called."""

    @abstractmethod
    def cancel(self, future: QCGPJFuture) -> bool:
        """Cancel the future's jobs; return whether it is or will be cancelled."""

    @abstractmethod
    def cancel_some(self, names: Sequence[str]) -> Dict[str, str]:
        """Cancel iterations by name; return why some were not."""

    @abstractmethod
    def states(self, names: Sequence[str]) -> Dict[str, str]:
        """Return the jobs' states."""

    @abstractmethod
    def infos(self, names: Sequence[str], ended: bool, submissions: Mapping[str, int]) -> Dict[str, JobInfo]:
        """Return what is known of the jobs; `submissions` tells which ones of their names, where not the first."""


class QCGPJFuture(GuardsCallbacks, HasJobNames, Future[Dict[str, str]]):
    """The jobs of one submission, as a ``concurrent.futures.Future``.

    It means what Python's documentation says, with these differences: ``running()`` is true from the submission
    until the end; ``result()`` is the dictionary of the jobs' final states, also when that is ``FAILED`` or
    ``OMITTED``, and raises only when the jobs are cancelled, refused, or lost with their manager; ``cancel()`` ends
    running jobs too.

    One made by hand, ``QCGPJFuture(ids, manager)`` with a manager of the core, asks that manager whenever it is asked
    itself; nothing resolves it in the background.

    Attributes:
        ids: the jobs' names, in the order of the description.
    """

    # a slot for each attribute of the base class too: a program may hold hundreds of thousands of futures
    __slots__ = (
        "_condition", "_count", "_done_callbacks", "_exception", "_result", "_source", "_state", "_states", "_waiters",
        "ids",
    )  # fmt: skip

    _submissions: Mapping[str, int] = {}
    """Which submissions of their names the jobs are, where not the first; an attribute of those futures alone."""

    def __init__(self, ids: Union[str, Sequence[str]], qcgpjm: Any) -> None:
        # what Future.__init__ does, except that its condition is ten times as large and slow to make
        self._condition: Any = Condition()
        self._state = PENDING
        self._result: Optional[Dict[str, str]] = None
        self._exception: Optional[BaseException] = None
        self._waiters: List[Any] = []
        self._done_callbacks: List[Callable[[Future[Dict[str, str]]], Any]] = []
        self.ids = [ids] if isinstance(ids, str) else list(ids)
        self._count = len(self.ids) if len(self.ids) < 2 else len(set(self.ids))
        self._states: Optional[Dict[str, str]] = None
        self._source: Source = qcgpjm if isinstance(qcgpjm, Source) else ManagerSource(qcgpjm)

    @property
    def qcgpjm(self) -> Any:
        """The core manager that knows the jobs: for requests of your own."""
        return self._source.manager

    @override
    def done(self) -> bool:
        """Return whether all jobs have ended, in whatever state, or were refused or lost."""
        if super().done():
            return True
        self._source.refresh(self)
        return super().done()

    @override
    def running(self) -> bool:
        """Return whether the jobs are submitted and not all have ended; `status` tells which of them are executing."""
        return not self.done()

    @override
    def result(self, timeout: Optional[float] = None) -> Dict[str, str]:
        """Wait for the end of all jobs and return ``{name: final state}``.

        Args:
            timeout: seconds to wait at the most; None waits for ever.

        Raises:
            JobTimeout: (a ``TimeoutError``) the jobs have not ended in time; they go on.
            CancelledError: a job was cancelled; `status` tells the state of each.
            JobRefused: the manager did not take the jobs.
            ManagerDied: (a ``BrokenExecutor``) the manager has gone before the jobs had ended.
        """
        if not super().done():
            self._source.await_end(self, timeout)
        try:
            return dict(super().result(timeout))
        except concurrent.futures.TimeoutError:
            raise self._too_late(timeout) from None
        finally:
            del self  # the traceback of a stored exception holds this frame: it must not hold the future

    @override
    def exception(self, timeout: Optional[float] = None) -> Optional[BaseException]:
        """Wait for the end of all jobs and return what `result` would raise, None when it would return.

        A job that has failed is a result, not an exception; see `raise_for_status`. Raises as `result` does for
        cancelled jobs and at the end of `timeout` seconds.
        """
        self._source.await_end(self, timeout)
        try:
            return super().exception(timeout)
        except concurrent.futures.TimeoutError:
            raise self._too_late(timeout) from None

    @override
    def cancel(self) -> bool:
        """Cancel all jobs that have not ended, running ones too; return whether any was.

        When it returns True, no process of the jobs is left, grandchildren included: it waits for their end, which
        SIGKILL brings about 5 s after SIGTERM. In a done-callback, or in a thread that runs an asyncio loop, it does
        not wait: True means there that the jobs end within that time. False means that all had ended before; their
        states are untouched.
        """
        if self.done():
            return self.cancelled()
        return self._source.cancel(self)

    @override
    def cancelled(self) -> bool:
        """Return whether a job of this future was cancelled, by `cancel` or otherwise."""
        if not super().done():
            self._source.refresh(self)
        return super().cancelled()

    def status(self) -> Dict[str, str]:
        """Return ``{name: state}`` as it is now.

        The states are ``QUEUED``, ``SCHEDULED``, ``EXECUTING`` and the final ``SUCCEED``, ``FAILED``, ``CANCELED``
        and ``OMITTED`` (a job that it depends on did not succeed). Jobs that were refused or lost have none.
        """
        states = dict(self._states or ())
        names = [] if super().done() and not super().cancelled() else self._unfinished()
        if names:
            states.update(self._source.states(names))
        return {name: states[name] for name in self.ids if name in states}

    def info(self) -> Dict[str, JobInfo]:
        """Return ``{name: what the manager knows}``, also after shutdown; see `JobInfo` for what that is."""
        return self._source.infos(self.ids, self.done(), self._submissions)

    def iterations(self) -> Dict[str, List[IterationInfo]]:
        """Return ``{name: its iterations}`` for the arrays of this future, as they are now, also after shutdown."""
        return {name: iterations_of(info) for name, info in self.info().items() if "childs" in info}

    def cancel_iterations(self, numbers: Iterable[int]) -> List[int]:
        """Cancel some iterations of an array, and return the numbers of those that had not ended before.

        They end within the time that `cancel` has, but are not waited for; `iterations` tells. An array with a
        cancelled iteration ends as ``FAILED``.

        Raises:
            ValueError: the future is not that of one job.
        """
        if len(self.ids) != 1:
            raise ValueError(f"this future has {len(self.ids)} jobs; iterations can be cancelled of a future of one")
        names = {f"{self.ids[0]}:{number}": number for number in numbers}
        if not names or self.done():
            return []
        refused = self._source.cancel_some(list(names))
        return [number for name, number in names.items() if name not in refused]

    def raise_for_status(self, timeout: Optional[float] = None) -> Dict[str, str]:
        """Return `result` when every job has succeeded.

        Raises:
            JobFailed: a job has not; the exception tells exit code, message, files and the end of stderr.
        """
        try:
            result = self.result(timeout)
            for name, state in result.items():
                if state != "SUCCEED":
                    raise failure_of(name, state, self.info().get(name))
            return result
        finally:
            del self  # as in result

    # ---- for the source of the states

    def _are_submissions(self, numbers: Mapping[str, int]) -> None:
        """Take note of which submissions of their names the jobs are, where not the first."""
        ours = {name: number for name, number in numbers.items() if name in self.ids}
        if ours:
            self._submissions = {**self._submissions, **ours}

    def _submission(self, name: str) -> int:
        return self._submissions.get(name, 1)

    def _unfinished(self) -> List[str]:
        states = self._states or ()
        return [name for name in self.ids if name not in states]

    def _get_snapshot(self) -> Tuple[bool, bool, Optional[Dict[str, str]], Optional[BaseException]]:
        """Return all that asyncio's future of this one has to know, which asks so from Python 3.15 on."""
        done, cancelled, result, error = super()._get_snapshot()  # type: ignore[misc]
        return done, cancelled, None if result is None else dict(result), error  # as result: the states are ours

    def _too_late(self, timeout: Optional[float]) -> JobTimeout:
        waited = max(0.0, timeout or 0.0)  # map() asks with what is left of its time, which may be less than nothing
        return JobTimeout(f"{', '.join(self.ids)}: not finished after {waited:g} s")

    def _job_ended(self, name: str, state: str) -> None:
        if self._count == 1:
            self._states = {self.ids[0]: state}  # with the name that is there already
        elif self._states is None:
            self._states = {name: state}
        else:
            self._states[name] = state
        if len(self._states) < self._count:
            return
        if "CANCELED" in self._states.values():
            self._cancel_now()
            return
        if self._count > 1:  # in the order of the description, not of the ends
            self._states = {name: self._states[name] for name in self.ids}
        try:
            self.set_result(self._states)
        except InvalidStateError:
            return  # cancelled before, where nobody may wait for it

    def _cancel_now(self) -> bool:
        cancelled = super().cancel()
        with self._condition:
            if self._state == CANCELLED:
                self.set_running_or_notify_cancel()
        return cancelled

    def _break(self, error: BaseException) -> None:
        try:
            self.set_exception(error)
        except InvalidStateError:
            return  # as above


class ManagerSource(Source):
    """Answers for a future that was made by hand: it asks ``manager.status(ids)`` whenever the future is asked.

    There is no thread behind it, so it is resolved when somebody asks, and callbacks run then.
    """

    _PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

    def __init__(self, manager: Any) -> None:
        self._core_manager = manager

    @property
    @override
    def manager(self) -> Any:
        """The manager that the future was made with."""
        return self._core_manager

    @override
    def refresh(self, future: QCGPJFuture) -> None:
        """Ask for the states of the jobs that have not ended."""
        names = future._unfinished()
        for name, state in self.states(names).items() if names else ():
            if state in FINAL_STATES:
                future._job_ended(name, state)

    @override
    def await_end(self, future: QCGPJFuture, timeout: Optional[float]) -> None:
        """Ask until the jobs have ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pauses = iter(self._PAUSES)
        while not future.done():
            pause = next(pauses, self._PAUSES[-1])
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise future._too_late(timeout)
            time.sleep(min(pause, left))

    @override
    def cancel(self, future: QCGPJFuture) -> bool:
        """Cancel the jobs and wait for their end."""
        self._core_manager.cancel(future._unfinished())
        self.await_end(future, protocol.ANSWER_SECONDS)
        return future.cancelled()

    @override
    def cancel_some(self, names: Sequence[str]) -> Dict[str, str]:
        """Ask the manager to cancel iterations; the core's client keeps to itself which it refused."""
        self._core_manager.cancel(list(names))
        return {}

    @override
    def states(self, names: Sequence[str]) -> Dict[str, str]:
        """Ask the manager."""
        return protocol.states({"data": self._core_manager.status(list(names))})

    @override
    def infos(
        self,
        names: Sequence[str],
        ended: bool,  # it always asks
        submissions: Mapping[str, int],
    ) -> Dict[str, JobInfo]:
        """Ask the manager."""
        return protocol.details({"data": self._core_manager.info(list(names), withChilds=True)})
