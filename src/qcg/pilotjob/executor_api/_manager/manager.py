"""The core's manager of jobs, with true states and a prompt, complete end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from qcg.pilotjob.errors import InvalidResourceSpec, NotSufficientResources
from qcg.pilotjob.executionjob import ExecutionJob
from qcg.pilotjob.joblist import Job, JobState
from qcg.pilotjob.manager import DirectManager, SchedulingJob
from qcg.pilotjob.resources import ResourcesType

from qcg.pilotjob.executor_api._manager import pool
from qcg.pilotjob.executor_api._manager.execution import LocalJob
from qcg.pilotjob.executor_api._manager.handler import Handler
from qcg.pilotjob.executor_api._manager.interruptions import Interruptions
from qcg.pilotjob.executor_api._manager.resume import ResumedJob
from qcg.pilotjob.executor_api._overriding import override

_logger = logging.getLogger(__name__)


class Manager(DirectManager):  # type: ignore[misc]  # the core is untyped
    """The manager of jobs on the nodes that this process was given.

    Mends C1 (a job's last event carries the state of one iteration), C2 (one job's bad resources end all scheduling,
    silently), C13 and C27 (a cancel that comes early is lost, or sleeps). Can go when the core publishes the job's own
    state, survives a failed allocation and cancels what it has not started yet.
    """

    def __init__(self, tracer: Any, config: Dict[Any, Any], parent_manager: Optional[str] = None) -> None:
        self.on_failure: Callable[[BaseException], None] = lambda _: None
        self.closing = False
        self.record: Any = None
        self.interruptions = Interruptions()
        self._unwanted: Set[str] = set()
        self.ending = False
        self._changed = asyncio.Event()
        self._cancelled_early: Set[Tuple[str, Optional[int]]] = set()
        self._losses: List[str] = []
        self._restarts: Dict[Tuple[str, Optional[int]], int] = {}
        super().__init__(tracer, config, parent_manager)
        # the handler refuses what can never run, and says why
        self.resources.check_min_job_requirements = lambda _: True
        self._allocate = self._scheduler.allocate_job
        self._scheduler.allocate_job = self._allocate_or_refuse
        self._schedule_loop_task.add_done_callback(self._schedule_loop_ended)

    @override
    def get_handler(self) -> Handler:
        return Handler(self)

    @property
    def local(self) -> bool:
        """Whether jobs are processes of this machine, not of an allocation's nodes."""
        return bool(self.resources.rtype == ResourcesType.LOCAL)

    @property
    def usable_cores(self) -> int:
        """How many cores jobs can use at the most."""
        return pool.usable_cores(self.resources)

    def hopeless(self, job: Job) -> str:
        """Return why a job can never run, an empty string when it can."""
        if pool.fits(self.resources, job.resources):
            return ""
        return "; ".join([f"jobs can use {self.usable_cores} here", *self._losses])

    def drop_node(self, name: str) -> None:
        """Send nothing more to a node."""
        pool.drop_node(self.resources, name)

    def node_lost(self, name: str, reason: str) -> None:
        """Fail the jobs that run on a node that is no more, and those that cannot run without it."""
        message = f"node {name} is lost: {reason}"
        _logger.error(message)
        self._losses.append(message)
        self.drop_node(name)
        for running in list(self._executor._not_finished.values()):
            if running.runs_on(name):
                running.node_lost(name, message)
        for waiting in list(self._schedule_queue):
            hopeless = self.hopeless(waiting.job)
            if hopeless:
                self._schedule_queue.remove(waiting)
                self._fail_queued(waiting.job, f"it can no longer run: {hopeless}")
        self.call_scheduler()

    def run_again(self, running: Any, message: str, most: int) -> bool:
        """Queue a job again that has lost its node, unless that happened `most` times before or it fits nowhere."""
        job, iteration = running.job_iteration.job, running.job_iteration.iteration
        restarts = self._restarts.get((job.name, iteration), 0)
        if restarts >= most or self.closing or self.hopeless(job):
            return False
        self._restarts[job.name, iteration] = restarts + 1
        del self._executor._not_finished[running.jid]
        self._scheduler.release_allocation(running.allocation)
        self.change_job_state(job, iteration, JobState.QUEUED, f"{message}; it was started again")
        waiting = running.job_iteration._scheduling_job
        waiting._iteration_sub_jobs.insert(0, running.job_iteration)
        if waiting not in self._schedule_queue:
            self._schedule_queue.insert(0, waiting)
        self.call_scheduler()
        return True

    def _fail_queued(self, job: Job, message: str) -> None:
        for iteration in _parts(job):
            if job.state(iteration) == JobState.QUEUED:
                self.interruptions.add(job, iteration)
                self.change_job_state(job, iteration, JobState.FAILED, message)

    def add(self, jobs: List[Job]) -> None:
        """Take all `jobs`, or none of them.

        Mends C17: a job that cannot be queued stays registered for good.
        """
        registered: List[Job] = []
        try:
            for job in jobs:
                self.job_list.add(job)
                registered.append(job)
            queued = [SchedulingJob(self, job) for job in jobs]
            self.tracer.new_submited_jobs(jobs)
        except BaseException:
            for job in registered:
                self.job_list.remove(job.name)
            raise
        for scheduling_job in queued:
            self._append_to_schedule_queue(self._schedule_queue, scheduling_job)
        self.call_scheduler()

    @override
    async def enqueue(self, jobs: List[Job]) -> None:
        """Queue the jobs of an interrupted run that have not ended."""
        for job in jobs:
            self._append_to_schedule_queue(self._schedule_queue, ResumedJob(self, job))
        self.call_scheduler()

    @override
    def change_job_state(
        self, job: Job, iteration: Optional[int], state: JobState, error_msg: Optional[str] = None
    ) -> None:
        if self.stop_processing:
            return
        state_of_all = job.set_state(state, iteration, error_msg)
        if iteration is None and state.is_finished() and job.has_iterations:
            self._end_iterations(job, state)  # an array that is omitted
        self._fire_job_state_notifies(job.name, iteration, state)
        if state_of_all:
            self._fire_job_state_notifies(job.name, None, state_of_all)
        self._changed.set()

    def _end_iterations(self, job: Job, state: JobState) -> None:
        for iteration in job.iteration.iterations_gen():
            if not job.state(iteration).is_finished():
                job.set_state(state, iteration)
                self._fire_job_state_notifies(job.name, iteration, state)

    @override
    def _fire_job_state_notifies(self, job_id: str, iteration: Optional[int], state: JobState) -> None:
        # what is published must be on record first: whoever hears of it may look there
        for notified in self._job_states_cbs.values():
            try:
                notified.callback(job_id, iteration, state, *notified.args)
            except Exception:
                _logger.exception("job %s: its state %s could not be recorded", job_id, state.name)
        self._publish_status_events(job_id, iteration, state)

    async def wait_until_idle(self) -> None:
        """Return when every job has ended."""
        while not self.is_all_jobs_finished:
            self._changed.clear()
            await self._changed.wait()

    @override
    async def cancel_job(self, job: Job) -> None:
        self._unwanted.add(job.name)
        job.canceled = True
        await self._remove_job_from_schedule_queue(job)
        for iteration in _parts(job):
            await self.cancel_iteration(job, iteration)

    @override
    async def cancel_iteration(self, job: Job, iteration: Optional[int]) -> None:
        state = job.state(iteration)
        if state == JobState.QUEUED:
            if not job.canceled:
                await self._remove_iteration_from_schedule_queue(job, iteration)
            self.change_job_state(job, iteration, JobState.CANCELED)
            self.call_scheduler()  # for the jobs that depend on it
        elif state in (JobState.SCHEDULED, JobState.EXECUTING):
            running = self._running(job, iteration)
            if running is None:
                self._cancelled_early.add((job.name, iteration))
            else:
                await running.cancel()

    def was_cancelled(self, job_iteration: Any) -> bool:
        """Whether the iteration was cancelled after it was scheduled and before it was started; asked once."""
        key = (job_iteration.job.name, job_iteration.iteration)
        if key not in self._cancelled_early:
            return False
        self._cancelled_early.remove(key)
        return True

    async def end_all_jobs(self, grace: float) -> None:
        """Take no more jobs and cancel all that have not ended; return when none is left."""
        self.closing = self.ending = True
        LocalJob.grace = grace
        async with self._schedule_queue_lock:
            self._schedule_queue.clear()
        for name in list(self.job_list.jobs()):
            job = self.job_list.get(name)
            if not job.state().is_finished():
                await self._interrupt(job, _parts(job))
        await self.wait_until_idle()

    async def interrupt_queued(self) -> None:
        """Take no more jobs and cancel all that have not started."""
        self.closing = True
        async with self._schedule_queue_lock:
            self._schedule_queue.clear()
        for name in list(self.job_list.jobs()):
            job = self.job_list.get(name)
            queued = [part for part in _parts(job) if job.state(part) == JobState.QUEUED]
            if queued and not job.state().is_finished():
                await self._interrupt(job, queued)

    async def _interrupt(self, job: Job, parts: List[Optional[int]]) -> None:
        for iteration in parts:
            if job.name not in self._unwanted and not job.state(iteration).is_finished():
                self.interruptions.add(job, iteration)
        job.canceled = True
        for iteration in parts:
            await self.cancel_iteration(job, iteration)

    def _running(self, job: Job, iteration: Optional[int]) -> Optional[ExecutionJob]:
        for running in self._executor._not_finished.values():
            if running.job_iteration.job is job and running.job_iteration.iteration == iteration:
                return running
        return None

    def _allocate_or_refuse(self, wanted: Any) -> Any:
        try:
            return self._allocate(wanted)
        except (NotSufficientResources, InvalidResourceSpec):
            raise
        except Exception as error:
            _logger.exception("an allocation failed")
            raise InvalidResourceSpec(f"these resources cannot be allocated: {error}") from error

    def _schedule_loop_ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.on_failure(error)


def _parts(job: Job) -> List[Optional[int]]:
    """Return what of a job is started and ended: its iterations, or the job itself."""
    return list(job.iteration.iterations_gen()) if job.has_iterations else [None]
