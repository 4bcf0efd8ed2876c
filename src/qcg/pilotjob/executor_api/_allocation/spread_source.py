"""Where the futures of a `Spread` get their answers: here for what waits, from its allocation for all else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Sequence

from qcg.pilotjob.executor_api._allocation.several import Spread
from qcg.pilotjob.executor_api._client.answers import ExecutorSource
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api.jobs import JobInfo

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

__all__ = ["SpreadSource"]


class SpreadSource(ExecutorSource):
    """Answers for futures whose jobs may be anywhere."""

    def __init__(self, spread: Spread, manager: Callable[[], Any]) -> None:
        self._spread = spread
        self._manager = manager

    @override
    def await_end(self, future: QCGPJFuture, timeout: Any) -> None:
        self._source(future.ids[0]).await_end(future, timeout)

    @override
    def cancel(self, future: QCGPJFuture) -> bool:
        return (self._spread.take_out(future) and future.cancelled()) or self._source(future.ids[0]).cancel(future)

    @override
    def cancel_some(self, names: Sequence[str]) -> Dict[str, str]:
        return self._source(names[0]).cancel_some(names)

    @override
    def states(self, names: Sequence[str]) -> Dict[str, str]:
        waiting = dict.fromkeys(self._waiting(names), "QUEUED")
        return waiting or self._source(names[0]).states(names)

    @override
    def infos(self, names: Sequence[str], ended: bool, submissions: Mapping[str, int]) -> Dict[str, JobInfo]:
        waiting: Dict[str, JobInfo] = {
            name: {"jobName": name, "status": "QUEUED", "runtime": {}, "history": ""} for name in self._waiting(names)
        }
        return waiting or self._source(names[0]).infos(names, ended, submissions)

    def _waiting(self, names: Sequence[str]) -> List[str]:
        return [] if self._spread.item_of(names[0]).member is not None else list(names)

    def _source(self, name: str) -> ExecutorSource:
        member = self._spread.item_of(name).member
        dispatcher = member.dispatcher if member is not None else self._spread.any_dispatcher
        return ExecutorSource(dispatcher, self._manager)
