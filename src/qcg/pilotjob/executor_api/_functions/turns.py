"""Whose turn it is to have cores, when a pool has calls for them and other jobs wait.

A worker that has served for a while gives way when a job waits that nothing else lets in: it ends after its call. As
long as that job has not begun, the pool starts no worker in its place; after that it does, and that worker is the next
one to start, so a pool loses its cores to one job at a time, however many wait. A job that has not begun though the
pool gave way waits for more than the pool has: it is not given way to again.
"""

from __future__ import annotations

import time
from typing import Any, Dict, Iterable, Optional

from qcg.pilotjob.executor_api._functions.calls import Worker
from qcg.pilotjob.executor_api._shared.protocol import RETURNS

__all__ = ["Turns"]

_TURN_SECONDS = 1.0  # that a worker serves at least, and that another job waits before one gives way to it
_SILENCE_SECONDS = 0.5  # after which nobody waits any more: the manager tells ten times a second
_HOLD_SECONDS = 3.0  # in which what was given way to has to begin


class Turns:
    """Holds what a pool knows of other jobs, for the pool's thread."""

    def __init__(self, ours: str) -> None:
        """`ours` is how the names of the pool's workers begin."""
        self._ours = f"{ours}."
        self._other = ""
        self._heard_at = -_SILENCE_SECONDS
        self._since = 0.0  # it waits, or somebody gave way to it
        self._held_until = 0.0
        self._returning = 0

    def is_ours(self, name: str) -> bool:
        """Return whether a job is a worker of this pool."""
        return name.startswith(self._ours)

    def hear(self, name: str, workers: Iterable[Worker]) -> None:
        """Take the news that `name` has waited longest of all; have one of the workers give way, if that is due."""
        now = self._heard_at = time.monotonic()
        if name != self._other:
            self._other, self._since, self._held_until = name, now, 0.0
            for worker in workers:
                worker.gives_way = False
        if now - self._since < _TURN_SECONDS or 0.0 < self._held_until < now:
            return
        serving = [worker for worker in workers if worker.calls and not worker.is_ending and not worker.gives_way]
        long_enough = [worker for worker in serving if now - worker.serves_since >= _TURN_SECONDS]
        if long_enough:
            min(long_enough, key=lambda worker: worker.serves_since).gives_way = True
            self._since = now

    def is_over(self, worker: Worker) -> bool:
        """Return whether a worker has to end now that its call has, and hold back the one that follows it."""
        if not worker.gives_way or not self._is_waited_for:
            worker.gives_way = False
            return False
        self._held_until = time.monotonic() + _HOLD_SECONDS
        self._returning += 1
        return True

    def another_is_next(self) -> bool:
        """Return whether the pool must not start workers now: a worker has given way to a job that has not begun."""
        return self._is_waited_for and time.monotonic() < self._held_until

    @property
    def start_at(self) -> Optional[float]:
        """The moment from which on the pool may start workers again, None when it may now."""
        return min(self._held_until, self._heard_at + _SILENCE_SECONDS) if self.another_is_next() else None

    def attributes(self) -> Optional[Dict[str, Any]]:
        """Return the attributes of the next worker's job: whether it follows one that has given way."""
        if not self._returning:
            return None
        self._returning -= 1
        return {RETURNS: self._ours}

    @property
    def _is_waited_for(self) -> bool:
        return time.monotonic() - self._heard_at < _SILENCE_SECONDS
