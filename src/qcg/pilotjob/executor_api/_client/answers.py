"""Answers the questions of an executor's futures: from the dispatcher, the manager and its record."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Sequence

from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api.errors import JobTimeout, JobUnknown, QCGPJError
from qcg.pilotjob.executor_api.jobs import JobInfo
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture, Source

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._client.dispatcher import Dispatcher

__all__ = ["ExecutorSource"]


class ExecutorSource(Source):
    """Answers for the futures of an executor."""

    def __init__(self, dispatcher: Dispatcher, manager: Callable[[], Any]) -> None:
        self._dispatcher = dispatcher
        self._manager = manager

    @property
    @override
    def manager(self) -> Any:
        """The executor's ``qcgpj_manager``."""
        return self._manager()

    @override
    def refresh(self, future: QCGPJFuture) -> None:
        """Do nothing: the dispatcher resolves its futures."""

    @override
    def await_end(self, future: QCGPJFuture, timeout: Optional[float]) -> None:
        """Refuse to wait where that would be for ever."""
        if future.done():
            return
        self._dispatcher.refuse_in_child()
        if self._dispatcher.is_current_thread and timeout is None:
            raise QCGPJError("result() of an unfinished job cannot be waited for in a done-callback: it would hang")

    @override
    def cancel(self, future: QCGPJFuture) -> bool:
        """Cancel the jobs; wait for their end, except where nobody may wait: in a callback or an event loop."""
        message = protocol.request("cancelJob", future.ids)
        if not self._dispatcher.may_be_waited_for or _in_event_loop():
            self._dispatcher.ask(message)
            return future._cancel_now()
        ended = threading.Event()
        self._dispatcher.ask(message)
        future.add_done_callback(lambda _: ended.set())
        ended.wait(protocol.ANSWER_SECONDS)
        return future.cancelled()

    @override
    def cancel_some(self, names: Sequence[str]) -> Dict[str, str]:
        """Ask the manager to cancel iterations."""
        return dict(self._answer(protocol.request("cancelJob", names))["data"].get("errors", {}))

    @override
    def states(self, names: Sequence[str]) -> Dict[str, str]:
        """Ask the manager."""
        return protocol.states(self._answer(protocol.request("jobStatus", names)))

    @override
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
            reply = self._dispatcher.ask(message).reply.result(protocol.ANSWER_SECONDS)
        except FutureTimeoutError:
            raise JobTimeout(
                f"the manager has not answered for {protocol.ANSWER_SECONDS:g} s; the jobs go on"
            ) from None
        if reply["code"] != 0:
            raise JobUnknown(str(reply.get("message")))
        return reply


def _in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")  # whoever runs a loop has imported it; nobody else should pay for it
    return asyncio is not None and asyncio._get_running_loop() is not None
