"""The jobs that are ready to start before there is a core for them.

Short jobs end more often than the manager looks at them. So the starter has some that it can start by itself, each on
the cores of one that ends. They are the oldest of all that wait, they ask for the same cores, and they are QUEUED until
the starter tells that they have started: nothing starts in another order than it would have, only sooner. Before
anything is cancelled they are taken back.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Callable, Dict, Iterable, Optional

from qcg.pilotjob.executor_api._execution.local_job import LocalJob
from qcg.pilotjob.executor_api._manager.job_queue import WaitingJobs, kind_of

__all__ = ["Ahead"]

_SHORT_SECONDS = 1.0  # after a longer job, a millisecond without the next one is nothing
_MOST = 16  # more than what ends while several ends are gathered
_LOOK_AT = 4  # of those that run, for one like the next one


class Ahead:
    """What is ready, the oldest first. Belongs to the loop's thread."""

    def __init__(self, waiting: WaitingJobs, make: Callable[[Any, Any], Optional[LocalJob]]) -> None:
        """`make` gets what has waited and an allocation like the one that it will have, and makes the job ready."""
        self._waiting = waiting
        self._make = make
        self._jobs: Dict[str, LocalJob] = {}
        self._numbers: Dict[str, int] = {}
        self._taking_back = 0
        LocalJob.children.gather_when(lambda: len(self._jobs) >= _MOST // 2)

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def first(self) -> Optional[LocalJob]:
        """The oldest."""
        return next(iter(self._jobs.values()), None)

    @property
    def is_taking_back(self) -> bool:
        """Whether it is not known yet what has started."""
        return self._taking_back > 0

    def remove(self, mark: str) -> Optional[LocalJob]:
        """Take out what starts, and return it if it was here."""
        self._numbers.pop(mark, None)
        return self._jobs.pop(mark, None)

    def fill(self, running: Iterable[Any]) -> None:
        """Make the oldest that wait ready for the cores of those that run."""
        if LocalJob.children.last_seconds > _SHORT_SECONDS:
            return
        like = {job.kind: job.allocation for job in islice(running, _LOOK_AT) if job.allocation is not None}
        while len(self) < _MOST:
            waiting = self._waiting.oldest()
            iteration = None if waiting is None else next(waiting.candidates(), None)
            if iteration is None or not self._goes_with_others(kind_of(iteration.resources), like):
                return
            self._waiting.take(waiting, iteration)
            job = self._make(iteration, like[kind_of(iteration.resources)])
            if job is not None:
                self._jobs[job.jid] = job
                self._numbers[job.jid] = waiting.number

    def _goes_with_others(self, kind: int, like: Dict[int, Any]) -> bool:
        return kind != 0 and kind in like and (self.first is None or self.first.kind == kind)

    async def take_back(self) -> None:
        """Let all of it wait again; what is not here after that has started."""
        self._taking_back += 1
        try:
            for child in reversed(await LocalJob.children.take_back()):
                number = self._numbers.get(child.mark)
                job = self.remove(child.mark)
                if job is not None and number is not None:
                    self._waiting.put_back(job.job_iteration, number)
        finally:
            self._taking_back -= 1
