"""The requests that the dispatcher sends, and the futures that wait for the ends of jobs.

The manager takes or refuses a request as a whole. Where one job of many may be at fault, a refused request is asked
again in halves, so that in the end only what is at fault is refused.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Protocol, Sequence, Set, Tuple, Union

from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api.errors import JobRefused, JobUnknown

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

__all__ = [
    "CHECK_BATCH",
    "Call",
    "Check",
    "Follow",
    "Pending",
    "Question",
    "StateChecks",
    "Submission",
    "SubmittedJobs",
    "in_batches",
]


CHECK_BATCH = 1000  # names in one question for states
_CHECK_SECONDS = 5.0  # between two questions, at the most


class Call(Protocol):
    """A request and what becomes of its reply."""

    def message(self) -> bytes:
        """Return the request."""

    def answered(self, reply: Dict[str, Any]) -> List[Call]:
        """Take the reply; return the calls to be made before all others."""

    def failed(self, error: BaseException) -> None:
        """Take the news that there will be no reply."""


@dataclass(eq=False)
class SubmittedJobs:
    """The jobs of one submit(), as JSON with commas between: they are taken or refused together."""

    __slots__ = ("future", "jobs")
    future: QCGPJFuture
    jobs: str


@dataclass
class Submission:
    """Jobs for the manager, from any number of submit() calls."""

    units: List[SubmittedJobs]
    refuse: Callable[[QCGPJFuture, BaseException], None]

    def message(self) -> bytes:
        """Return the request."""
        return protocol.submission(unit.jobs for unit in self.units)

    def answered(self, reply: Dict[str, Any]) -> List[Call]:
        """Refuse the one unit, or find among several the one that is at fault."""
        if reply["code"] == 0:
            again: Dict[str, int] = (reply.get("data") or {}).get("submissions", {})
            for unit in self.units if again else ():
                unit.future._are_submissions(again)
            return []
        if len(self.units) == 1:
            names = ", ".join(self.units[0].future.ids)
            self.refuse(self.units[0].future, JobRefused(f"the manager refused {names}: {reply.get('message')}"))
            return []
        middle = len(self.units) // 2
        return [Submission(half, self.refuse) for half in (self.units[:middle], self.units[middle:])]

    def failed(self, error: BaseException) -> None:
        """Leave it to the futures, which the dispatcher breaks one by one."""


@dataclass
class Check:
    """Asks for the states of jobs of which no event may have come."""

    names: List[str]
    found: Callable[[Dict[str, str], Dict[str, int]], None]
    unknown: Callable[[str], None]

    def message(self) -> bytes:
        """Return the request."""
        return protocol.request("jobStatus", self.names)

    def answered(self, reply: Dict[str, Any]) -> List[Call]:
        """Tell the states, or find among several the job that the manager does not know."""
        if reply["code"] == 0:
            self.found(protocol.states(reply), protocol.submissions(reply))
            return []
        if len(self.names) == 1:
            self.unknown(self.names[0])
            return []
        middle = len(self.names) // 2
        return [Check(half, self.found, self.unknown) for half in (self.names[:middle], self.names[middle:])]

    def failed(self, error: BaseException) -> None:
        """Leave it to the futures, which the dispatcher breaks one by one."""


class StateChecks:
    """Decides when to ask for the states of pending jobs, as an event may be lost. Belongs to the dispatcher's thread.

    Attributes:
        suspects: the jobs that are asked for first.
        due: when the next question is due, by ``time.monotonic()``.
    """

    def __init__(self, pause: float) -> None:
        self.suspects: List[str] = []
        self.put_off(pause)

    def put_off(self, seconds: float) -> None:
        """Ask next in so many seconds."""
        self._pause = seconds
        self.due = time.monotonic() + seconds

    def names(self, pending: Pending) -> List[str]:
        """Return the names of the jobs to be asked for now; the pauses get longer."""
        if self.suspects:
            suspects, self.suspects = self.suspects[:CHECK_BATCH], self.suspects[CHECK_BATCH:]
            return [name for name in suspects if name in pending]
        if not pending or time.monotonic() < self.due:
            return []
        self.put_off(min(_CHECK_SECONDS, self._pause * 2))
        return pending.next_in_turn(CHECK_BATCH)


class Follow:
    """Asks for the states of jobs that somebody else has submitted, and from then on follows them."""

    def __init__(
        self,
        future: QCGPJFuture,
        found: Callable[[Dict[str, str], Dict[str, int]], None],
        refuse: Callable[[QCGPJFuture, BaseException], None],
    ) -> None:
        self.future = future
        self._found = found
        self._refuse = refuse
        self.known: Future[None] = Future()
        """Resolved when the manager has told that it knows the jobs, or that it does not."""

    def message(self) -> bytes:
        """Return the request."""
        return protocol.request("jobStatus", self.future.ids)

    def answered(self, reply: Dict[str, Any]) -> List[Call]:
        """Tell the states, or that a job is unknown."""
        if reply["code"] == 0:
            submissions = protocol.submissions(reply)
            self.future._are_submissions(submissions)
            self._found(protocol.states(reply), submissions)
            self.known.set_result(None)
        else:
            error = JobUnknown(f"the manager knows no such job: {reply.get('message')}")
            self._refuse(self.future, error)
            self.known.set_exception(error)
        return []

    def failed(self, error: BaseException) -> None:
        """Pass the error on."""
        self.future._break(error)
        self.known.set_exception(error)


class Question:
    """A request whose reply somebody waits for."""

    def __init__(self, message: bytes, *, is_glance: bool = False) -> None:
        """`is_glance` tells that nobody needs the reply when there is no manager at the moment."""
        self._message = message
        self.is_glance = is_glance
        self.reply: Future[Dict[str, Any]] = Future()

    def message(self) -> bytes:
        """Return the request."""
        return self._message

    def answered(self, reply: Dict[str, Any]) -> List[Call]:
        """Pass the reply on."""
        self.reply.set_result(reply)
        return []

    def failed(self, error: BaseException) -> None:
        """Pass the error on."""
        self.reply.set_exception(error)


class Pending:
    """Holds the futures that wait for each job: one of the submit() that brought it, and any number of attached ones.

    Iterates over the jobs' names. Belongs to the dispatcher's thread.
    """

    def __init__(self) -> None:
        # most jobs have one future, and it stands there by itself: a tuple for each would be one more thing to collect
        self._futures: Dict[str, Union[QCGPJFuture, Tuple[QCGPJFuture, ...]]] = {}
        self._attached: Set[QCGPJFuture] = set()

    def __bool__(self) -> bool:
        return bool(self._futures)

    def __iter__(self) -> Iterator[str]:
        return iter(self._futures)

    def __contains__(self, name: str) -> bool:
        return name in self._futures

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: QCGPJFuture, *, attached: bool = False) -> None:
        """Add a future, which waits for its jobs."""
        for name in future.ids:
            others = self._waiting_for(name)
            self._futures[name] = (*others, future) if others else future
        if attached:
            self._attached.add(future)

    def pop(self, name: str, submission: Optional[int] = None) -> Tuple[QCGPJFuture, ...]:
        """Return the futures that wait for a job, which do so no more; those of later submissions go on waiting."""
        found = self._futures.pop(name, ())
        futures = found if isinstance(found, tuple) else (found,)
        if submission is not None:
            later = tuple(future for future in futures if future._submission(name) > submission)
            if later:
                self._futures[name] = later
                futures = tuple(future for future in futures if future not in later)
        if self._attached:
            self._attached.difference_update(future for future in futures if not self._waits_for_more(future))
        return futures

    def remove(self, future: QCGPJFuture) -> None:
        """Remove a future, which waits for nothing more."""
        for name in future.ids:
            left = tuple(other for other in self._waiting_for(name) if other is not future)
            if left:
                self._futures[name] = left
            else:
                self._futures.pop(name, None)
        self._attached.discard(future)

    def next_in_turn(self, most: int) -> List[str]:
        """Return names of jobs that were returned longest ago, or never."""
        names = list(itertools.islice(self._futures, most))
        for name in names:
            self._futures[name] = self._futures.pop(name)  # to the end
        return names

    def futures(self) -> List[QCGPJFuture]:
        """Return each future once."""
        return list(dict.fromkeys(future for name in self._futures for future in self._waiting_for(name)))

    def submission(self, name: str) -> int:
        """Return which submission of its name a job is that is waited for: the latest one."""
        return max((future._submission(name) for future in self._waiting_for(name)), default=1)

    def is_ours(self, name: str) -> bool:
        """Return whether a job is waited for that was submitted here, not only attached to."""
        return any(future not in self._attached for future in self._waiting_for(name))

    def attached(self) -> List[QCGPJFuture]:
        """Return the attached futures."""
        return list(self._attached)

    def _waiting_for(self, name: str) -> Tuple[QCGPJFuture, ...]:
        found = self._futures.get(name, ())
        return found if isinstance(found, tuple) else (found,)

    def _waits_for_more(self, future: QCGPJFuture) -> bool:
        return any(future in self._waiting_for(name) for name in future.ids)


def in_batches(names: Sequence[str]) -> List[List[str]]:
    """Return the names in pieces of which each is for one request."""
    return [list(names[start : start + CHECK_BATCH]) for start in range(0, len(names), CHECK_BATCH)]
