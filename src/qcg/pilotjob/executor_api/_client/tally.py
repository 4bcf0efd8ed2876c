"""How many of the jobs have ended, and how."""

from __future__ import annotations

import time
from collections import Counter, deque
from concurrent.futures import Future
from typing import Any, Deque, Dict, Iterator, Optional, Set, Tuple, TypeVar

from qcg.pilotjob.executor_api.errors import ExecutorClosed
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

__all__ = ["Tally", "not_succeeded", "outcome"]

_T = TypeVar("_T")
_WORDS = {"FAILED": "failed", "OMITTED": "omitted", "CANCELED": "cancelled"}


class Tally:
    """Counts the jobs of futures. Any thread may `add`, which takes no lock; the rest is for one thread alone."""

    def __init__(self) -> None:
        self.since: Optional[float] = None
        """When the first future was added, as ``time.time()`` tells it."""
        self.total = 0
        self.ended = 0
        self._added: Deque[Tuple[QCGPJFuture, bool]] = deque()
        self._done: Deque[Future[Dict[str, str]]] = deque()
        self._names: Set[str] = set()
        self._states: Counter[str] = Counter()
        self._of_several: Set[Future[Dict[str, str]]] = set()

    def add(self, future: QCGPJFuture, *, attached: bool = False) -> None:
        """Count the jobs of `future`; when it is `attached`, only if they are not counted yet."""
        if self.since is None:
            self.since = time.time()
        self._added.append((future, attached))

    def update(self) -> None:
        """Take what has happened since the last time."""
        for future, attached in _taken(self._added):
            if attached and self._names.issuperset(future.ids):
                continue
            self._names.update(future.ids)
            self.total += len(future.ids)
            if len(future.ids) > 1:
                self._of_several.add(future)
            future.add_done_callback(self._done.append)
        for done in _taken(self._done):
            self._of_several.discard(done)
            if not _goes_on(done):
                self._states.update(_states_of(done))
        counts = self._counts()
        self.ended = sum(counts.values())

    @property
    def unfinished(self) -> int:
        """How many jobs have not ended."""
        return self.total - self.ended

    @property
    def text(self) -> str:
        """How many have not succeeded, like ``2 failed, 1 cancelled``; an empty string for none."""
        return not_succeeded(self._counts())

    def _counts(self) -> Counter[str]:
        counts = self._states.copy()
        for future in self._of_several:  # those of its jobs that have ended before the others
            counts.update(dict(future._states or ()).values())  # type: ignore[attr-defined]
        return counts


def not_succeeded(states: Counter[str]) -> str:
    """Return how many have not succeeded, in words."""
    return ", ".join(f"{states[state]} {word}" for state, word in _WORDS.items() if states[state])


def outcome(future: Future[Any]) -> str:
    """Return how a future has ended, as the state of a job; of several jobs it is the worst."""
    states = _states_of(future)
    return next((state for state in _WORDS if states[state]), "SUCCEED")


def _states_of(future: Future[Any]) -> Counter[str]:
    """Return the states in which the jobs of a future have ended; what was refused or lost has failed."""
    cancelled = Future.cancelled(future)
    if not isinstance(future, QCGPJFuture):
        failed = not cancelled and future.exception() is not None
        return Counter(["CANCELED" if cancelled else "FAILED" if failed else "SUCCEED"])
    states = dict(future._states or ())
    return Counter(states.get(name, "CANCELED" if cancelled else "FAILED") for name in future.ids)


def _goes_on(future: Future[Any]) -> bool:
    """Whether its jobs go on without the executor, which was detached from them or only attached to them."""
    return not Future.cancelled(future) and isinstance(future.exception(), ExecutorClosed)


def _taken(queue: Deque[_T]) -> Iterator[_T]:
    while queue:
        yield queue.popleft()
