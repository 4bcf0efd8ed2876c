"""Ask the manager of an executor for jobs that have not ended, in addition to the files of its run."""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Tuple

from qcg.pilotjob.executor_api._record.rows import RunRow, Task, make_row
from qcg.pilotjob.executor_api._record.runs import Era, Run, read_run
from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api._shared.times import now
from qcg.pilotjob.executor_api.errors import ExecutorClosed, ManagerDied
from qcg.pilotjob.executor_api.jobs import FINAL_STATES

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._client.connection import Connection
    from qcg.pilotjob.executor_api._client.dispatcher import Dispatcher

__all__ = ["rows_of", "runs_of"]

_BATCH = 500  # jobs in one question: the manager's loop stands still while it answers


def runs_of(connection: Connection) -> List[Run]:
    """Return the runs of an executor: one, except where its jobs are spread over allocations."""
    return [_run_of(dispatcher, connection) for dispatcher in connection.dispatchers]


def _run_of(dispatcher: Dispatcher, connection: Connection) -> Run:
    report = dispatcher.link.report
    if report is None:
        return _told(connection.manager())
    if dispatcher.has_ended or dispatcher.is_current_thread or dispatcher.link.is_remote:
        return read_run(report.path)  # a manager elsewhere may not be there yet; its files are here
    try:
        live = _unfinished(dispatcher, str(Path(report.path).parent))
    except (ExecutorClosed, ManagerDied, FutureTimeoutError):
        return read_run(report.path)  # it is about to end
    run = read_run(report.path, live)  # after the question: what has ended meanwhile is in there
    if not run.eras:  # of a young manager nothing is in its log yet
        run.eras = [_era(run, dispatcher.link.capacity.cores)]
    return run


def _unfinished(dispatcher: Dispatcher, directory: str) -> Dict[Task, RunRow]:
    listing = _ask(dispatcher, protocol.request("listJobs"))["data"].get("jobs", {})
    names = [name for name, job in listing.items() if job["status"] not in FINAL_STATES]
    rows: Dict[Task, RunRow] = {}
    for first in range(0, len(names), _BATCH):
        message = protocol.request("jobInfo", names[first : first + _BATCH], params={"withChilds": True})
        rows.update(rows_of(protocol.details(_ask(dispatcher, message)), directory))
    return rows


def _ask(dispatcher: Dispatcher, message: bytes) -> Dict[str, Any]:
    reply = dispatcher.ask(message).reply.result(protocol.ANSWER_SECONDS)
    return reply if reply.get("data") else {"data": {}}  # jobs that were removed meanwhile are none to tell of


def _told(manager: Any) -> Run:
    """Return all that a manager of the bare core tells; it keeps its files to itself."""
    names = list(manager.list())
    run = Run("", lives=True)
    for first in range(0, len(names), _BATCH):
        answer = protocol.details({"data": manager.info(names[first : first + _BATCH], withChilds=True)})
        run.rows.extend(row for _, row in rows_of(answer, ""))
    run.eras = [_era(run, int(manager.resources()["total_cores"]))]
    return run


def _era(run: Run, cores: int) -> Era:
    """Return the time of a manager from its first job until now, when nothing is known of its nodes."""
    moment = now()
    began = min((row["submitted"] for row in run.rows if row["submitted"]), default=moment)
    return Era(began, moment, {"": cores})


def rows_of(jobs: Mapping[str, Mapping[str, Any]], directory: str) -> Iterator[Tuple[Task, RunRow]]:
    """Yield the rows of what a manager has answered of its jobs; of an array those of its iterations."""
    for name, info in jobs.items():
        history = list(_history(info.get("history", "")))
        whole = make_row((name, None), {**info, "state": info["status"], "history": history}, directory)
        if "childs" not in info:
            yield (name, None), whole
        for child in info.get("childs", ()):
            task = name, int(child["iteration"])
            yield task, make_row(task, child, directory, whole["submitted"])


def _history(text: str) -> Iterator[Dict[str, str]]:
    """Read the lines of a ``jobInfo``: ``<local time>: <STATE>``."""
    for line in text.split("\n"):
        date, colon, state = line.rpartition(": ")
        if colon:
            yield {"date": date, "state": state}
