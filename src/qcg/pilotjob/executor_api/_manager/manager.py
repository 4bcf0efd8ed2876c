"""The core's manager of jobs, with true states and a prompt, complete end."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any, Callable, Dict, List, Optional, Set, Tuple, Union

from qcg.pilotjob.errors import InvalidRequest
from qcg.pilotjob.joblist import Job, JobState
from qcg.pilotjob.manager import DirectManager, SchedulingJob
from qcg.pilotjob.publisher import EventTopic
from qcg.pilotjob.resources import ResourcesType

from qcg.pilotjob.executor_api._execution import pool
from qcg.pilotjob.executor_api._execution.nodes import Agents
from qcg.pilotjob.executor_api._execution.pool import PlacingAlgorithm, place
from qcg.pilotjob.executor_api._execution.settings import Settings
from qcg.pilotjob.executor_api._execution.slurm import is_ending
from qcg.pilotjob.executor_api._manager.arrays import parts_of, why_not_split
from qcg.pilotjob.executor_api._manager.job_queue import WaitingArray, WaitingJob
from qcg.pilotjob.executor_api._manager.records import keep_order, submission_of
from qcg.pilotjob.executor_api._manager.requests import Handler
from qcg.pilotjob.executor_api._manager.resume import Interruptions, ResumedJob
from qcg.pilotjob.executor_api._manager.scheduling import AT_ONCE, Scheduling
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.protocol import SUBMISSION

_logger = logging.getLogger(__name__)

_CANCELLED_AT_ONCE = 5000  # iterations, which takes a sixth of a second
_MOST_STARTS = 5  # of one job, on nodes that do not start it


class Manager(DirectManager):  # type: ignore[misc]  # the core is untyped
    """The manager of jobs on the nodes that this process was given.

    Mends C1 (a job's last event carries the state of one iteration), C2 (one job's bad resources end all scheduling,
    silently), C13 and C27 (a cancel that comes early is lost, or sleeps) and C29 (the queue is gone through for every
    job that ends). Can go when the core publishes the job's own state, survives a failed allocation, cancels what it
    has not started yet and keeps its queue in order.
    """

    def __init__(
        self, tracer: Any, config: Dict[Any, Any], settings: Settings, agents: Agents, parent: Optional[str] = None
    ) -> None:
        self.settings = settings
        self.agents = agents
        self.on_failure: Callable[[BaseException], None] = lambda _: None
        self.on_allocation_end: Callable[[str], None] = lambda _: None
        self.closing = False
        self.record: Any = None
        self.interruptions = Interruptions()
        self._unwanted: Set[str] = set()
        self.ending = False
        self.detached = False
        self.last_end = -math.inf
        self._cancelling: Set["asyncio.Task[None]"] = set()
        self._changed = asyncio.Event()
        self._loop = asyncio.get_event_loop()
        self._going: Dict[str, str] = {}
        self._losses: Dict[str, str] = {}
        self._lost: Set[str] = set()
        self._asks = False  # whether the allocation ends
        self._failed_starts: Dict[Tuple[str, Optional[int]], int] = {}
        self._restarts: Dict[Tuple[str, Optional[int]], int] = {}
        self._submissions: Dict[str, int] = {}  # the numbers of the last ones of names that were used again, or may be
        super().__init__(tracer, config, parent)
        self._scheduler._scheduler_alg = PlacingAlgorithm(self.resources)
        knows_one_node = self.local and self.resources.total_nodes == 1
        self.scheduling = Scheduling(self, self._omit, knows_one_node=knows_one_node)
        # the handler refuses what can never run, and says why
        self.resources.check_min_job_requirements = lambda _: True

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

    def load(self) -> Dict[str, int]:
        """Return how many jobs run, an array as one, and how many cores they use, of how many."""
        usable = self.usable_cores
        return {
            "ExecutingJobs": len({running.job_iteration.job.name for running in self._executor._not_finished.values()}),
            "UsedCores": self.resources.used_cores - (self.resources.total_cores - usable),
            "UsableCores": usable,
        }

    def hopeless(self, job: Job) -> str:
        """Return why a job can never run, as what comes behind "the job"; an empty string when it can."""
        if self._going:
            return ""
        why = pool.why_not(self.resources, job.resources) or why_not_split(job, self.resources.total_cores)
        return "; ".join([why, *self._losses.values()]) if why else ""

    @property
    def awaits_node(self) -> bool:
        """Whether a node goes, and it is not known yet what becomes of the jobs that need it."""
        return bool(self._going)

    def drop_node(self, name: str) -> None:
        """Send nothing more to a node that goes; until `node_lost` follows, no job is called hopeless."""
        self._going[name] = ""
        pool.drop_node(self.resources, name)

    def node_gone(self, name: str, reason: str, patience: float) -> None:
        """Send nothing more to a node; it is lost in `patience` seconds, unless it is this manager that ends."""
        self.drop_node(name)
        self._going[name] = reason
        self._loop.call_later(0.0 if self.ending else patience, self.node_lost, name, reason)
        if patience and not self.ending and not self._asks:
            self._asks = True
            asked = self._loop.run_in_executor(None, is_ending)
            asked.add_done_callback(self._heard_of_allocation)

    def _heard_of_allocation(self, asked: "asyncio.Future[bool]") -> None:
        self._asks = False
        if asked.result():
            self.on_allocation_end("the allocation ends")

    def node_lost(self, name: str, reason: str) -> None:
        """Fail the jobs that run on a node that is no more, and those that cannot run without it."""
        if name in self._lost:
            return
        self._lost.add(name)
        message = f"node {name} is lost: {reason}"
        _logger.error(message)
        self._losses[name] = message
        self._going.pop(name, None)
        pool.drop_node(self.resources, name)
        for running in list(self._executor._not_finished.values()):
            if running.runs_on(name):
                running.node_lost(name, message)
        self.look_through_queue()

    def node_unfit(self, name: str, reason: str) -> None:
        """Send nothing more to a node that does not start what is sent; what runs there goes on."""
        message = f"node {name} takes no more jobs: {reason}"
        _logger.error(message)
        self._losses[name] = message
        pool.drop_node(self.resources, name)
        self.look_through_queue()

    def node_ready(self) -> None:
        """Use a node whose agent is ready later than others; what it has may be less than it should."""
        pool.order_nodes(self.resources, self.resources.granted)
        self.look_through_queue()

    def look_through_queue(self) -> None:
        """Fail the jobs that can no longer run, now that more is known of the nodes; start those that can."""
        for job in self.scheduling.waiting:
            hopeless = self.hopeless(job)
            if hopeless:
                self.scheduling.waiting.remove(job)
                self._fail_queued(job, f"it can no longer run: it {hopeless}")
        self.call_scheduler()

    def run_again(self, running: Any, message: str, most: int) -> bool:
        """Queue a job again that has lost its node, unless that happened `most` times before or it fits nowhere."""
        job, iteration = running.job_iteration.job, running.job_iteration.iteration
        restarts = self._restarts.get((job.name, iteration), 0)
        if restarts >= most or self.closing or self.hopeless(job):
            return False
        self._restarts[job.name, iteration] = restarts + 1
        self._queue_again(running, f"{message}; it was started again")
        return True

    def start_again(self, running: Any, message: str) -> bool:
        """Queue a job again that its node could not start, unless that happened too often or it fits nowhere."""
        job, iteration = running.job_iteration.job, running.job_iteration.iteration
        failed = self._failed_starts[job.name, iteration] = self._failed_starts.get((job.name, iteration), 0) + 1
        if self.closing or self.hopeless(job) or failed >= _MOST_STARTS:
            self.interruptions.add(job, iteration)
            return False
        self._queue_again(running, f"{message}; it is started elsewhere")
        return True

    def _queue_again(self, running: Any, message: str) -> None:
        job, iteration = running.job_iteration.job, running.job_iteration.iteration
        del self._executor._not_finished[running.jid]
        self._scheduler.release_allocation(running.allocation)
        self.change_job_state(job, iteration, JobState.QUEUED, message)
        self.scheduling.waiting.put_back(running.job_iteration)
        self.call_scheduler()

    def _fail_queued(self, job: Job, message: str) -> None:
        for iteration in parts_of(job):
            if job.state(iteration) == JobState.QUEUED:
                self.interruptions.add(job, iteration)
                self.change_job_state(job, iteration, JobState.FAILED, message)

    def place(self, job: Job) -> None:
        """Write into what `job` asks for where it may run; `add` takes only jobs of which that is known.

        Raises:
            InvalidResourceSpec: no allocation could give what is asked for.
        """
        place(job, self.resources)

    def add(self, jobs: List[Job]) -> None:
        """Take all `jobs`, or none of them.

        Mends C17: a job that cannot be queued stays registered for good.
        """
        registered: List[Job] = []
        try:
            for job in jobs:
                self.job_list.add(job)
                registered.append(job)
            queued = [self._to_wait(job, SchedulingJob) for job in jobs]
            self.tracer.new_submited_jobs(jobs)
        except BaseException:
            for job in registered:
                self.job_list.remove(job.name)
            raise
        for waiting in queued:
            self._begin_anew(waiting.job)
        self.scheduling.add(queued)

    def _begin_anew(self, job: Job) -> None:
        """Give a job its number, where an earlier one had its name."""
        if job.name in self._submissions:
            self.resubmitted(job, self._submissions[job.name] + 1)

    def resubmitted(self, job: Job, number: int) -> None:
        """Take note that a job is not the first of its name."""
        self._submissions[job.name] = number
        setattr(job, SUBMISSION, number)

    def remove(self, names: List[str]) -> Dict[str, int]:
        """Forget jobs that have ended, all or none, and return which submissions of their names they were.

        Raises:
            InvalidRequest: one cannot be removed.
        """
        self.scheduling.waiting.settle()  # whatever waits for a job as a whole knows of its end then
        for name in names:
            job = self.job_list.get(name)
            if job is None:
                raise InvalidRequest(f"there is no job {name!r}")
            if not job.state().is_finished():
                raise InvalidRequest(f"job {name!r} cannot be removed: it has not ended; cancel it first")
            needing = self.scheduling.waiting.needing(name)
            if needing is not None:
                raise InvalidRequest(
                    f"job {name!r} cannot be removed: iterations of {needing!r} wait for its iterations; remove it "
                    "when they have started"
                )
        removed = {}
        for name in dict.fromkeys(names):
            removed[name] = self._submissions[name] = submission_of(self.job_list.get(name))
            self.job_list.remove(name)
            self._unwanted.discard(name)
            self.interruptions.forget(name)
        self._restarts = {task: times for task, times in self._restarts.items() if task[0] not in removed}
        self.tracer.jobs_removed(removed)
        return removed

    def was_removed(self, name: str, number: int) -> None:
        """Take note that the submission `number` of a job was removed, by an earlier manager of the run."""
        self._submissions[name] = number

    @override
    async def enqueue(self, jobs: List[Job]) -> None:
        """Queue the jobs of an interrupted run that have not ended."""
        self.scheduling.add([self._to_wait(job, ResumedJob) for job in jobs])

    def _to_wait(self, job: Job, scheduling: Any) -> Union[WaitingJob, WaitingArray]:
        return WaitingArray(scheduling(self, job)) if job.has_iterations else WaitingJob(job)

    # ---- what the core asks for

    @override
    def call_scheduler(self) -> None:
        if self.quit_scheduler:
            self._schedule_event.set()
        else:
            self.scheduling.call()

    @override
    async def _schedule_loop(self) -> None:
        """Last until the core stops the manager, which waits for that."""
        await self._schedule_event.wait()

    def _omit(self, job: Job, why: str) -> None:
        if not job.state().is_finished():
            self.change_job_state(job, None, JobState.OMITTED, f"it was to come after {why}")
            if self.is_all_jobs_finished:
                self._publish_no_jobs_event()

    # ---- states

    @override
    def change_job_state(
        self, job: Job, iteration: Optional[int], state: JobState, error_msg: Optional[str] = None
    ) -> None:
        if self.stop_processing:
            return
        state_of_all = job.set_state(state, iteration, error_msg)
        keep_order(job.history(iteration))
        if state == JobState.SCHEDULED:
            self.tracer.job_started(job, iteration)
        if iteration is None and state.is_finished() and job.has_iterations:
            self._end_iterations(job, state)  # an array that is omitted
        self._tell(job, iteration, state)
        if state_of_all:
            self._tell(job, None, state_of_all)
        self.has_changed()

    def has_changed(self) -> None:
        """Take the news that something has changed that may be waited for."""
        self._changed.set()

    def _tell(self, job: Job, iteration: Optional[int], state: JobState) -> None:
        self._fire_job_state_notifies(job.name, iteration, state)
        if state.is_finished():
            self.last_end = self._loop.time()
            self.scheduling.waiting.ended(job, iteration)

    def _end_iterations(self, job: Job, state: JobState) -> None:
        for iteration in job.iteration.iterations_gen():
            if not job.state(iteration).is_finished():
                job.set_state(state, iteration)
                self._tell(job, iteration, state)

    @override
    def _fire_job_state_notifies(self, job_id: str, iteration: Optional[int], state: JobState) -> None:
        # what is published must be on record first: whoever hears of it may look there
        for notified in self._job_states_cbs.values():
            try:
                notified.callback(job_id, iteration, state, *notified.args)
            except Exception:
                _logger.exception("job %s: its state %s could not be recorded", job_id, state.name)
        self._publish_status_events(job_id, iteration, state)

    @override
    def _publish_status_events(self, job_id: str, iteration: Optional[int], state: JobState) -> None:
        number = self._submissions.get(job_id, 1)
        if number == 1:
            super()._publish_status_events(job_id, iteration, state)
        elif self.status_publisher:
            event = {"manager": self.manager_id, "job": job_id, "state": state.name, SUBMISSION: number}
            topics = [EventTopic.JOB_STATUS, EventTopic.JOB_FINISHED]
            if iteration is not None:
                event["it"] = iteration
                topics = [EventTopic.ITERATION_STATUS, EventTopic.ITERATION_FINISHED]
            for topic in topics if state.is_finished() else topics[:1]:
                self.status_publisher.publish(topic, event)

    @property
    @override
    def is_all_jobs_finished(self) -> bool:
        return not self.scheduling and bool(self._executor.is_all_jobs_finished())

    async def wait_until_idle(self) -> None:
        """Return when every job has ended."""
        while not self.is_all_jobs_finished:
            self._changed.clear()
            await self._changed.wait()

    @override
    async def cancel_job(self, job: Job) -> None:
        self._unwanted.add(job.name)
        await self.scheduling.take_back()
        job.canceled = True
        self.scheduling.waiting.remove(job)
        for running in list(self._executor._not_finished.values()):
            if running.job_iteration.job is job:
                await running.cancel()
        queued = [part for part in parts_of(job) if job.state(part) == JobState.QUEUED]
        for iteration in queued[:_CANCELLED_AT_ONCE]:
            self.change_job_state(job, iteration, JobState.CANCELED)
        if len(queued) > _CANCELLED_AT_ONCE:  # all other requests would wait for the reply to this one
            self.tracer.job_cancelled(job)
            rest = asyncio.ensure_future(self._cancel_in_pieces(job, queued[_CANCELLED_AT_ONCE:]))
            self._cancelling.add(rest)
            rest.add_done_callback(self._cancelling.discard)
        self.call_scheduler()  # for the jobs that depend on it

    async def _cancel_in_pieces(self, job: Job, queued: List[Optional[int]]) -> None:
        """Cancel what has not started, a piece at a time; between two pieces the loop answers others."""
        try:
            for first in range(0, len(queued), AT_ONCE):
                await asyncio.sleep(0)
                for iteration in queued[first : first + AT_ONCE]:
                    if job.state(iteration) == JobState.QUEUED:  # the end of the run may have come before
                        self.change_job_state(job, iteration, JobState.CANCELED)
            self.call_scheduler()
        except Exception as error:  # noqa: BLE001  # as where jobs are started
            self.on_failure(error)

    @override
    async def cancel_iteration(self, job: Job, iteration: Optional[int]) -> None:
        await self.scheduling.take_back()
        state = job.state(iteration)
        if state == JobState.QUEUED:
            if not job.canceled:
                self.scheduling.waiting.remove_iteration(job, iteration)
            self.change_job_state(job, iteration, JobState.CANCELED)
            self.call_scheduler()  # for the jobs that depend on it
        elif state in (JobState.SCHEDULED, JobState.EXECUTING):
            for running in list(self._executor._not_finished.values()):
                if running.job_iteration.job is job and running.job_iteration.iteration == iteration:
                    await running.cancel()

    async def end_all_jobs(self, grace: float) -> None:
        """Take no more jobs and cancel all that have not ended; return when none is left."""
        self.closing = self.ending = True
        self.settings.grace = grace
        await self.scheduling.take_back()
        self.scheduling.waiting.clear()
        for name in list(self.job_list.jobs()):
            job = self.job_list.get(name)
            if not job.state().is_finished():
                await self._interrupt(job, parts_of(job))
        for node, reason in list(self._going.items()):
            if reason:  # the agent has gone, and nobody else tells the end of what ran there
                self.node_lost(node, reason)
        await self.wait_until_idle()

    async def interrupt_queued(self) -> None:
        """Take no more jobs and cancel all that have not started."""
        self.closing = True
        await self.scheduling.take_back()
        self.scheduling.waiting.clear()
        for name in list(self.job_list.jobs()):
            job = self.job_list.get(name)
            queued = [part for part in parts_of(job) if job.state(part) == JobState.QUEUED]
            if queued and not job.state().is_finished():
                await self._interrupt(job, queued)

    async def _interrupt(self, job: Job, parts: List[Optional[int]]) -> None:
        for iteration in parts:
            if job.name not in self._unwanted and not job.state(iteration).is_finished():
                self.interruptions.add(job, iteration)
        job.canceled = True
        for iteration in parts:
            await self.cancel_iteration(job, iteration)
