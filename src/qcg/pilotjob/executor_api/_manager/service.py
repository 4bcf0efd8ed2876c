"""The core's service in a process of its own: private files and sockets, prompt start, complete end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import socket
import threading
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

import qcg.pilotjob.environment
import qcg.pilotjob.executionjob
import qcg.pilotjob.executor
import qcg.pilotjob.joblist
import qcg.pilotjob.manager
import qcg.pilotjob.parseres
import qcg.pilotjob.service
import zmq.asyncio
from qcg.pilotjob.config import Config
from qcg.pilotjob.joblist import JobState
from qcg.pilotjob.logger import top_logger
from qcg.pilotjob.manager import DirectManager
from qcg.pilotjob.service import QCGPMService

from qcg.pilotjob.executor_api._execution import pool
from qcg.pilotjob.executor_api._execution.nodes import Agents
from qcg.pilotjob.executor_api._execution.settings import Settings
from qcg.pilotjob.executor_api._execution.slurm import in_allocation, resources_of_allocation
from qcg.pilotjob.executor_api._manager.manager import Manager
from qcg.pilotjob.executor_api._manager.presence import (
    Presence,
    end_earlier,
    note_on_neighbours,
    refuse_other_users,
    sockets_of,
)
from qcg.pilotjob.executor_api._manager.records import BufferedLog, Record, write_environment
from qcg.pilotjob.executor_api._manager.requests import Receiver
from qcg.pilotjob.executor_api._manager.resume import Tracker
from qcg.pilotjob.executor_api._manager.sockets import LINGER, REQUESTS, EventPublisher, RequestInterface
from qcg.pilotjob.executor_api._processes.children import Children
from qcg.pilotjob.executor_api._processes.resources import local_cpus, resources_of_machine
from qcg.pilotjob.executor_api._processes.run_times import RunTimes, wrapper_in
from qcg.pilotjob.executor_api._processes.starter import SOCKETS, Frames
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.ownership import NotOwned, read_owned
from qcg.pilotjob.executor_api._shared.protocol import INTERRUPTED
from qcg.pilotjob.executor_api._shared.run_files import HANDOVER
from qcg.pilotjob.executor_api._shared.sockets import make_socket_directory
from qcg.pilotjob.executor_api._shared.times import RecordTime

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._manager.remote_sockets import Remote

_logger = logging.getLogger(__name__)
_own_logger = logging.getLogger("qcg.pilotjob.executor_api")

ORPHAN_GRACE = 0.5  # seconds between SIGTERM and SIGKILL for jobs whose client has gone
_LONGEST_END = 5.0  # seconds for the manager to end all jobs and itself when nobody waits for it any more
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Service(QCGPMService):  # type: ignore[misc]  # the core is untyped
    """The manager process's one owner.

    Mends C6 (the environment is written for all to read), C8 (the event loop of whoever forked), C9 (seconds of sleep
    at the end), C11 (nothing notices that the client has gone) and C12 (signals of the client's terminal). Can go when
    the core's service can be given its loop, its files' mode and a lifeline.
    """

    def __init__(
        self,
        arguments: List[str],
        lifeline: Optional[int],
        starter: Tuple[int, socket.socket],
        settings: Settings,
        remote: Optional[Dict[str, Any]] = None,
        *,
        exclusive: bool = False,
    ) -> None:
        self._settings = settings
        self._agents = Agents(settings)
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(self._failed_in_loop)
        self._lifeline = lifeline
        self._starter = starter
        self._sockets: Optional[Path] = None
        self._presence: Optional[Presence] = None
        self._ending: Optional["asyncio.Task[None]"] = None
        self._failure: Optional[BaseException] = None
        self._children: Optional[Children] = None
        self._run_times: Optional[RunTimes] = None
        self._remote_orders = remote
        self._remote: Optional[Remote] = None
        self._handover: Optional["asyncio.Task[bool]"] = None
        qcg.pilotjob.joblist.datetime = qcg.pilotjob.executionjob.datetime = RecordTime
        qcg.pilotjob.service.StateTracker = Tracker
        qcg.pilotjob.parseres.__RESOURCES_HANDLING__["slurm"] = resources_of_allocation
        qcg.pilotjob.parseres.parse_slurm_resources = resources_of_allocation
        qcg.pilotjob.parseres.in_slurm_allocation = in_allocation
        qcg.pilotjob.environment.in_slurm_allocation = in_allocation
        qcg.pilotjob.parseres.parse_local_resources = partial(
            resources_of_machine, tell=self._tell_note, exclusive=exclusive
        )
        qcg.pilotjob.executor.LauncherExecutionJob = self._agents
        # what a client that has gone does not fetch would be kept, and waited for, without end
        zmq.asyncio.Context.instance().setsockopt(zmq.LINGER, LINGER)
        try:
            super().__init__(["--net", *arguments])
            self.description = self._describe()
            assert self._presence is not None
            self._presence.tell(self.description)
            if remote is None:  # what a scheduler has given to one executor is no other's
                self._tell_of_neighbours(self._tell_note)
        except BaseException:
            self._leave_directory()
            raise

    def _describe(self) -> Dict[str, Any]:
        """Return what a client has to know: addresses, the capacity, and how much of the record is an earlier run's."""
        resources = self._manager.resources
        is_known = pool.knows_consumables(resources)
        return {
            "starter": self._starter[0],
            "remote": self._remote.describe() if self._remote is not None else None,
            "local": self._manager.local,
            "allocation": os.environ.get("SLURM_JOB_ID"),
            "nodes": [node.name for node in resources.nodes],
            "part": self._settings.wanted.cores is not None,  # which no other executor has
            "sockets": str(self._sockets),
            "address": self._receiver.zmq_address,
            "events": self._manager.status_publisher.external_address,
            "report": self._job_reporter.report_file,
            "recorded": self._size_of_report(),
            "capacity": {
                "nodes": resources.total_nodes,
                "cores": self._manager.usable_cores,
                "node_cores": [[node.free, node.used == 0] for node in resources.nodes],
                "node_resources": list(map(pool.consumables_of, resources.nodes)) if is_known else None,
            },
        }

    def _tell_of_neighbours(self, tell: Callable[[str], None]) -> None:
        note = note_on_neighbours(Path(self._aux_dir), self.description, local_cpus().number)
        if note:
            _logger.warning(note)
            tell(note)

    @override
    def _setup_aux_dir(self) -> None:
        super()._setup_aux_dir()
        if Config.RESUME.get(self._conf):  # the client has looked too; its answer may be out of date
            refuse_other_users(self._aux_dir)
        presence = Presence(Path(self._aux_dir))
        end_earlier(presence.earlier, self._tell_note)
        self._settings.earlier_sockets = sockets_of(presence.earlier)
        self._presence = presence
        self._sockets = self._settings.sockets = make_socket_directory(self._aux_dir, REQUESTS, self._tell_starter)
        self._settings.address = f"ipc://{self._sockets / REQUESTS}"
        qcg.pilotjob.service.ZMQInterface = partial(RequestInterface, self._settings.address)
        qcg.pilotjob.manager.StatusPublisher = partial(EventPublisher, self._sockets)

    @override
    def _setup_tracker(self) -> None:
        self._tracer = Tracker(self._aux_dir, reruns=self._settings.reruns)

    def _tell_note(self, text: str) -> None:
        self._settings.tell({"note": text})

    def _tell_starter(self, sockets: str) -> None:
        self._starter[1].sendall(Frames.frame((SOCKETS, sockets)))  # a manager that is killed cannot remove it

    @override
    def _setup_logging(self) -> None:
        self._log_handler = BufferedLog(Path(self._aux_dir, "service.log"), self._loop)
        top_logger.addHandler(self._log_handler)
        level = Config.LOG_LEVEL.get(self._conf).upper()
        top_logger.setLevel(level)
        _own_logger.setLevel(level)
        _logger.info("manager %s starts at %s", Config.MANAGER_ID.get(self._conf), datetime.now())
        _logger.info("arguments: %s", self._args)
        write_environment(Path(self._aux_dir, "env.log"))

    @override
    def _setup_reports(self) -> None:
        self._job_reporter = Record(os.path.join(self._aux_dir, Config.REPORT_FILE.get(self._conf)))

    def _size_of_report(self) -> int:
        report = Path(self._job_reporter.report_file)
        return report.stat().st_size if report.exists() else 0

    @override
    def _setup_signals(self) -> None:
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._end_because, f"it got {number.name}")

    @override
    def _setup_direct_manager(self, parent_manager: Optional[str]) -> None:
        self._children = self._settings.children = Children(self._loop, *self._starter)
        self._children.on_starter_lost = self._starter_lost
        self._children.on_failure = self._fail
        self._manager = Manager(self._tracer, self._conf, self._settings, self._agents, parent_manager)
        self._manager.on_failure = self._fail
        self._manager.on_allocation_end = self._end_because
        self._manager.record = self._job_reporter
        self._manager.register_notifier(self._job_status_change_notify, self._manager)
        if self._remote_orders is not None:
            from qcg.pilotjob.executor_api._manager.remote_sockets import Remote

            self._remote = Remote(self._remote_orders["keys"])
            self._remote.publish_by(self._manager.status_publisher)
            self._ifaces.append(self._remote.interface)
        self._receiver = Receiver(self._manager.get_handler(), self._ifaces)
        if self._manager.local and Config.ENABLE_RT_STATS.get(self._conf):
            self._run_times = self._settings.run_times = self._make_run_times()

    @override
    def _job_status_change_notify(
        self, job_id: str, iteration: Optional[int], state: JobState, manager: DirectManager
    ) -> None:
        if not state.is_finished():
            return
        job = manager.job_list.get(job_id)
        interrupted = self._manager.interruptions.caused(job, iteration, state)
        if interrupted:
            job.append_runtime({INTERRUPTED: "true"}, iteration)
        self._job_reporter.report_job(job, iteration)
        if not interrupted:
            self._tracer.job_finished(job, iteration)

    def _make_run_times(self) -> RunTimes:
        pipe = self._settings.sockets / "rt.pipe"
        return RunTimes(Path(self._aux_dir).parent, pipe, wrapper_in(self._conf), self._loop)

    @override
    def start(self) -> None:
        if top_logger.isEnabledFor(logging.INFO):
            self._settings.note_in_log = self._log_handler.note
        if top_logger.level == logging.INFO:
            top_logger.setLevel(logging.WARNING)  # the core writes a dozen lines a job, where we write two
        if self._lifeline is not None:
            self._loop.add_reader(self._lifeline, self._read_lifeline, self._lifeline)
        if self._remote is not None and self._remote_orders is not None:
            from qcg.pilotjob.executor_api._manager.remote_sockets import ClientWatch

            ClientWatch(
                self._remote,
                self._manager,
                seconds=self._remote_orders["silence"],
                idle_seconds=self._remote_orders["idle"],
                on_silence=self._end_because,
                on_idle=lambda: self._receiver.set_finish(True),
                look_for_handover=self._look_for_handover,
            ).start()
        try:
            self._loop.run_until_complete(self._run_service())
        finally:
            self._clean_up()
        if self._failure is not None:
            self.exit_code = 1

    @override
    async def _stop_interfaces(self, receiver: Receiver) -> None:
        await receiver.ended.wait()
        await receiver.stop()

    def _read_lifeline(self, lifeline: int) -> None:
        if not os.read(lifeline, 1024):
            self._loop.remove_reader(lifeline)
            self._end_because("its client has gone")

    def _look_for_handover(self) -> None:
        """Take what a client has left that was detached before there was a manager."""
        path = Path(self._aux_dir, HANDOVER)
        if self._handover is not None or self._presence is None or not path.exists():
            return
        try:
            left = read_owned(path, owner=self._presence.owner)
        except NotOwned as error:
            _logger.error("jobs that were left for this manager are not taken: %s", error)  # noqa: TRY400
            return
        self._manager.detached = True
        taken_over = self._handover = self._loop.create_task(self._take_over(left))
        # one that cannot be taken over stays for whoever wants to know what was in it
        taken_over.add_done_callback(lambda _: path.unlink(missing_ok=True) if taken_over.result() else None)

    async def _take_over(self, handover: bytes) -> bool:
        try:
            for jobs in json.loads(handover):
                response = await self._receiver.answer({"request": "submit", "jobs": jobs, "again": True})
                if response.code != 0:
                    _logger.error("jobs that were left for this manager are refused: %s", response.msg)
        except Exception:
            _logger.exception("what was left for this manager cannot be taken over")
            return False
        return True

    def _end_because(self, reason: str) -> None:
        _logger.warning("the manager ends all jobs and itself: %s", reason)
        if self._ending is None:
            self._fall_silent()
            self._settings.tell({"ending": reason})
            self._ending = self._loop.create_task(self._end())
            last_resort = threading.Timer(_LONGEST_END, self._end_by_force)
            last_resort.daemon = True
            try:
                last_resort.start()
            except (RuntimeError, MemoryError):  # there is no room for a thread
                self._loop.call_later(_LONGEST_END, self._end_by_force)

    def _fall_silent(self) -> None:
        """Answer nothing and publish nothing more: what is interrupted now is not the jobs' end.

        The clients hear of the end of this process, and find on record what had ended before.
        """
        if self._remote is not None:
            self._remote.close()
        for interface in self.get_interfaces(RequestInterface):
            interface.close()
        if self._manager.status_publisher is not None:
            self._manager.status_publisher.close()

    def _fail(self, error: BaseException) -> None:
        _logger.error("the manager failed", exc_info=error)
        self._failure = error
        self._end_because(f"it failed: {error!r}")

    def _starter_lost(self) -> None:
        self._failure = RuntimeError("the process that starts jobs has ended")
        self._end_because(str(self._failure))

    def _failed_in_loop(self, loop: asyncio.AbstractEventLoop, context: Dict[str, Any]) -> None:
        if isinstance(context.get("exception"), MemoryError):  # whatever was to be done then is not done
            self._end_by_force()
        loop.default_exception_handler(context)

    async def _end(self) -> None:
        try:
            await self._manager.end_all_jobs(ORPHAN_GRACE)
        except Exception:
            self._end_by_force()
            raise
        self._receiver.set_finish(True)

    def _end_by_force(self) -> None:
        """End this process although a part of it does not end in time."""
        try:
            if self._children is not None:
                self._children.close()
            self._leave_directory()
        finally:  # the starter, or the client, does what is left
            os._exit(1)

    def _clean_up(self) -> None:
        if self._children is not None:
            self._children.close()
        self._tracer.flush()
        self._job_reporter.flush()
        if self._run_times is not None:
            self._run_times.close()
        if self._remote is not None:
            self._remote.close()
        pending = asyncio.all_tasks(self._loop)
        for task in pending:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        zmq.asyncio.Context.instance().destroy()
        self._leave_directory()  # before the loop is closed: with that its signals' handlers go
        _logger.info("the manager has ended")
        top_logger.removeHandler(self._log_handler)
        self._log_handler.close()
        self._loop.close()

    def _leave_directory(self) -> None:
        if self._presence is not None:
            self._presence.end()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)  # the client may be removing it too
