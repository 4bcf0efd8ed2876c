"""The core's manager of jobs, with true states and a prompt, complete end."""

from __future__ import annotations

import asyncio
import logging
import math
from datetime import datetime
from typing import Any, Callable, Dict, List, Optional, Set, Tuple, Union

from qcg.pilotjob.errors import InvalidRequest, InvalidResourceSpec, NotSufficientResources
from qcg.pilotjob.joblist import Job, JobState
from qcg.pilotjob.manager import DirectManager, SchedulingJob
from qcg.pilotjob.publisher import EventTopic
from qcg.pilotjob.resources import ResourcesType

from qcg.pilotjob.executor_api._execution import pool
from qcg.pilotjob.executor_api._execution.gpus import described
from qcg.pilotjob.executor_api._execution.local_job import LocalJob
from qcg.pilotjob.executor_api._execution.node_job import NodeJob
from qcg.pilotjob.executor_api._execution.nodes import Agents
from qcg.pilotjob.executor_api._execution.pool import PlacingAlgorithm, Size, place
from qcg.pilotjob.executor_api._execution.settings import Settings
from qcg.pilotjob.executor_api._execution.slurm import is_ending
from qcg.pilotjob.executor_api._manager.arrays import why_not_split
from qcg.pilotjob.executor_api._manager.job_queue import Ahead, WaitingArray, WaitingJob, WaitingJobs
from qcg.pilotjob.executor_api._manager.records import submission_of
from qcg.pilotjob.executor_api._manager.requests import Handler
from qcg.pilotjob.executor_api._manager.resume import Interruptions, ResumedJob
from qcg.pilotjob.executor_api._manager.sockets import QueueNews, is_next
from qcg.pilotjob.executor_api._processes.children import Child
from qcg.pilotjob.executor_api._processes.spawning import NOT_EXECUTABLE, CannotStart
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.protocol import SUBMISSION

_logger = logging.getLogger(__name__)

_MOST_STARTS = 5  # of one job, on nodes that do not start it
_AT_ONCE = 50  # jobs that are started before the loop looks at anything else


class Manager(DirectManager):  # type: ignore[misc]  # the core is untyped
    """The manager of jobs on the nodes that this process was given.

    Mends C1 (a job's last event carries the state of one iteration), C2 (one job's bad resources end all scheduling,
    silently), C13 and C27 (a cancel that comes early is lost, or sleeps) and C29 (the queue is gone through for every
    job that ends). Can go when the core publishes the job's own state, survives a failed allocation, cancels what it
    has not started yet and keeps its queue in order.
    """

    def __init__(
        self,
        tracer: Any,
        config: Dict[Any, Any],
        settings: Settings,
        agents: Agents,
        parent_manager: Optional[str] = None,
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
        self.settings.children.after_reaping = self._start_what_fits
        self.settings.children.on_next = self._hand_over
        self._is_due = False
        self._going: Dict[str, str] = {}
        self._losses: Dict[str, str] = {}
        self._lost: Set[str] = set()
        self._asks = False  # whether the allocation ends
        self._failed_starts: Dict[Tuple[str, Optional[int]], int] = {}
        self._restarts: Dict[Tuple[str, Optional[int]], int] = {}
        self._submissions: Dict[str, int] = {}  # the numbers of the last ones of names that were used again, or may be
        super().__init__(tracer, config, parent_manager)
        self._scheduler._scheduler_alg = PlacingAlgorithm(self.resources)
        self._waiting = WaitingJobs(self.job_list, self._omit)
        self._ahead = Ahead(self._waiting, settings.children, self._make_ready)
        self._news: Optional[QueueNews] = None
        self._restoring: Optional["asyncio.Future[None]"] = None
        self._knows_one_node = self.local and self.resources.total_nodes == 1
        if self.status_publisher is not None:
            self._news = QueueNews(self.status_publisher, self._waiting, self._ahead)
            self.status_publisher.may_gather = lambda: self._waiting.for_cores or bool(self._ahead)
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
        for job in self._waiting:
            hopeless = self.hopeless(job)
            if hopeless:
                self._waiting.remove(job)
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
        self._waiting.put_back(running.job_iteration)
        self.call_scheduler()

    def _fail_queued(self, job: Job, message: str) -> None:
        for iteration in _parts(job):
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
            self._waiting.add(waiting, first=is_next(waiting.job))
        if self._ahead and any(map(is_next, jobs)):  # what is ready would start before it
            self._restoring = asyncio.ensure_future(self._restore_order())
        self.call_scheduler()

    async def _restore_order(self) -> None:
        try:
            await self._take_back()
        except Exception as error:  # noqa: BLE001  # as where jobs are started
            self.on_failure(error)

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
        self._waiting.settle()  # whatever waits for a job as a whole knows of its end then
        for name in names:
            job = self.job_list.get(name)
            if job is None:
                raise InvalidRequest(f"there is no job {name!r}")
            if not job.state().is_finished():
                raise InvalidRequest(f"job {name!r} cannot be removed: it has not ended; cancel it first")
            needing = self._waiting.needing(name)
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
        return removed

    @override
    async def enqueue(self, jobs: List[Job]) -> None:
        """Queue the jobs of an interrupted run that have not ended."""
        for job in jobs:
            self._waiting.add(self._to_wait(job, ResumedJob))
        self.call_scheduler()

    def _to_wait(self, job: Job, scheduling: Any) -> Union[WaitingJob, WaitingArray]:
        return WaitingArray(scheduling(self, job)) if job.has_iterations else WaitingJob(job)

    # ---- from the queue to the cores

    @override
    def call_scheduler(self) -> None:
        if self.quit_scheduler:
            self._schedule_event.set()
        elif not self._is_due:
            self._is_due = True
            if not self.settings.children.is_reaping:  # after which it is looked for
                self._loop.call_soon(self._start_what_fits)

    @override
    async def _schedule_loop(self) -> None:
        """Last until the core stops the manager, which waits for that."""
        await self._schedule_event.wait()

    def _start_what_fits(self) -> None:
        if not self._is_due or self.quit_scheduler or self.stop_processing or self._ahead.is_taking_back:
            return
        self._is_due = False
        try:
            if self._start_some():
                self.call_scheduler()
            elif self._knows_one_node and not self.closing and self.tracer.reruns:  # each start is on record first
                self._ahead.fill(self._executor._not_finished.values())
            if self._news is not None:
                self._news.look()
        except Exception as error:  # noqa: BLE001  # whatever it is, nothing would ever start again, silently
            self.on_failure(error)
        self._changed.set()

    def _start_some(self) -> bool:
        """Start what fits, and return whether more may fit."""
        self._waiting.settle()
        unfit: Set[Size] = set()
        for _ in range(_AT_ONCE):
            if self._start_ready():
                continue
            waiting = self._waiting.first(self.resources.free_cores, unfit)
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
                if self._going:  # it is not yet known what becomes of those that need this node
                    return False
                self._waiting.take(waiting, iteration)
                self.change_job_state(iteration.job, iteration.iteration, JobState.FAILED, str(error))
                return True
            if allocation is not None:
                self._waiting.take(waiting, iteration)
                self._start(iteration, allocation)
                return True
        self._waiting.drop_if_done(waiting)
        return False

    def _allocate(self, wanted: Any) -> Any:
        try:
            return self._scheduler.allocate_job(wanted)
        except (NotSufficientResources, InvalidResourceSpec):
            raise
        except Exception as error:
            _logger.exception("an allocation failed")
            raise InvalidResourceSpec(f"these resources cannot be allocated: {error}") from error

    def _start(self, iteration: Any, allocation: Any) -> None:
        job = iteration.job
        self.change_job_state(job, iteration.iteration, JobState.SCHEDULED)
        job.append_runtime({"allocation": allocation.description(), **described(allocation)}, iteration.iteration)
        executor = self._executor
        kind = NodeJob if executor._is_node_launcher else LocalJob
        try:
            running = kind(executor, executor.job_envs, allocation, iteration, executor.schema)
        except Exception as error:
            _logger.exception("job %s was not started", iteration.name)
            self.job_finished(iteration, allocation, NOT_EXECUTABLE, f"cannot start: {error}")
            return
        executor._not_finished[running.jid] = running
        running.start()

    # ---- what the starter starts by itself

    def _make_ready(self, iteration: Any, like: Any) -> Optional[LocalJob]:
        executor = self._executor
        try:
            ready = LocalJob(executor, executor.job_envs, like, iteration, executor.schema)
            ready.make_ready()
        except CannotStart as error:
            self.job_finished(iteration, None, error.exit_code, str(error))
            return None
        except Exception as error:
            _logger.exception("job %s was not started", iteration.name)
            self.job_finished(iteration, None, NOT_EXECUTABLE, f"cannot start: {error}")
            return None
        ready.allocation = None
        return ready

    def _start_ready(self) -> bool:
        """Start the first that is ready when it fits, and return whether it does."""
        ready = self._ahead.first
        if ready is None or ready.ncores > self.resources.free_cores:
            return False
        ready.allocation = self._allocate(ready.job_iteration.resources)
        if ready.allocation is None:
            return False
        self._ahead.remove(ready.jid)
        self._begin(ready, now=True)
        return True

    def _hand_over(self, ended: Child, following: Child) -> Callable[[], None]:
        ready = self._ahead.remove(following.mark)
        if ready is None:  # it has cores already
            return lambda: None
        running = self._executor._not_finished[ended.mark]
        ready.allocation, running.allocation = running.allocation, None
        return lambda: self._begin(ready, now=False)

    def _begin(self, ready: LocalJob, *, now: bool) -> None:
        job, iteration = ready.job_iteration.job, ready.job_iteration.iteration
        self._executor._not_finished[ready.jid] = ready
        self.change_job_state(job, iteration, JobState.SCHEDULED)
        job.append_runtime({"allocation": ready.allocation.description()}, iteration)
        ready.begin(now=now)

    async def _take_back(self) -> None:
        """Let the manager alone decide what starts."""
        if self._ahead:
            await self._ahead.take_back()
            self.call_scheduler()
            self._loop.call_soon(self._start_what_fits)

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
        _keep_order(job.history(iteration))
        if state == JobState.SCHEDULED:
            self.tracer.job_started(job, iteration)
        if iteration is None and state.is_finished() and job.has_iterations:
            self._end_iterations(job, state)  # an array that is omitted
        self._tell(job, iteration, state)
        if state_of_all:
            self._tell(job, None, state_of_all)
        self._changed.set()

    def _tell(self, job: Job, iteration: Optional[int], state: JobState) -> None:
        self._fire_job_state_notifies(job.name, iteration, state)
        if state.is_finished():
            self.last_end = self._loop.time()
            self._waiting.ended(job, iteration)

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
        return not self._waiting and not self._ahead and bool(self._executor.is_all_jobs_finished())

    async def wait_until_idle(self) -> None:
        """Return when every job has ended."""
        while not self.is_all_jobs_finished:
            self._changed.clear()
            await self._changed.wait()

    @override
    async def cancel_job(self, job: Job) -> None:
        self._unwanted.add(job.name)
        await self._take_back()
        job.canceled = True
        self._waiting.remove(job)
        for running in list(self._executor._not_finished.values()):
            if running.job_iteration.job is job:
                await running.cancel()
        queued = [part for part in _parts(job) if job.state(part) == JobState.QUEUED]
        for iteration in queued[:_AT_ONCE]:
            self.change_job_state(job, iteration, JobState.CANCELED)
        if len(queued) > _AT_ONCE:  # all other requests would wait for the reply to this one
            self.tracer.job_cancelled(job)
            rest = asyncio.ensure_future(self._cancel_in_pieces(job, queued[_AT_ONCE:]))
            self._cancelling.add(rest)
            rest.add_done_callback(self._cancelling.discard)
        self.call_scheduler()  # for the jobs that depend on it

    async def _cancel_in_pieces(self, job: Job, queued: List[Optional[int]]) -> None:
        """Cancel what has not started, a piece at a time; between two pieces the loop answers others."""
        try:
            for first in range(0, len(queued), _AT_ONCE):
                await asyncio.sleep(0)
                for iteration in queued[first : first + _AT_ONCE]:
                    if job.state(iteration) == JobState.QUEUED:  # the end of the run may have come before
                        self.change_job_state(job, iteration, JobState.CANCELED)
            self.call_scheduler()
        except Exception as error:  # noqa: BLE001  # as where jobs are started
            self.on_failure(error)

    @override
    async def cancel_iteration(self, job: Job, iteration: Optional[int]) -> None:
        await self._take_back()
        state = job.state(iteration)
        if state == JobState.QUEUED:
            if not job.canceled:
                self._waiting.remove_iteration(job, iteration)
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
        await self._take_back()
        self._waiting.clear()
        for name in list(self.job_list.jobs()):
            job = self.job_list.get(name)
            if not job.state().is_finished():
                await self._interrupt(job, _parts(job))
        for node, reason in list(self._going.items()):
            if reason:  # the agent has gone, and nobody else tells the end of what ran there
                self.node_lost(node, reason)
        await self.wait_until_idle()

    async def interrupt_queued(self) -> None:
        """Take no more jobs and cancel all that have not started."""
        self.closing = True
        await self._take_back()
        self._waiting.clear()
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


def _keep_order(history: List[Tuple[JobState, datetime]]) -> None:
    """Let no step be before the one before: what starters tell of is put on record with their times."""
    if len(history) > 1 and history[-1][1] < history[-2][1]:
        history[-1] = (history[-1][0], history[-2][1])


def _parts(job: Job) -> List[Optional[int]]:
    """Return what of a job is started and ended: its iterations, or the job itself."""
    return list(job.iteration.iterations_gen()) if job.has_iterations else [None]
