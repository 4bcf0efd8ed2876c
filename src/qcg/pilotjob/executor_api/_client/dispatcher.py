"""The one thread between an executor and its manager.

::

    user's threads                     dispatcher's thread                       manager process
    -----------------------------      -------------------------------------     -------------------
    QCGPJExecutor --owns--> Dispatcher
      .submit()  --Unit-------> Inbox -+-> Submission (all that is queued) --REQ--> takes or refuses
    QCGPJFuture --asks-> Dispatcher    |
      .cancel()  --Question---> Inbox -+-> one request at a time ------------REQ--> answers
      .status()                        |
                      Alarm wakes it --+<-- states of ended jobs ------------SUB--- publishes
                                       |<-- end of the ready pipe --------------- process is gone
                                       v
                             pending: job name -> QCGPJFuture --> resolved, callbacks run here

Who owns what: the thread alone touches the Channel (sockets), `_pending`, and the manager process once it is started;
it alone resolves futures. The user's threads touch the Inbox, which has the lock and the Alarm (see inbox.py). The
thread holds the dispatcher, but nothing here holds the executor: when that is garbage, its finalizer calls `abandon`,
which takes no lock.

Its end: told to leave (shutdown, the executor's end, the interpreter's exit), the thread waits until nothing is
pending, asks the manager to finish, and waits for the end of that process. When the process ends by itself, every
pending future breaks at once. Should an event get lost, a slow, batched question for the states of the pending jobs
finds out.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, Mapping, Optional, Protocol, Sequence

from qcg.pilotjob.executor_api._client import endings
from qcg.pilotjob.executor_api._client.channels import Listener, Listeners
from qcg.pilotjob.executor_api._client.inbox import Inbox, Leaving
from qcg.pilotjob.executor_api._client.links import Link, Wire
from qcg.pilotjob.executor_api._client.requests import Call, Check, Follow, Pending, Question, Submission, Unit
from qcg.pilotjob.executor_api._description.rendering import encoded
from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api._shared.futures import ResolvingThread, copy_of_error
from qcg.pilotjob.executor_api.errors import ExecutorClosed, InvalidOption, JobUnknown, ManagerDied
from qcg.pilotjob.executor_api.jobs import FINAL_STATES
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

if TYPE_CHECKING:
    from typing_extensions import Self

    from qcg.pilotjob.executor_api.allocation import AllocationStatus

__all__ = ["Dispatcher", "Leaving"]

_BATCH = 500  # jobs in one request: the manager's loop stands still for about 0.1 ms a job
_CHECK_BATCH = 1000  # names in one question for states
_CHECK_SECONDS = 5.0
_CANCEL_SECONDS = 1.7  # for the manager to end all jobs and itself, before it is killed
_GOES_ON = "the executor was left before the job had ended; the job goes on"
_LOST_SECONDS = 0.9  # for a connection to come back, before the manager counts as dead


Attach = Callable[[Sequence[str], Optional[float]], QCGPJFuture]
"""Gives the future of jobs by their names, within so many seconds; see ``Connection.attach``."""


class CoreClient(Protocol):
    """The client of the core that an executor has for requests by hand."""

    def get(self, dispatcher: Dispatcher, attach: Attach) -> Any:
        """Return it; the first call may make it."""

    def close(self) -> None:
        """Close what was made."""


class Dispatcher:
    """Submits jobs, follows them and resolves their futures; see the module's picture."""

    def __init__(self, link: Link, client: CoreClient) -> None:
        """Take the `link` to the manager, and the `client` of the core for requests by hand; `start` connects."""
        self.link = link
        self._client = client
        self._pid = os.getpid()
        self._inbox = Inbox()
        self._ended = threading.Event()
        # the thread's own
        self._pending = Pending()
        self._urgent: Deque[Call] = deque()
        self._call: Optional[Call] = None
        self._suspects: List[str] = []
        self._check_pause = link.first_check
        self._next_check = time.monotonic() + self._check_pause
        self._lost_since: Optional[float] = None
        self._acted_on = Leaving.NOT
        self._said_goodbye = False
        self._kill_at: Optional[float] = None
        self._listeners = Listeners()
        self._thread = ResolvingThread(target=self._run, name="qcgpj-dispatcher")

    def start(self) -> Self:
        """Start the thread, and return the dispatcher; when that fails, a manager of ours is ended."""
        try:
            endings.register(self)
            self._thread.start()
        except BaseException:  # there is no thread to do this, and the interpreter's exit must not wait for one
            self._ended.set()
            self._inbox.alarm.close()
            endings.unregister(self)
            self.link.kill()
            raise
        return self

    @property
    def dispatchers(self) -> Sequence[Dispatcher]:
        """The dispatchers of all managers: this one."""
        return [self]

    @property
    def statuses(self) -> Sequence[AllocationStatus]:
        """Where the allocations stand that were asked for by this executor."""
        return []

    def core_client(self, attach: Attach) -> Any:
        """Return the client of the core for requests by hand; `attach` gives the futures of jobs by their names."""
        return self._client.get(self, attach)

    def leave_at_exit(self) -> None:
        """Leave when all jobs are done: the interpreter is shutting down."""
        self.leave(Leaving.WHEN_DONE)

    def forget_in_child(self) -> None:
        """Close the child's copies of the descriptors: the manager has to see when the parent's are closed."""
        self._ended = threading.Event()  # a thread that the child does not have may hold the lock of the other one
        self._ended.set()
        self._inbox.forget_in_child()
        self.link.close_descriptors()

    # ---- called by any thread

    def submit(self, future: QCGPJFuture, jobs: Sequence[Any]) -> None:
        """Queue the jobs of `future`.

        Raises:
            ExecutorClosed: after shutdown, at the interpreter's exit, or in a forked child.
            ManagerDied: the manager has gone.
            DuplicateJobName: one of the names was used before.
        """
        self.refuse_in_child()
        self._inbox.submit(Unit(future, ",".join(map(encoded, jobs))))

    def refuse_in_child(self) -> None:
        """Raise ExecutorClosed in a forked child: it has neither the thread nor the connection."""
        if os.getpid() != self._pid:
            raise ExecutorClosed(f"this executor belongs to process {self._pid}; a forked child needs one of its own")

    def ask(self, message: bytes) -> Question:
        """Queue a request, behind what was submitted before it, and return what will hold its reply."""
        self.refuse_in_child()
        question = Question(message)
        self._inbox.put(question)
        return question

    def glance(self, message: bytes) -> Question:
        """Do as `ask`, for an answer that is of use only at once: without a manager there is an error instead."""
        self.refuse_in_child()
        question = Question(message, is_glance=True)
        self._inbox.put(question)
        return question

    def follow(self, future: QCGPJFuture) -> "Future[None]":
        """Let `future` follow jobs that the manager has; return what raises JobUnknown when it has them not.

        Raises:
            ExecutorClosed: after shutdown, at the interpreter's exit, or in a forked child.
            ManagerDied: the manager has gone.
        """
        self.refuse_in_child()
        self._inbox.refuse_when_leaving()
        follow = Follow(future, self._found, self._refuse)
        self._inbox.put(follow)
        return follow.known

    def tell_who_waits(self, listener: Listener) -> None:
        """Tell `listener`, in this thread, which job has waited longest for cores, as long as one does."""
        self._listeners.add(listener)
        self._inbox.alarm.set()

    def flush(self, timeout: Optional[float] = None) -> None:
        """Wait until the manager has taken or refused all that was submitted; at once in a callback.

        Raises:
            concurrent.futures.TimeoutError: it has not after `timeout` seconds.
        """
        if self._inbox.take_unflushed() and not self.is_current_thread:
            try:
                self.ask(protocol.request("status", options={"allJobsFinished": True})).reply.exception(timeout)
            except FutureTimeoutError:
                self._inbox.note_unflushed()
                raise

    def forget(self, names: List[str], removed: Optional[Mapping[str, int]] = None) -> None:
        """Let names be used again; `removed` has the numbers of the submissions that were removed."""
        self._inbox.forget(names, removed)

    def leave(self, how: Leaving) -> None:
        """Take no more jobs, and end as `how` says."""
        self._inbox.leave(how)

    def wake(self) -> None:
        """Have the thread look at what there is to do. It takes no lock, so it can be called in a finalizer."""
        self._inbox.alarm.set()

    def detach(self) -> str:
        """Refuse.

        Raises:
            InvalidOption: always.
        """
        raise InvalidOption("detach() is for an executor with allocation=; this one's manager ends with it")

    def abandon(self) -> None:
        """Leave when all jobs are done. Takes no lock: garbage is collected while somebody may hold it."""
        self._inbox.abandon()

    def join(self, timeout: Optional[float] = None) -> bool:
        """Wait for the end of the thread, with that of a manager of ours; return whether it came."""
        if not self.may_be_waited_for or os.getpid() != self._pid or not self._ended.wait(timeout):
            return False
        if self._thread.ident is not None:
            self._thread.join()
        return True

    @property
    def has_ended(self) -> bool:
        """Whether the thread, and a manager of ours, have ended."""
        return self._ended.is_set()

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller runs in the dispatcher's thread, as a future's callback does; it must not wait there."""
        return threading.current_thread() is self._thread

    @property
    def may_be_waited_for(self) -> bool:
        """Whether the caller may wait for it: its own thread must not, nor garbage that is collected under its lock."""
        return not self.is_current_thread and not self._inbox.is_locked_here

    # ---- the thread

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

    def _submission(self, units: List[Unit]) -> Submission:
        for unit in units:
            self._pending.add(unit.future)
        if not self.link.trusted:
            self._check_in(self.link.first_check)
        return Submission(units, self._refuse)

    def _check(self) -> Optional[Check]:
        names: List[str] = []
        if self._suspects:
            suspects, self._suspects = self._suspects[:_CHECK_BATCH], self._suspects[_CHECK_BATCH:]
            names = [name for name in suspects if name in self._pending]
        elif self._pending and time.monotonic() >= self._next_check:
            names = self._pending.next_in_turn(_CHECK_BATCH)
            self._check_in(min(_CHECK_SECONDS, self._check_pause * 2))
        return Check(names, self._found, self._unknown) if names else None

    def _check_in(self, seconds: float) -> None:
        self._check_pause = seconds
        self._next_check = time.monotonic() + seconds

    def _heard(self, name: str, state: str, submission: int) -> None:
        if self.link.trusted:
            self._job_ended(name, state, submission)
        elif name in self._pending:  # the core's event may carry the state of one iteration
            self._suspects.append(name)

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
            self.forget([name])  # its owner may remove it there
        for future in futures:
            future._job_ended(name, state)

    def _refuse(self, future: QCGPJFuture, error: BaseException) -> None:
        self._pending.remove(future)
        self.forget(future.ids)
        future._break(error)

    # ---- the thread's way out

    def _act_on_leaving(self) -> None:
        if self._inbox.abandoned():
            self.leave(Leaving.WHEN_DONE)
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
            for names in _chunks(list(self._pending)):
                self._urgent.append(Check(names, self._cancel_queued, lambda _: None))
        if how == Leaving.NOW:
            self._kill_at = time.monotonic() + _CANCEL_SECONDS
            if self.link.is_ours:
                self._said_goodbye = True
                self._urgent.append(self._farewell("finish"))
            else:
                self._leave_attached()
                cancels = (protocol.request("cancelJob", names) for names in _chunks([*self._pending]))
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
        """Whether the thread can end; with a manager of ours its end is still to come."""
        return self._inbox.is_done and not self._pending and not self.link.is_ours

    def _pause(self) -> Optional[float]:
        due = self._next_check if self._pending else math.inf
        if self._kill_at is not None:
            due = min(due, self._kill_at)
        if self._lost_since is not None:
            due = min(due, self._lost_since + _LOST_SECONDS)
        return max(0.0, due - time.monotonic()) if due < math.inf else None

    def _gives_up(self, channel: Wire) -> bool:
        """Whether to wait no longer: the connection is lost for good, or jobs that have to end do not."""
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
            if isinstance(item, Unit):
                item.future._break(copy_of_error(error))
            else:
                item.failed(copy_of_error(error))
        self._inbox.alarm.close()
        self._client.close()
        endings.unregister(self)


def _chunks(names: List[str]) -> List[List[str]]:
    return [names[start : start + _CHECK_BATCH] for start in range(0, len(names), _CHECK_BATCH)]
