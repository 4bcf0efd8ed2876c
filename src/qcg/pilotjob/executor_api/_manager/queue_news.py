"""Tell clients that a job waits for cores: those whose workers of functions() have cores can give some back.

The other end is _client/queue_news.py. The news is published again and again as long as a job waits, so nothing is lost
with a message, and not at all as long as nobody has subscribed to it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Optional, Set

from qcg.pilotjob.executor_api._manager.ahead import Ahead
from qcg.pilotjob.executor_api._manager.job_queue import Size, WaitingJobs
from qcg.pilotjob.executor_api._manager.sockets import EventPublisher
from qcg.pilotjob.executor_api._shared.protocol import RETURNS

__all__ = ["QueueNews", "is_next"]

_FIRST_SECONDS = 0.05  # most jobs have cores by then
_PAUSE_SECONDS = 0.1


def is_next(job: Any) -> bool:
    """Return whether a job goes before all others: the worker that follows one that gave its cores to another job."""
    pool = (job.attributes or {}).get(RETURNS)
    return isinstance(pool, str) and pool != "" and bool(job.get_name().startswith(pool))


class QueueNews:
    """Publishes which job has waited longest for cores. Belongs to the loop's thread."""

    def __init__(self, publisher: EventPublisher, waiting: WaitingJobs, ahead: Ahead) -> None:
        self._publisher = publisher
        self._waiting = waiting
        self._ahead = ahead
        self._loop = asyncio.get_event_loop()
        self._timer: Optional[asyncio.TimerHandle] = None
        publisher.on_listener = self.look

    def look(self) -> None:
        """Begin to publish when a job waits: after jobs were started, and when somebody has subscribed."""
        if self._timer is None and self._publisher.has_listener and self._longest_waiting():
            self._timer = self._loop.call_later(_FIRST_SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        name = self._longest_waiting()
        if name:
            self._publisher.tell_who_waits(name)
            self._timer = self._loop.call_later(_PAUSE_SECONDS, self._tell)

    def _longest_waiting(self) -> str:
        """Return the name of the job, or of the iteration of one, that is the next; an empty string when none waits."""
        if self._ahead.first is not None:
            return str(self._ahead.first.job_iteration.name)
        nothing_ready: Set[Size] = set()  # arrays of which the next iterations wait for other jobs
        while True:
            waiting = self._waiting.first(sys.maxsize, nothing_ready)
            if waiting is None:
                return ""
            for iteration in waiting.candidates():
                return str(iteration.name)
            nothing_ready.add(waiting.size)
