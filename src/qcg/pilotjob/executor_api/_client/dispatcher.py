"""The one thread between an executor and its manager.

::

    user's threads                     dispatcher's thread                       manager process
    -----------------------------      -------------------------------------     -------------------
    QCGPJExecutor --owns--> Dispatcher
      .submit()  --SubmittedJobs-------> Inbox -+-> Submission (all that is queued) --REQ--> takes or refuses
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

import os
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Callable, List, Mapping, Optional, Protocol, Sequence

from qcg.pilotjob.executor_api._client import endings
from qcg.pilotjob.executor_api._client.channels import Listener
from qcg.pilotjob.executor_api._client.dispatching import Dispatching
from qcg.pilotjob.executor_api._client.inbox import Leaving
from qcg.pilotjob.executor_api._client.links import Link
from qcg.pilotjob.executor_api._client.requests import (
    Follow,
    Question,
    SubmittedJobs,
)
from qcg.pilotjob.executor_api._description.rendering import encoded
from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api.errors import ExecutorClosed, InvalidOption
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

if TYPE_CHECKING:
    from typing_extensions import Self

    from qcg.pilotjob.executor_api.allocation import AllocationStatus

__all__ = ["Attach", "CoreClient", "Dispatcher", "Leaving"]


Attach = Callable[[Sequence[str], Optional[float]], QCGPJFuture]
"""Gives the future of jobs by their names, within so many seconds; see ``Connection.attach``."""


class CoreClient(Protocol):
    """The client of the core that an executor has for requests by hand."""

    def get(self, dispatcher: Dispatcher, attach: Attach) -> Any:
        """Return it; the first call may make it."""

    def close(self) -> None:
        """Close what was made."""


class Dispatcher(Dispatching):
    """Submits jobs, follows them and resolves their futures; see the module's picture. Any thread may use it."""

    def __init__(self, link: Link, client: CoreClient) -> None:
        """Take the `link` to the manager, and the `client` of the core for requests by hand; `start` connects."""
        super().__init__(link, client)
        self._core_client = client

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
        return self._core_client.get(self, attach)

    def leave_at_exit(self) -> None:
        """Leave when all jobs are done: the interpreter is shutting down."""
        self.leave(Leaving.WHEN_DONE)

    def forget_in_child(self) -> None:
        """Close the child's copies of the descriptors: the manager has to see when the parent's are closed."""
        self._ended = threading.Event()  # a thread that the child does not have may hold the lock of the other one
        self._ended.set()
        self._inbox.forget_in_child()
        self.link.close_descriptors()

    def submit(self, future: QCGPJFuture, jobs: Sequence[Any]) -> None:
        """Queue the jobs of `future`.

        Raises:
            ExecutorClosed: after shutdown, at the interpreter's exit, or in a forked child.
            ManagerDied: the manager has gone.
            DuplicateJobName: one of the names was used before.
        """
        self.refuse_in_child()
        self._inbox.submit(SubmittedJobs(future, ",".join(map(encoded, jobs))))

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
        """Have `future` follow jobs that the manager has; the returned future raises JobUnknown when it has not.

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
        """Free the names for other jobs; `removed` has the numbers of the submissions that were removed."""
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
