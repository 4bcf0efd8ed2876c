"""Scheduling: which job starts next, and its start.

::

    Manager.add --> WaitingJobs --+-- what fits in free cores --> start, on the cores that the core allocates
                                  +-- short jobs in reserve ----> the starter, which starts one when another ends
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Callable, List, Optional, Protocol, Set, Union

from qcg.pilotjob.errors import InvalidResourceSpec, NotSufficientResources
from qcg.pilotjob.joblist import Job, JobState

from qcg.pilotjob.executor_api._execution.gpus import described
from qcg.pilotjob.executor_api._execution.local_job import LocalJob
from qcg.pilotjob.executor_api._execution.node_job import NodeJob
from qcg.pilotjob.executor_api._execution.pool import Size
from qcg.pilotjob.executor_api._execution.settings import Settings
from qcg.pilotjob.executor_api._manager.job_queue import Reserve, WaitingArray, WaitingJob, WaitingJobs
from qcg.pilotjob.executor_api._manager.resume import Interruptions
from qcg.pilotjob.executor_api._manager.sockets import EventPublisher, QueueNews, is_next
from qcg.pilotjob.executor_api._processes.children import Child
from qcg.pilotjob.executor_api._processes.spawning import NOT_EXECUTABLE, CannotStart

__all__ = ["AT_ONCE", "Scheduling"]

_logger = logging.getLogger(__name__)

AT_ONCE = 50  # jobs that are started, or cancelled, before the loop looks at anything else


class JobManager(Protocol):
    """Knows the jobs and the cores: what the core's manager is asked for here."""

    settings: Settings
    interruptions: Interruptions
    resources: Any
    job_list: Any
    tracer: Any
    status_publisher: Optional[EventPublisher]
    closing: bool
    quit_scheduler: bool
    stop_processing: bool
    on_failure: Callable[[BaseException], None]
    _executor: Any
    _scheduler: Any

    @property
    def awaits_node(self) -> bool:
        """Whether a node goes, and it is not known yet what becomes of the jobs that need it."""

    def change_job_state(
        self, job: Job, iteration: Optional[int], state: JobState, error_msg: Optional[str] = None
    ) -> None:
        """Put a job, or an iteration, into another state."""

    def job_finished(self, job_iteration: Any, allocation: Any, exit_code: int, error_msg: str) -> None:
        """Take the news that a job has ended."""

    def has_changed(self) -> None:
        """Take the news that something has changed that may be waited for."""


class Scheduling:
    """Starts the jobs that wait, the oldest that fit first. Belongs to the loop's thread."""

    def __init__(self, manager: JobManager, omit: Callable[[Job, str], None], *, knows_one_node: bool) -> None:
        """Start jobs for `manager`; `omit` gets those that never will. On one node, short jobs are kept in reserve."""
        self._manager = manager
        self._loop = asyncio.get_event_loop()
        self._children = manager.settings.children
        self._may_reserve = knows_one_node and manager.tracer.reruns  # else each start is on record first
        self._is_due = False
        self._restoring: Optional["asyncio.Future[None]"] = None
        self.waiting = WaitingJobs(manager.job_list, omit)
        self._reserve = Reserve(self.waiting, self._children, self._make_ready)
        self._news: Optional[QueueNews] = None
        self._children.after_reaping = self.start_what_fits
        self._children.on_next = self.hand_over
        publisher = manager.status_publisher
        if publisher is not None:
            self._news = QueueNews(publisher, self.waiting, self._reserve)
            publisher.may_gather = lambda: self.waiting.for_cores or bool(self._reserve)

    def __bool__(self) -> bool:
        """Return whether a job waits, or is in reserve."""
        return bool(self.waiting) or bool(self._reserve)

    def add(self, jobs: List[Union[WaitingJob, WaitingArray]]) -> None:
        """Queue jobs."""
        for waiting in jobs:
            self.waiting.add(waiting, first=is_next(waiting.job))
        if self._reserve and any(is_next(waiting.job) for waiting in jobs):  # what is ready would start before it
            self._restoring = asyncio.ensure_future(self._restore_order())
        self.call()

    def call(self) -> None:
        """Start what fits, soon."""
        if not self._is_due:
            self._is_due = True
            if not self._children.is_reaping:  # after which it is looked for
                self._loop.call_soon(self.start_what_fits)

    async def _restore_order(self) -> None:
        try:
            await self.take_back()
        except Exception as error:  # noqa: BLE001  # as where jobs are started
            self._manager.on_failure(error)

    def start_what_fits(self) -> None:
        """Start the jobs that fit in free cores now; called again as long as more may fit."""
        is_over = self._manager.quit_scheduler or self._manager.stop_processing
        if not self._is_due or is_over or self._reserve.is_taking_back:
            return
        self._is_due = False
        try:
            if self._start_some():
                self.call()
            elif self._may_reserve and not self._manager.closing:
                self._reserve.fill(self._manager._executor._not_finished.values())
            if self._news is not None:
                self._news.look()
        except Exception as error:  # noqa: BLE001  # whatever it is, nothing would ever start again, silently
            self._manager.on_failure(error)
        self._manager.has_changed()

    def _start_some(self) -> bool:
        """Start what fits, and return whether more may fit."""
        self.waiting.settle()
        unfit: Set[Size] = set()
        for _ in range(AT_ONCE):
            if self._start_ready():
                continue
            waiting = self.waiting.first(self._manager.resources.free_cores, unfit)
            if waiting is None:
                return False
            if not self._start_one_of(waiting):
                unfit.add(waiting.size)
        return True

    def _start_one_of(self, waiting: Union[WaitingJob, WaitingArray]) -> bool:
        """Start a job, or an iteration of one, and return whether one has gone."""
        for iteration in waiting.candidates():
            try:
                allocation = self._allocate(iteration.resources)
            except (NotSufficientResources, InvalidResourceSpec) as error:
                if self._manager.awaits_node:  # it is not yet known what becomes of those that need this node
                    return False
                self.waiting.take(waiting, iteration)
                self._manager.change_job_state(iteration.job, iteration.iteration, JobState.FAILED, str(error))
                return True
            if allocation is not None:
                self.waiting.take(waiting, iteration)
                self._start(iteration, allocation)
                return True
        self.waiting.drop_if_done(waiting)
        return False

    def _allocate(self, wanted: Any) -> Any:
        try:
            return self._manager._scheduler.allocate_job(wanted)
        except (NotSufficientResources, InvalidResourceSpec):
            raise
        except Exception as error:
            _logger.exception("an allocation failed")
            raise InvalidResourceSpec(f"these resources cannot be allocated: {error}") from error

    def _start(self, iteration: Any, allocation: Any) -> None:
        job = iteration.job
        self._manager.change_job_state(job, iteration.iteration, JobState.SCHEDULED)
        job.append_runtime({"allocation": allocation.description(), **described(allocation)}, iteration.iteration)
        executor = self._manager._executor
        kind = NodeJob if executor._is_node_launcher else LocalJob
        try:
            running = kind(executor, executor.job_envs, allocation, iteration, executor.schema)
        except Exception as error:
            _logger.exception("job %s was not started", iteration.name)
            self._manager.job_finished(iteration, allocation, NOT_EXECUTABLE, f"cannot start: {error}")
            return
        executor._not_finished[running.jid] = running
        running.start()

    # ---- what the starter starts by itself

    def _make_ready(self, iteration: Any, like: Any) -> Optional[LocalJob]:
        executor = self._manager._executor
        try:
            ready = LocalJob(executor, executor.job_envs, like, iteration, executor.schema)
            ready.make_ready()
        except CannotStart as error:
            if error.blames:
                self._manager.interruptions.add(iteration.job, iteration.iteration)
            self._manager.job_finished(iteration, None, error.exit_code, str(error))
            return None
        except Exception as error:
            _logger.exception("job %s was not started", iteration.name)
            self._manager.job_finished(iteration, None, NOT_EXECUTABLE, f"cannot start: {error}")
            return None
        ready.allocation = None
        return ready

    def _start_ready(self) -> bool:
        """Start the first that is ready when it fits, and return whether it does."""
        ready = self._reserve.first
        if ready is None or ready.ncores > self._manager.resources.free_cores:
            return False
        ready.allocation = self._allocate(ready.job_iteration.resources)
        if ready.allocation is None:
            return False
        self._reserve.remove(ready.jid)
        self._begin(ready, now=True)
        return True

    def hand_over(self, ended: Child, following: Child) -> Callable[[], None]:
        """Give the cores of a process that has ended to the one that the starter has started there."""
        ready = self._reserve.remove(following.mark)
        if ready is None:  # it has cores already
            return lambda: None
        running = self._manager._executor._not_finished[ended.mark]
        ready.allocation, running.allocation = running.allocation, None
        return lambda: self._begin(ready, now=False)

    def _begin(self, ready: LocalJob, *, now: bool) -> None:
        job, iteration = ready.job_iteration.job, ready.job_iteration.iteration
        self._manager._executor._not_finished[ready.jid] = ready
        self._manager.change_job_state(job, iteration, JobState.SCHEDULED)
        job.append_runtime({"allocation": ready.allocation.description()}, iteration)
        ready.begin(now=now)

    async def take_back(self) -> None:
        """Take back the jobs in reserve, so that the manager alone decides what starts."""
        if self._reserve:
            await self._reserve.take_back()
            self.call()
            self._loop.call_soon(self.start_what_fits)
