"""A dispatcher whose manager is in an allocation: not there yet, out of reach for a while, or followed by another one.

It does all that the dispatcher does, and more: questions are answered before there is a manager,
states are asked for after each gap in the connection, another allocation is asked for when it is needed, and all of it
can be left to itself.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Mapping, Optional, Protocol, Sequence

from qcg.pilotjob.executor_api._client.dispatcher import CoreClient, Dispatcher
from qcg.pilotjob.executor_api._client.inbox import Inbox, Leaving
from qcg.pilotjob.executor_api._client.links import DetachedAllocation, Link, Wire
from qcg.pilotjob.executor_api._client.requests import Pending, Question
from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api._shared.futures import copy_of_error
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.run_files import Directories
from qcg.pilotjob.executor_api.allocation import AllocationStatus
from qcg.pilotjob.executor_api.errors import ExecutorClosed, InvalidOption, ManagerDied
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

__all__ = ["Owner", "RemoteDispatcher", "answer"]


def answer(inbox: Inbox, pending: Pending, cancel: Callable[[List[str]], bool] = lambda _: False) -> None:
    """Answer the questions in `inbox` that need no manager: for jobs that wait there to be sent, or are `pending`.

    A job that waits is QUEUED; when it is cancelled it is not sent any more. Jobs that an earlier manager had are given
    to `cancel`, which returns whether it could cancel them. What else is asked stays in the inbox.
    """
    for question in inbox.take_questions():
        if question.is_glance:  # kept here, it would let another allocation be asked for
            question.failed(ManagerDied("there is no manager at the moment"))
            continue
        request = json.loads(question.message())
        names: List[str] = request.get("jobNames", [])
        if request["request"] == "cancelJob" and (inbox.drop(names) or cancel(names)):
            question.answered({"code": 0, "data": {}})
        elif request["request"] in ("jobStatus", "jobInfo") and all(
            name in pending or inbox.has_unsent(name) for name in names
        ):
            question.answered({"code": 0, "data": {"jobs": {name: {"data": _queued(name)} for name in names}}})
        else:
            inbox.keep(question)


def _queued(name: str) -> Dict[str, Any]:
    return {"jobName": name, "status": "QUEUED", "runtime": {}, "history": ""}


class AllocationGuard(Protocol):
    """Looks after an allocation that this executor has asked for."""

    status: AllocationStatus
    directories: Directories
    has_lapsed: bool

    def renew(self) -> None:
        """Ask for the next allocation."""

    @property
    def runs_nothing(self) -> bool:
        """Whether an allocation has ended and the next one has no manager yet, so that none of the jobs runs."""

    def cancel(self, jobs: Mapping[str, int]) -> None:
        """Put on record, for the next manager, that jobs are cancelled; `jobs` has the numbers of their submissions."""

    def kill(self) -> None:
        """Give the allocation back."""

    def detach(self, jobs: Optional[Sequence[str]] = None) -> None:
        """Leave the allocation to itself, and `jobs` to its manager when that is not there yet."""

    def clean_up(self) -> None:
        """Collect the process that looks after the allocation."""


class Owner(Protocol):
    """Has several dispatchers, and sees to what they cannot see to alone."""

    @property
    def wants_more(self) -> bool:
        """Whether jobs wait for cores."""

    def leave_if_abandoned(self) -> None:
        """Leave when all jobs are done, if nobody has the executor any more."""

    def leave(self, how: Leaving) -> None:
        """Take no more jobs, and end as `how` says."""

    def salvage(self, dispatcher: AllocationDispatcher, futures: Sequence[QCGPJFuture], error: BaseException) -> None:
        """Take over the unfinished jobs of a dispatcher whose manager has ended."""


class RemoteDispatcher(Dispatcher):
    """The dispatcher for a manager on another machine, in an allocation that another program has asked for."""

    _description: Optional[Dict[str, Any]] = None

    @override
    def detach(self) -> str:
        """Refuse: the allocation is not this executor's.

        Raises:
            InvalidOption: always.
        """
        self.refuse_in_child()
        raise InvalidOption("detach() is for whoever asked for the allocation; this one was found by manager=")

    # ---- the thread

    @override
    def _is_over(self, channel: Wire) -> bool:
        if channel.description is not None and channel.description is not self._description:
            self._description = channel.description
            self.link.describe(channel.description)
        if channel.has_missed():
            self._checks.suspects = list(self._pending)
        if not channel.greeted:
            answer(self._inbox, self._pending, self._cancel_between_managers)
        return False

    def _cancel_between_managers(self, names: List[str]) -> bool:  # noqa: ARG002  # whose allocation it is can
        """Cancel jobs while there is no manager; return whether that was possible."""
        return False


class AllocationDispatcher(RemoteDispatcher):
    """The dispatcher for a manager in an allocation that this executor has asked for, through a `guard`."""

    def __init__(self, link: Link, client: CoreClient, guard: AllocationGuard, owner: Optional[Owner] = None) -> None:
        super().__init__(link, client)
        self._guard = guard
        self._owner = owner
        self._detached: Optional[Question] = None

    @property
    @override
    def statuses(self) -> Sequence[AllocationStatus]:
        return [self._guard.status]

    @override
    def leave_at_exit(self) -> None:
        (self._owner or self).leave(Leaving.WHEN_DONE)

    @override
    def detach(self) -> str:
        """Take no more jobs, and leave the allocation to itself; return the directory by which it is found again."""
        self.refuse_in_child()
        self._inbox.refuse_when_leaving()
        self._inbox.detach()
        self.join()
        return self._guard.directories.aux

    # ---- the thread

    @override
    def _is_over(self, channel: Wire) -> bool:
        super()._is_over(channel)
        if self._owner is not None:
            self._owner.leave_if_abandoned()
        return self._has_detached(channel) or self._needs_no_manager(channel)

    def _needs_no_manager(self, channel: Wire) -> bool:
        """See to it that there is an allocation when it is needed; return whether none is, nor will be."""
        if channel.greeted:
            return False
        if self._pending or self._inbox.has_items or (self._owner is not None and self._owner.wants_more):
            if self._guard.has_lapsed:
                self._guard.renew()
            return False
        if not self._inbox.is_done:
            return False
        self._said_goodbye = True
        self._guard.kill()
        return True

    @override
    def _cancel_between_managers(self, names: List[str]) -> bool:
        """Cancel jobs of an allocation that has ended, before the next one begins; return whether that was possible."""
        guard = self._guard
        owners = [name.partition(":")[0] for name in names]
        if not guard.runs_nothing or not all(owner in self._pending for owner in owners):
            return False
        try:
            guard.cancel({name: self._pending.submission(owner) for name, owner in zip(names, owners)})
        except OSError:
            return False  # the next manager is asked
        if not guard.runs_nothing:  # a manager has come just now, which may have looked for cancels before
            return False
        for name in names:
            if ":" not in name:
                self._job_ended(name, "CANCELED")
        return True

    def _has_detached(self, channel: Wire) -> bool:
        """Detach, when that is wished and possible now; return whether it has happened."""
        guard = self._guard
        if not self._inbox.detaching or self._call is not None:
            return False
        if self._detached is None and guard.status.state == "LAPSED" and (self._pending or self._inbox.has_units):
            return False  # `_needs_no_manager` has the guard ask for the allocation that takes them; then it may go
        if self._detached is None and channel.greeted:
            if not self._inbox.has_units:  # all that was submitted has arrived
                self._detached = Question(protocol.request("control", command=protocol.DETACH))
                self._urgent.append(self._detached)
            return False
        if self._detached is not None and not self._detached.reply.done():
            return False
        unsent = self._inbox.take_unsent()
        guard.detach(None if self._detached is not None else [unit.jobs for unit in unsent])
        guard.clean_up()
        self.link = DetachedAllocation(self.link.capacity, self.link.report)
        error = ExecutorClosed(f"the executor was detached; manager={guard.directories.aux!r} follows its jobs")
        for future in [*self._pending.futures(), *(unit.future for unit in unsent)]:
            self._pending.remove(future)
            future._break(copy_of_error(error))
        return True

    @override
    def _break(self, error: BaseException) -> None:
        if self._owner is not None and self._acted_on < Leaving.WITHOUT_QUEUED:
            self._inbox.break_(error)
            lost = [*self._pending.futures(), *(unit.future for unit in self._inbox.take_unsent())]
            self._pending = Pending()
            self._owner.salvage(self, lost, error)
        super()._break(error)
