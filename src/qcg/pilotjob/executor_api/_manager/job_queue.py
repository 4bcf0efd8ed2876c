"""The jobs that wait to be started, at the same cost a job however many there are.

::

    add ----> waits for jobs -- settle ----> waits for resources -- first, take --> started
              (_dependents)     |            (_sizes: those of the same size, the oldest first)
                                +-> omitted

A job that waits for others is looked at when one of those has ended, and not before. Where a job does not fit, another
one of the same size does not fit either; so of each size only the first one is looked at. The order is that of the
core's queue: the oldest that fits.

Short jobs end more often than the manager looks at them. So the starter has some that it can start by itself, each on
the cores of one that ends. They are the oldest of all that wait, they ask for the same cores, and they are QUEUED until
the starter tells that they have started: nothing starts in another order than it would have, only sooner. Before
anything is cancelled they are taken back.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections import deque
from itertools import islice
from typing import AbstractSet, Any, Callable, Deque, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from qcg.pilotjob.joblist import Job, JobList, JobState

from qcg.pilotjob.executor_api._execution.local_job import LocalJob
from qcg.pilotjob.executor_api._execution.pool import Size, kind_of, size_of
from qcg.pilotjob.executor_api._processes.children import Children

__all__ = ["Reserve", "WaitingArray", "WaitingJob", "WaitingJobs"]

_ALL = sys.maxsize  # cores
_ANY = "*"  # any iteration of an array


class WaitingJob:
    """A job without iterations; it is its own and only one, in the place of the core's SchedulingIteration."""

    __slots__ = ("after", "job", "number", "size", "taken")

    iteration = None
    iteration_value = None

    def __init__(self, job: Job) -> None:
        self.job = job
        self.size = size_of(job.resources)
        self.after = frozenset(job.dependencies.after if job.has_dependencies else ())
        self.number = 0
        self.taken = False

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.job.name)

    @property
    def resources(self) -> Any:
        """What the job asks for."""
        return self.job.resources

    @property
    def waits_for(self) -> AbstractSet[str]:
        """Whose ends it waits for: jobs, or iterations of them."""
        return self.after

    def wait_no_more_for(self, name: str) -> None:
        """Take the news that a job, or an iteration, has succeeded."""
        self.after -= {name}

    @property
    def has_more(self) -> bool:
        """Whether it is still to be started."""
        return not self.taken

    def candidates(self) -> Iterator[Any]:
        """Yield what can be started now."""
        yield self

    def take(self, _: Any) -> None:
        """Take out what is started."""
        self.taken = True

    def refresh(self) -> None:
        """Look at what the ends of other jobs have changed."""


class WaitingArray:
    """A job with iterations, which the core's SchedulingJob unrolls."""

    __slots__ = ("job", "number", "own_size", "scheduling", "size")

    def __init__(self, scheduling: Any) -> None:
        self.job: Job = scheduling.job
        self.scheduling = scheduling
        self.number = 0
        # iterations may differ in what they ask for, or in whom they wait for
        self.own_size = bool(scheduling._res_cores_gen or scheduling._res_nodes_gen or scheduling._after_iteration_jobs)
        least = scheduling.get_minimum_require_cores() or 0
        self.size = (least, self.job.name) if self.own_size else size_of(self.job.resources)

    @property
    def after(self) -> AbstractSet[str]:
        """Whose ends all of it waits for."""
        names: Set[str] = self.scheduling._after_jobs
        return names

    def wait_no_more_for(self, name: str) -> None:
        """Take the news that a job, or an iteration, has succeeded."""
        self.scheduling._after_jobs.discard(name)

    @property
    def waits_for(self) -> AbstractSet[str]:
        """Whose ends it, or an iteration of it, waits for: jobs, or iterations of them."""
        return {*self.after, *self.scheduling._after_iteration_jobs}

    @property
    def has_more(self) -> bool:
        """Whether an iteration is still to be started."""
        return bool(self.scheduling.has_more_iterations)

    def candidates(self) -> Iterator[Any]:
        """Yield what can be started now, one after the other as long as they do not fit."""
        if self.scheduling._after_iteration_jobs:
            self.refresh()
        iteration = self.scheduling.get_ready_iteration()
        while iteration is not None:
            yield iteration
            iteration = self.scheduling.get_ready_iteration(iteration) if self.own_size else None

    def take(self, iteration: Any) -> None:
        """Take out what is started."""
        self.scheduling.remove_iteration_job(iteration)

    def refresh(self) -> None:
        """Look at what the ends of other jobs have changed: iterations that cannot run any more are omitted."""
        while True:
            self.scheduling.check_dependencies()
            if self.scheduling._iteration_sub_jobs or not self.has_more:
                return
            self.scheduling.setup_iterations()


class WaitingJobs:
    """All that waits. Belongs to the loop's thread."""

    def __init__(self, job_list: JobList, omit: Callable[[Job, str], None]) -> None:
        """`omit` is told which jobs wait for what did not succeed, and for what; they wait no more."""
        self._job_list = job_list
        self._omit = omit
        self._waiting: Dict[str, Any] = {}
        self._sizes: Dict[Size, List[Tuple[int, Any]]] = {}  # heaps
        self._dependents: Dict[str, List[Any]] = {}
        self._unsettled: Deque[Any] = deque()
        self._last = itertools.count()
        self._before_all = itertools.count(-1, -1)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Job]:
        return iter([waiting.job for waiting in self._waiting.values()])

    @property
    def for_cores(self) -> bool:
        """Whether a job waits for nothing else."""
        return bool(self._sizes)

    def add(self, waiting: Any, *, first: bool = False) -> None:
        """Put a job behind all others, or before them."""
        waiting.number = next(self._before_all if first else self._last)
        self._waiting[waiting.job.name] = waiting
        for name in waiting.waits_for:
            self._dependents.setdefault(name.replace("${it}", _ANY), []).append(waiting)
        if waiting.after:
            self._unsettled.append(waiting)  # what it waits for may have ended already
        else:
            self._queue(waiting)

    def put_back(self, iteration: Any, number: Optional[int] = None) -> None:
        """Put back what was taken: where it was when its `number` is given, before all others otherwise."""
        if isinstance(iteration, WaitingJob):
            waiting: Any = iteration
            waiting.taken = False
        else:
            iteration._scheduling_job._iteration_sub_jobs.insert(0, iteration)
            if iteration.job.name in self._waiting:
                return
            waiting = WaitingArray(iteration._scheduling_job)
        waiting.number = next(self._before_all) if number is None else number
        self._waiting[waiting.job.name] = waiting
        self._queue(waiting)

    def remove(self, job: Job) -> None:
        """Remove a job, if it waits."""
        self._waiting.pop(job.name, None)

    def remove_iteration(self, job: Job, iteration: Optional[int]) -> None:
        """Remove an iteration of a job, if it waits."""
        waiting = self._waiting.get(job.name)
        if isinstance(waiting, WaitingArray):
            waiting.scheduling.remove_iteration_index(iteration)
            self.drop_if_done(waiting)

    def needing(self, name: str) -> Optional[str]:
        """Return the name of an array whose iterations wait for those of the job `name`, None when none does."""
        arrays = self._dependents.get(f"{name}:{_ANY}", ())
        return next((str(waiting.job.name) for waiting in arrays if self._waits(waiting)), None)

    def clear(self) -> None:
        """Remove all jobs."""
        for content in (self._waiting, self._sizes, self._dependents, self._unsettled):
            content.clear()

    def ended(self, job: Job, iteration: Optional[int]) -> None:
        """Take note that a job, or an iteration of it, has ended; `settle` has to follow."""
        if not self._dependents:
            return
        if iteration is None:
            self._unsettled.extend(self._dependents.pop(job.name, ()))
        else:
            self._unsettled.extend(self._dependents.pop(f"{job.name}:{iteration}", ()))
            self._unsettled.extend(self._dependents.get(f"{job.name}:{_ANY}", ()))

    def settle(self) -> None:
        """Make ready, or omit, the jobs that have waited for jobs that have ended."""
        while self._unsettled:
            waiting = self._unsettled.popleft()
            if self._waits(waiting):
                self._settle(waiting)

    def first(self, free_cores: int, unfit: Set[Size]) -> Any:
        """Return what has waited longest of all that may fit, None when nothing does; `unfit` are sizes that do not."""
        found = None
        for size in list(self._sizes):
            if size[0] <= free_cores and size not in unfit:
                waiting = self._first_of(size)
                if waiting is not None and (found is None or waiting.number < found.number):
                    found = waiting
        return found

    def oldest(self) -> Any:
        """Return what has waited longest of all, when none waits for others; None when there is nothing, or some do."""
        return None if self._dependents or self._unsettled else self.first(_ALL, set())

    def take(self, waiting: Any, iteration: Any) -> None:
        """Take out what is started."""
        waiting.take(iteration)
        self.drop_if_done(waiting)
        self._first_of(waiting.size)

    def drop_if_done(self, waiting: Any) -> None:
        """Remove an array of which nothing is left to be started."""
        if not waiting.has_more and self._waits(waiting):
            del self._waiting[waiting.job.name]

    def _queue(self, waiting: Any) -> None:
        heapq.heappush(self._sizes.setdefault(waiting.size, []), (waiting.number, waiting))

    def _first_of(self, size: Size) -> Any:
        heap = self._sizes[size]
        while heap and not self._waits(heap[0][1]):
            heapq.heappop(heap)
        if heap:
            return heap[0][1]
        del self._sizes[size]
        return None

    def _waits(self, waiting: Any) -> bool:
        return self._waiting.get(waiting.job.name) is waiting

    def _settle(self, waiting: Any) -> None:
        has_waited = bool(waiting.after)
        for name in list(waiting.after):
            state = self._state(name)
            if state == JobState.SUCCEED:
                waiting.wait_no_more_for(name)
            elif state is None or state.is_finished():
                del self._waiting[waiting.job.name]
                self._omit(waiting.job, f"{name!r}, which is {state.name if state else 'not there'}")
                return
        if waiting.after:
            return
        if has_waited:
            self._queue(waiting)
        waiting.refresh()
        self.drop_if_done(waiting)

    def _state(self, name: str) -> Optional[JobState]:
        job_name, iteration = JobList.parse_jobname(name)
        job = self._job_list.get(job_name)
        return None if job is None else job.state(iteration)


_SHORT_SECONDS = 1.0  # after a longer job, a millisecond without the next one is nothing
_MOST = 16  # more than what ends while several ends are gathered
_LOOK_AT = 4  # of those that run, for one like the next one


class Reserve:
    """Holds the jobs in reserve, the oldest first. Belongs to the loop's thread."""

    def __init__(
        self, waiting: WaitingJobs, children: Children, make: Callable[[Any, Any], Optional[LocalJob]]
    ) -> None:
        """`make` gets what has waited and an allocation like the one that it will have, and makes the job ready."""
        self._waiting = waiting
        self._make = make
        self._jobs: Dict[str, LocalJob] = {}
        self._numbers: Dict[str, int] = {}
        self._taking_back = 0
        self._children = children
        children.gather_when(lambda: len(self._jobs) >= _MOST // 2)

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
        if self._children.last_seconds > _SHORT_SECONDS:
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
        """Put all jobs back among those that wait; what is not here after that has started."""
        self._taking_back += 1
        try:
            for child in reversed(await self._children.take_back()):
                number = self._numbers.get(child.mark)
                job = self.remove(child.mark)
                if job is not None and number is not None:
                    self._waiting.put_back(job.job_iteration, number)
        finally:
            self._taking_back -= 1
