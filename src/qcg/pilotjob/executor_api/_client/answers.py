"""Where a future gets its answers: from an executor's dispatcher, or from a core manager that it was made with."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Protocol, Sequence

from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api.errors import JobTimeout, JobUnknown, QCGPJError
from qcg.pilotjob.executor_api.jobs import FINAL_STATES, JobInfo

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._client.dispatcher import Dispatcher
    from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

__all__ = ["ExecutorSource", "ManagerSource", "Source"]

_ANSWER_SECONDS = 60.0


class Source(Protocol):
    """Answers a future's questions."""

    @property
    def manager(self) -> Any:
        """The core manager that can be asked by hand."""

    def refresh(self, future: QCGPJFuture) -> None:
        """Bring the future up to date."""

    def await_end(self, future: QCGPJFuture, timeout: Optional[float]) -> None:
        """Return when ``Future.result`` may be called."""

    def cancel(self, future: QCGPJFuture) -> bool:
        """Cancel the future's jobs; return whether it is or will be cancelled."""

    def cancel_some(self, names: Sequence[str]) -> Dict[str, str]:
        """Cancel iterations by name; return why some were not."""

    def states(self, names: Sequence[str]) -> Dict[str, str]:
        """Return the jobs' states."""

    def infos(self, names: Sequence[str], ended: bool, submissions: Mapping[str, int]) -> Dict[str, JobInfo]:
        """Return what is known of the jobs; `submissions` tells which ones of their names, where not the first."""


class ExecutorSource:
    """Answers for the futures of an executor."""

    def __init__(self, dispatcher: Dispatcher, manager: Callable[[], Any]) -> None:
        self._dispatcher = dispatcher
        self._manager = manager

    @property
    def manager(self) -> Any:
        """The executor's ``qcgpj_manager``."""
        return self._manager()

    def refresh(self, future: QCGPJFuture) -> None:
        """Do nothing: the dispatcher resolves its futures."""

    def await_end(self, future: QCGPJFuture, timeout: Optional[float]) -> None:
        """Refuse to wait where that would be for ever."""
        if future.done():
            return
        self._dispatcher.refuse_in_child()
        if self._dispatcher.is_current_thread and timeout is None:
            raise QCGPJError("result() of an unfinished job cannot be waited for in a done-callback: it would hang")

    def cancel(self, future: QCGPJFuture) -> bool:
        """Cancel the jobs; wait for their end, except where nobody may wait: in a callback or an event loop."""
        message = protocol.request("cancelJob", future.ids)
        if not self._dispatcher.may_be_waited_for or _in_event_loop():
            self._dispatcher.ask(message)
            return future._cancel_now()
        ended = threading.Event()
        self._dispatcher.ask(message)
        future.add_done_callback(lambda _: ended.set())
        ended.wait(_ANSWER_SECONDS)
        return future.cancelled()

    def cancel_some(self, names: Sequence[str]) -> Dict[str, str]:
        """Ask the manager to cancel iterations."""
        return dict(self._answer(protocol.request("cancelJob", names))["data"].get("errors", {}))

    def states(self, names: Sequence[str]) -> Dict[str, str]:
        """Ask the manager."""
        return protocol.states(self._answer(protocol.request("jobStatus", names)))

    def infos(self, names: Sequence[str], ended: bool, submissions: Mapping[str, int]) -> Dict[str, JobInfo]:
        """Look at the manager's record for jobs that have ended, ask it for the others."""
        report = self._dispatcher.link.report
        if ended and report is not None:
            recorded = ((name, report.info(name, submissions.get(name, 1))) for name in names)
            return {name: info for name, info in recorded if info is not None}
        return protocol.details(self._answer(protocol.request("jobInfo", names, params={"withChilds": True})))

    def _answer(self, message: bytes) -> Dict[str, Any]:
        if self._dispatcher.is_current_thread:
            raise QCGPJError("the manager cannot be asked about unfinished jobs in a done-callback: it would hang")
        try:
            reply = self._dispatcher.ask(message).reply.result(_ANSWER_SECONDS)
        except FutureTimeoutError:
            raise JobTimeout(f"the manager has not answered for {_ANSWER_SECONDS:g} s; the jobs go on") from None
        if reply["code"] != 0:
            raise JobUnknown(str(reply.get("message")))
        return reply


class ManagerSource:
    """Answers for a future that was made by hand: it asks ``manager.status(ids)`` whenever the future is asked.

    There is no thread behind it, so it is resolved when somebody asks, and callbacks run then.
    """

    _PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

    def __init__(self, manager: Any) -> None:
        self._core_manager = manager

    @property
    def manager(self) -> Any:
        """The manager that the future was made with."""
        return self._core_manager

    def refresh(self, future: QCGPJFuture) -> None:
        """Ask for the states of the jobs that have not ended."""
        names = future._unfinished()
        for name, state in self.states(names).items() if names else ():
            if state in FINAL_STATES:
                future._job_ended(name, state)

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

    def cancel(self, future: QCGPJFuture) -> bool:
        """Cancel the jobs and wait for their end."""
        self._core_manager.cancel(future._unfinished())
        self.await_end(future, _ANSWER_SECONDS)
        return future.cancelled()

    def cancel_some(self, names: Sequence[str]) -> Dict[str, str]:
        """Ask the manager to cancel iterations; the core's client keeps to itself which it refused."""
        self._core_manager.cancel(list(names))
        return {}

    def states(self, names: Sequence[str]) -> Dict[str, str]:
        """Ask the manager."""
        return protocol.states({"data": self._core_manager.status(list(names))})

    def infos(
        self,
        names: Sequence[str],
        ended: bool,  # noqa: ARG002  # it always asks
        submissions: Mapping[str, int],  # noqa: ARG002
    ) -> Dict[str, JobInfo]:
        """Ask the manager."""
        return protocol.details({"data": self._core_manager.info(list(names), withChilds=True)})


def _in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")  # whoever runs a loop has imported it; nobody else should pay for it
    return asyncio is not None and asyncio._get_running_loop() is not None
