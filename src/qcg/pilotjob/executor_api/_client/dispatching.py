"""The dispatcher's thread: what it sends, hears and resolves. The picture is in dispatcher.py."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Deque, Dict, List, Optional, Protocol

from qcg.pilotjob.executor_api._client import endings
from qcg.pilotjob.executor_api._client.channels import Listeners
from qcg.pilotjob.executor_api._client.inbox import Inbox, Leaving
from qcg.pilotjob.executor_api._client.links import Link, Wire
from qcg.pilotjob.executor_api._client.requests import (
    Call,
    Check,
    Follow,
    Pending,
    Question,
    StateChecks,
    Submission,
    SubmittedJobs,
    in_batches,
)
from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api._shared.futures import ResolvingThread, copy_of_error
from qcg.pilotjob.executor_api.errors import ExecutorClosed, JobUnknown, ManagerDied
from qcg.pilotjob.executor_api.jobs import FINAL_STATES
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

if TYPE_CHECKING:
    pass

__all__ = ["Dispatching"]

_BATCH = 500  # jobs in one request: the manager's loop stands still for about 0.1 ms a job
_CANCEL_SECONDS = 1.7  # for the manager to end all jobs and itself, before it is killed
_GOES_ON = "the executor was left before the job had ended; the job goes on"
_LOST_SECONDS = 0.9  # for a connection to come back, before the manager counts as dead


class Closable(Protocol):
    """Is closed when the dispatcher has ended."""

    def close(self) -> None:
        """Close what is open."""


class Dispatching:
    """Sends what the user's threads have left in the inbox, and resolves futures, in a thread of its own."""

    def __init__(self, link: Link, client: Closable) -> None:
        """Take the `link` to the manager; `client` is closed at the end."""
        self.link = link
        self._client = client
        self._pid = os.getpid()
        self._inbox = Inbox()
        self._ended = threading.Event()
        # the thread's own
        self._pending = Pending()
        self._urgent: Deque[Call] = deque()
        self._call: Optional[Call] = None
        self._checks = StateChecks(link.first_check)
        self._lost_since: Optional[float] = None
        self._acted_on = Leaving.NOT
        self._said_goodbye = False
        self._kill_at: Optional[float] = None
        self._listeners = Listeners()
        self._thread = ResolvingThread(target=self._run, name="qcgpj-dispatcher")

    def _run(self) -> None:
        try:
            with self.link.channel(self._inbox.alarm) as channel:
                self._dispatch_until_lost(channel)
        except BaseException as error:  # noqa: BLE001  # every future gets it; nobody may wait for ever
            if os.getpid() == self._pid:
                self._break(error)
        finally:
            if os.getpid() == self._pid:  # a child that was forked in a callback has nothing to end
                self._finish()

    def _dispatch_until_lost(self, channel: Wire) -> None:
        try:
            self._dispatch(channel)
        except ManagerDied:
            self._look_at_record()
            raise

    def _dispatch(self, channel: Wire) -> None:
        while True:
            self._act_on_leaving()
            if self._is_over(channel):
                return
            if not channel.awaits_reply and (channel.greeted or not self.link.greets):
                self._call = self._next_call()
                if self._call is not None:
                    channel.send(self._call.message())
                elif self._nothing_left():
                    return
            manager_ended = channel.wait(self._pause())
            for name, state, submission in channel.finished_jobs():
                self._heard(name, state, submission)
            self._listeners.hear(channel)
            reply = channel.reply()
            if reply is not None and self._call is not None:
                self._urgent.extendleft(reversed(self._call.answered(reply)))
                self._call = None
            if manager_ended:
                self._manager_ended()
                return
            if self._gives_up(channel):
                return

    def _is_over(self, channel: Wire) -> bool:  # noqa: ARG002  # elsewhere it counts
        """Return whether the thread has nothing more to do, before it looks for what is to be sent."""
        return False

    def _next_call(self) -> Optional[Call]:
        if self._urgent:
            return self._urgent.popleft()
        units, other = self._inbox.take(_BATCH)
        if units:
            return self._submission(units)
        if other is not None:
            if isinstance(other, Follow):
                self._pending.add(other.future, attached=True)
            return other
        if self._inbox.is_done and not self._pending and not self._said_goodbye and self.link.is_ours:
            self._said_goodbye = True
            return self._farewell("control", command="finishAfterAllTasksDone")
        return self._check()

    def _submission(self, units: List[SubmittedJobs]) -> Submission:
        for unit in units:
            self._pending.add(unit.future)
        if not self.link.trusted:
            self._checks.put_off(self.link.first_check)
        return Submission(units, self._refuse)

    def _check(self) -> Optional[Check]:
        names = self._checks.names(self._pending)
        return Check(names, self._found, self._unknown) if names else None

    def _heard(self, name: str, state: str, submission: int) -> None:
        if self.link.trusted:
            self._job_ended(name, state, submission)
        elif name in self._pending:  # the core's event may carry the state of one iteration
            self._checks.suspects.append(name)

    def _found(self, states: Dict[str, str], submissions: Dict[str, int]) -> None:
        for name, state in states.items():
            if state in FINAL_STATES:
                self._job_ended(name, state, submissions.get(name, 1))

    def _unknown(self, name: str) -> None:
        for future in self._pending.pop(name):
            self._refuse(future, JobUnknown(f"the manager does not know the job {name!r} any more: it was removed"))

    def _job_ended(self, name: str, state: str, submission: Optional[int] = None) -> None:
        futures = self._pending.pop(name, submission)
        if futures and not self.link.trusted:
            self._inbox.forget([name])  # its owner may remove it there
        for future in futures:
            future._job_ended(name, state)

    def _refuse(self, future: QCGPJFuture, error: BaseException) -> None:
        self._pending.remove(future)
        self._inbox.forget(future.ids)
        future._break(error)

    # ---- the thread's way out

    def _act_on_leaving(self) -> None:
        if self._inbox.abandoned():
            self._inbox.leave(Leaving.WHEN_DONE)
        how = self._inbox.leaving
        if how <= self._acted_on:
            return
        self._acted_on = how
        if how >= Leaving.WITHOUT_QUEUED:
            self._drop_unsent()
        if how == Leaving.WITHOUT_QUEUED and self.link.is_ours:
            self._said_goodbye = True
            self._urgent.append(self._farewell("control", command=protocol.FINISH_RUNNING))
        elif how == Leaving.WITHOUT_QUEUED:
            for names in in_batches(list(self._pending)):
                self._urgent.append(Check(names, self._cancel_queued, lambda _: None))
        if how == Leaving.NOW:
            self._kill_at = time.monotonic() + _CANCEL_SECONDS
            if self.link.is_ours:
                self._said_goodbye = True
                self._urgent.append(self._farewell("finish"))
            else:
                self._leave_attached()
                cancels = (protocol.request("cancelJob", names) for names in in_batches([*self._pending]))
                self._urgent.extend(Question(cancel) for cancel in cancels)

    def _farewell(self, request: str, **fields: str) -> Question:
        """Return what tells the manager to end."""
        link = self.link
        question = Question(protocol.request(request, **fields))
        question.reply.add_done_callback(lambda _: link.farewell())
        return question

    def _leave_attached(self) -> None:
        """Follow jobs no more that are not ours: they go on."""
        for future in self._pending.attached():
            self._refuse(future, ExecutorClosed(_GOES_ON))

    def _drop_unsent(self) -> None:
        for unit in self._inbox.take_unsent():
            for name in unit.future.ids:
                unit.future._job_ended(name, "CANCELED")

    def _cancel_queued(self, states: Dict[str, str], submissions: Dict[str, int]) -> None:
        """Cancel the jobs submitted here that have not started, and follow no more those of others that have not."""
        self._found(states, submissions)
        queued = {name for name, state in states.items() if state == "QUEUED"}
        names = [name for name in queued if self._pending.is_ours(name)]
        if names:
            self._urgent.append(Question(protocol.request("cancelJob", names)))
        for future in self._pending.attached():
            if not queued.difference(names).isdisjoint(future.ids):
                self._refuse(future, ExecutorClosed(_GOES_ON))

    def _nothing_left(self) -> bool:
        """Return whether the thread can end; when the manager is ours, the thread waits for the manager's end first."""
        return self._inbox.is_done and not self._pending and not self.link.is_ours

    def _pause(self) -> Optional[float]:
        due = self._checks.due if self._pending else math.inf
        if self._kill_at is not None:
            due = min(due, self._kill_at)
        if self._lost_since is not None:
            due = min(due, self._lost_since + _LOST_SECONDS)
        return max(0.0, due - time.monotonic()) if due < math.inf else None

    def _gives_up(self, channel: Wire) -> bool:
        """Return whether to wait no longer: the connection is lost for good, or jobs that have to end do not."""
        if self._kill_at is None and not channel.lost:
            self._lost_since = None
            return False
        now = time.monotonic()
        self._lost_since = (self._lost_since or now) if channel.lost else None
        if self._lost_since is not None and now - self._lost_since >= _LOST_SECONDS:
            raise self.link.obituary()
        if self._kill_at is None or now < self._kill_at:
            return False
        self.link.kill()
        self._look_at_record()
        self._cancel_pending()
        return True

    def _manager_ended(self) -> None:
        self.link.clean_up()
        self._look_at_record()
        if self._acted_on == Leaving.NOW:
            self._cancel_pending()
        if self._pending or not self._said_goodbye:
            self._break(self.link.obituary())

    def _cancel_pending(self) -> None:
        for name in list(self._pending):
            self._job_ended(name, "CANCELED")

    def _look_at_record(self) -> None:
        """Find the ends that nobody could tell any more."""
        for name in list(self._pending):
            state = self.link.recorded_state(name)
            if state and self.link.report is not None:
                self._job_ended(name, state, self.link.report.submission(name))

    def _break(self, error: BaseException) -> None:
        self._inbox.break_(error)
        for future in self._pending.futures():
            self._pending.remove(future)
            future._break(copy_of_error(error))

    def _finish(self) -> None:
        """Leave nothing behind: no process, no socket, nobody who waits."""
        if not self.link.wait(1.0):
            self.link.kill()
        self.link.clean_up()
        left, error = self._inbox.close()
        self._ended.set()
        for item in [*left, *self._urgent, *([self._call] if self._call else [])]:
            if isinstance(item, SubmittedJobs):
                item.future._break(copy_of_error(error))
            else:
                item.failed(copy_of_error(error))
        self._inbox.alarm.close()
        self._client.close()
        endings.unregister(self)
