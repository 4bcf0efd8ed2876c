"""From a request to its reply: how requests are received, and what the manager answers."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from typing import Any, Dict, List, Optional

from qcg.pilotjob.errors import InvalidRequest, InvalidResourceSpec, JobAlreadyExist
from qcg.pilotjob.joblist import Job, JobList, JobState
from qcg.pilotjob.manager import DirectManagerHandler
from qcg.pilotjob.receiver import Receiver as CoreReceiver
from qcg.pilotjob.request import ControlReq, Request, SubmitReq
from qcg.pilotjob.response import Response

from qcg.pilotjob.executor_api._manager.arrays import make_job
from qcg.pilotjob.executor_api._manager.records import numbered, submission_of
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.protocol import DETACH, FINISH_RUNNING
from qcg.pilotjob.executor_api._shared.rules import FREE_NAME, circle_in, problem_of_name, replaced

_logger = logging.getLogger(__name__)


class Receiver(CoreReceiver):  # type: ignore[misc]  # the core is untyped
    """Answers every request, and wakes whoever waits for the end.

    Mends C7 (any fault in one request ends the service) and C9 (the end is looked for twice a second). Can go when the
    core's listener survives a failed request and signals its end.
    """

    def __init__(self, handler: Any, ifaces: List[Any]) -> None:
        self.ended = asyncio.Event()
        super().__init__(handler, ifaces)

    @override
    def set_finish(self, finished: bool) -> None:
        super().set_finish(finished)
        if finished:
            self.ended.set()

    @override
    async def _listen(self, iface: Any) -> None:
        self._started_iface(iface)
        try:
            while True:
                request = await iface.receive()
                if request is None:
                    return
                await iface.reply(await self._reply_to(request, iface))
        finally:
            self._stopped_iface(iface)

    async def _reply_to(self, request: Dict[str, Any], iface: Any) -> str:
        """Return the text of a reply, whatever the request is: without one its sender, and all others, would wait."""
        try:
            return json.dumps((await self.answer(request, iface)).to_dict())
        except Exception as error:
            _logger.exception("a request failed")
            return json.dumps(Response.error(f"the request failed: {type(error).__name__}: {error}").to_dict())

    async def answer(self, request: Dict[str, Any], iface: Any = None) -> Response:
        """Return the response to a request."""
        if request.get("request") != "submit":  # of those there may be one a job, and the job has its own lines
            _logger.info("request %s", request.get("request"))
        is_sent_again = request.pop("again", False)
        try:
            parsed = Request.parse(request)
            handle = self._handlers[type(parsed)]
        except InvalidRequest as error:
            return _refused(str(error))
        except Exception as error:  # noqa: BLE001  # the core reads whatever it is given
            return _refused(f"{type(error).__name__}: {error}")
        if is_sent_again and isinstance(parsed, SubmitReq):
            parsed.jobs = self._not_taken_yet(parsed.jobs)
            if not parsed.jobs:
                return Response.ok("they were submitted before")
        response: Response = await handle(iface, parsed)
        return response

    def _not_taken_yet(self, jobs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """Return those that are not here: the request may have come before, to us or to whose run we have taken up."""
        return [job for job in jobs if not self._handler._manager.job_list.exist(job["req"]["name"])]


def _refused(why: str) -> Response:
    _logger.warning("refused: %s", why)
    return Response.error(f"Invalid request: {why}")


ControlReq.REQ_CONTROL_CMDS = [*ControlReq.REQ_CONTROL_CMDS, FINISH_RUNNING, DETACH]

FINISH_GRACE = 1.0  # seconds between SIGTERM and SIGKILL for jobs that are running when the manager has to finish


class Handler(DirectManagerHandler):  # type: ignore[misc]  # the core is untyped
    """Answers requests.

    Mends C9 and C10 (``finish`` sleeps and leaves running jobs behind), C17 (a job that cannot be queued burns its
    name), C18 (the messages of an iteration cannot be asked for), C20 and C21 (jobs that can never run are
    accepted), C24 (a number in the environment fails the job). A job that cannot be removed is an error, and one that
    others wait for cannot be. Can go when the core does.
    """

    _finish_task: Optional["asyncio.Task[None]"]

    @override
    async def handle_submit_req(self, iface: Any, request: Any) -> Response:
        if self._manager.closing:
            return Response.error("the manager is finishing and takes no more jobs")
        try:
            jobs: List[Job] = self._prepare_jobs(request.jobs)
            self._place(jobs)
            self._refuse_hopeless(jobs)
            for job in jobs:
                if job.execution.env:
                    job.execution.env = {name: str(value) for name, value in job.execution.env.items()}
            self._manager.add(jobs)
        except JobAlreadyExist as error:
            return Response.error(f"{error}; attach() follows it, and when it has ended, {FREE_NAME}")
        except InvalidRequest as error:
            return Response.error(str(error))
        except Exception as error:
            _logger.exception("a submission failed")
            return Response.error(f"{type(error).__name__}: {error}")
        # jobs stay until the end: to go through all of them for garbage again and again would cost as much as they do
        gc.freeze()
        data = {"submitted": len(jobs), "jobs": [job.name for job in jobs]}
        again = {job.name: submission_of(job) for job in jobs if submission_of(job) > 1}
        return Response.ok(f"{len(jobs)} jobs submitted", data={**data, "submissions": again} if again else data)

    @override
    async def handle_removejob_req(self, iface: Any, request: Any) -> Response:
        try:
            removed = self._manager.remove(request.job_names)
        except InvalidRequest as error:
            return Response.error(str(error))
        return Response.ok(data={"removed": len(removed), "submissions": removed})

    @override
    def _prepare_jobs(self, req_jobs: List[Dict[str, Any]]) -> List[Job]:
        jobs: Dict[str, Job] = {}
        for requested in req_jobs:
            name = replaced(requested["req"]["name"], requested["vars"])
            what, advice = problem_of_name(name) if isinstance(name, str) else (f"{name!r} is no text", "write text")
            if what:
                raise InvalidRequest(f"the job's name {what}; {advice}")
            if name in jobs or self._manager.job_list.exist(name):
                raise JobAlreadyExist(f"Job {name} already exist")
            try:
                jobs[name] = make_job(replaced(requested["req"], {**requested["vars"], "jname": name}))
            except Exception as error:
                raise InvalidRequest(f"Wrong submit request: {error}") from error
        return list(jobs.values())

    def _place(self, jobs: List[Job]) -> None:
        for job in jobs:
            try:
                self._manager.place(job)
            except InvalidResourceSpec as error:
                raise InvalidRequest(f"job {job.name} can never run: {error}") from error

    def _refuse_hopeless(self, jobs: List[Job]) -> None:
        arriving = {job.name: job for job in jobs}
        circle = circle_in({job.name: job.dependencies.after for job in jobs if job.has_dependencies})
        if circle:
            raise InvalidRequest(f"the jobs {', '.join(circle)} wait for each other and would never start")
        for job in jobs:
            hopeless = self._manager.hopeless(job)
            if hopeless:
                raise InvalidRequest(f"Not enough resources for job {job.name}: it {hopeless}")
            if job.has_iterations and job.iteration.iterations() < 1:
                raise InvalidRequest(f"job {job.name} has no iterations and would never end")
            if job.has_dependencies:
                self._refuse_unknown_dependencies(job, arriving)

    def _refuse_unknown_dependencies(self, job: Job, arriving: Dict[str, Job]) -> None:
        for dependency in job.dependencies.after:
            name, colon, number = dependency.partition(":")
            other = arriving.get(name) or self._manager.job_list.get(name)
            if other is None:
                raise InvalidRequest(f"job {job.name} depends on {name!r}, which was not submitted here before it")
            if colon and not _has_iterations(other, _iterations_named(number, job)):
                raise InvalidRequest(f"job {job.name} depends on {dependency!r}, which {name!r} does not have")

    @override
    async def handle_jobstatus_req(self, iface: Any, request: Any) -> Response:
        response = await super().handle_jobstatus_req(iface, request)
        for name, answer in (response.data or {}).get("jobs", {}).items():
            if answer.get("data", {}).get("status") == JobState.QUEUED.name and self._has_begun(name):
                answer["data"]["status"] = JobState.EXECUTING.name
            job = self._manager.job_list.get(name.partition(":")[0])
            if job is not None and "data" in answer:
                answer["data"].update(numbered(job))
        return response

    def _has_begun(self, name: str) -> bool:
        """Return whether an iteration of an array is under way; the core calls the array QUEUED until its end."""
        job = self._manager.job_list.get(name)
        return bool(
            job is not None
            and job.has_iterations
            and any(iteration.state() != JobState.QUEUED for iteration in job.iteration_states.made())
        )

    @override
    async def handle_jobinfo_req(self, iface: Any, request: Any) -> Response:
        response = await super().handle_jobinfo_req(iface, request)
        for name, answer in (response.data or {}).get("jobs", {}).items():
            if "data" in answer:
                self._complete(name, answer["data"])
        return response

    def _complete(self, name: str, data: Dict[str, Any]) -> None:
        job_name, iteration = JobList.parse_jobname(name)
        job = self._manager.job_list.get(job_name)
        data.pop("messages", None)
        if "history" in data:
            history = job.history(iteration)
            data["history"] = "\n".join(f"{moment.astimezone()}: {state.name}" for state, moment in history)
        if job.messages(iteration):
            data["messages"] = job.messages(iteration)
        for child in data.get("childs", []):
            number = child["iteration"]
            history = job.history(number)
            child["history"] = [
                {"state": state.name, "date": moment.isoformat(), "time": moment.timestamp()}
                for state, moment in history
            ]
            if job.messages(number):
                child["messages"] = job.messages(number)

    @override
    async def handle_status_req(self, iface: Any, request: Any) -> Response:
        response = await super().handle_status_req(iface, request)
        if request.allJobsFinished and response.data:  # the question that is cheap however many jobs there are
            response.data.update(self._manager.load())
        return response

    @override
    async def handle_control_req(self, iface: Any, request: Any) -> Response:
        if request.command == DETACH:
            self._manager.detached = True
            return Response.ok("the manager goes on without a client")
        if request.command == FINISH_RUNNING:
            await self._manager.interrupt_queued()
        elif self._finish_task is not None:
            return Response.error("finishing was requested before")
        if self._finish_task is None:
            self._finish_task = asyncio.ensure_future(self._wait_for_all_jobs())
        return Response.ok(f"{request.command} command accepted")

    @override
    async def _wait_for_all_jobs(self) -> None:
        await self._manager.wait_until_idle()
        self.stop_receiver()

    @override
    async def handle_finish_req(self, iface: Any, request: Any) -> Response:
        if self._manager.ending:
            return Response.error("finishing was requested before")
        self._manager.closing = self._manager.ending = True
        self._finish_task = asyncio.ensure_future(self._finish_now())
        return Response.ok(data={"when": "0s"})

    async def _finish_now(self) -> None:
        await self._manager.end_all_jobs(FINISH_GRACE)
        self.stop_receiver()


def _iterations_named(number: str, job: Job) -> Optional[range]:
    """Return the iterations that a dependency of `job` names, None when it names none."""
    if number == "${it}":
        return job.iteration.iterations_gen() if job.has_iterations else None
    return range(int(number), int(number) + 1) if number.isdigit() else None


def _has_iterations(job: Job, named: Optional[range]) -> bool:
    return bool(
        named is not None
        and job.has_iterations
        and job.iteration.start <= named.start
        and named.stop <= job.iteration.stop
    )
