"""The files of a run: what has ended, what was submitted, which cores there were and when.

A user may read what a colleague's jobs have done, and is told whose they are. Nothing of such a run is executed,
unpickled or connected to. All its files have to be those of one user: what somebody else has put between them tells
nothing of that user's jobs.
"""

from __future__ import annotations

import io
import json
import os
import re
import warnings
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from qcg.pilotjob.executor_api._record.rows import (
    UNFINISHED,
    RunRow,
    Task,
    make_row,
    split_task,
    task_of,
    unfinished_row,
)
from qcg.pilotjob.executor_api._shared.ownership import NotOwned, open_owned, owner_name, owner_of
from qcg.pilotjob.executor_api._shared.protocol import INTERRUPTED, Submissions
from qcg.pilotjob.executor_api._shared.rules import MOST_ITERATIONS
from qcg.pilotjob.executor_api._shared.run_files import PREFIX, closed_to_us, is_lived_in, of_this_user, runs_in
from qcg.pilotjob.executor_api._shared.texts import visible
from qcg.pilotjob.executor_api._shared.times import local, moment_of, now
from qcg.pilotjob.executor_api.errors import InvalidOption

__all__ = [
    "Era",
    "Run",
    "drop_what_ran_elsewhere",
    "find_reports",
    "found_runs",
    "open_of_run",
    "owner_of_run",
    "read_run",
    "tell_of_others",
]

_CALLER = 3  # whoever asks for the record


def found_runs(directory: Path) -> List[str]:
    """Return the runs in a working directory: this user's if there are any, else those of the one who works there.

    Raises:
        InvalidOption: there are several other users' runs.
        PermissionError: the directory is closed to this user.
    """
    runs = runs_in(str(directory))
    own = of_this_user(runs)
    owners = sorted({owner_name(owner_of(run)) for run in runs})
    if own and len(own) < len(runs):
        warnings.warn(
            f"{directory} has runs of others too, which are left out: {', '.join(sorted({*runs} - {*own}))}",
            UserWarning,
            stacklevel=_CALLER + 1,
        )
    if not own and len(owners) > 1:
        raise InvalidOption(
            f"{os.fspath(directory)!r} has runs of several users, {', '.join(owners)}; name one of them"
        )
    return own or runs


def tell_of_others(reports: Iterable[Path]) -> None:
    """Warn of runs that are another user's."""
    for report in reports:
        owner = owner_of_run(report)
        if owner != os.geteuid():
            name = owner_name(owner)
            text = f"{report.parent} is a run of {name}: what is told of it is what {name} has written there"
            warnings.warn(text, UserWarning, stacklevel=_CALLER)


def owner_of_run(report: Path) -> int:
    """Return whose a run is: the manager's directory tells, or the report when that was taken elsewhere."""
    return (report.parent if report.parent.name.startswith(PREFIX) else report).stat().st_uid


def open_of_run(path: Path, owner: int) -> IO[bytes]:
    """Open a file of a run of that user.

    Raises:
        InvalidOption: it is another user's, or this user may not read it.
        OSError: it cannot be opened.
    """
    try:
        if path.parent.name.startswith(PREFIX):
            return open_owned(path, owner=owner, others_write=True)
        file = path.open("rb")
        if os.fstat(file.fileno()).st_uid == owner:
            return file
        file.close()
        raise NotOwned(f"{path} belongs to {owner_name(owner_of(path))}, and the report to {owner_name(owner)}")
    except NotOwned as error:
        raise InvalidOption(f"the run in {path.parent} is no single user's: {error}") from None
    except PermissionError as error:
        raise InvalidOption(f"{path} may not be read: {error.strerror}; ask {owner_name(owner)} for it") from None


_REPORT = "jobs.report"
_RESOURCES = ": available resources: "
_UNREADABLE = (AttributeError, KeyError, OverflowError, TypeError, ValueError)
_START = re.compile(": manager [^ ]+ starts at ")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}([+-]\d{4})?(?=: )")


@dataclass(frozen=True)
class Era:
    """The time of one manager, and the cores of each node that jobs could use."""

    started: datetime
    ended: datetime
    nodes: Mapping[str, int]

    @property
    def cores(self) -> int:
        """The number of cores in all."""
        return sum(self.nodes.values())


@dataclass
class Run:
    """One run.

    Attributes:
        directory: the manager's, an empty string when there is none.
        rows: of each job and iteration the last one, in the order of the ends; then those without an end.
        interruptions: the rows of what was interrupted and was run again.
        replaced: the rows of jobs whose names were used again.
        eras: in the order of time; empty when the manager's log does not tell.
        lives: its manager is there.
        last_request: when it took jobs for the last time.
    """

    directory: str
    rows: List[RunRow] = field(default_factory=list)
    interruptions: List[RunRow] = field(default_factory=list)
    replaced: List[RunRow] = field(default_factory=list)
    eras: List[Era] = field(default_factory=list)
    lives: bool = False
    last_request: Optional[datetime] = None

    @property
    def attempts(self) -> Tuple[RunRow, ...]:
        """All rows: of what has ended last, and of what was run again or replaced."""
        return (*self.rows, *self.interruptions, *self.replaced)


def find_reports(given: Union[str, "os.PathLike[str]"]) -> List[Path]:
    """Return the reports that `given` stands for: a manager's directory, one with some in it, or a report.

    Raises:
        InvalidOption: there is none, or it is closed to this user, or several other users have runs there.
    """
    path = Path(os.path.abspath(os.fspath(given)))
    try:
        runs = _runs_at(path)
    except PermissionError as error:
        raise InvalidOption(f"{os.fspath(given)!r} may not be read: {closed_to_us(str(path), error)}") from None
    if not runs:
        raise InvalidOption(
            f"{os.fspath(given)!r} has no record of a run: it is no report, no manager's directory ({PREFIX}...), and "
            "has none in it"
        )
    return runs


def _runs_at(path: Path) -> List[Path]:
    if path.is_file():
        return [path]
    if path.name.startswith(PREFIX) or (path / _REPORT).is_file():
        runs = [path]
    else:
        runs = sorted(map(Path, found_runs(path)), key=_age)
    try:
        for run in runs:
            os.scandir(run).close()  # another user's may be closed, as it is made
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [run / _REPORT for run in runs]


def read_run(report: Path, live: Optional[Mapping[Task, RunRow]] = None) -> Run:
    """Return what the files tell; `live` is what is known besides of jobs that have not ended.

    Raises:
        InvalidOption: the report is none, or not in JSON.
        OSError: a file cannot be read.
    """
    directory, owner = report.parent, owner_of_run(report)
    lives = live is not None or is_lived_in(str(directory))
    run = Run(str(directory), lives=lives, eras=_eras(directory, owner, now() if lives else None))
    attempts = list(_attempts(report, run.directory, owner))
    submitted, requested = _submitted(run, directory / "track.reqs", owner)
    for row, number in attempts:
        submitted[row["name"]] = max(number, submitted.get(row["name"], 1))
    run.replaced = [row for row, number in attempts if number < submitted[row["name"]]]
    last = [row for row, number in attempts if number == submitted[row["name"]]]
    interrupted: Dict[Task, RunRow] = {}
    again: List[RunRow] = []
    for row in last:
        before = interrupted.pop(task_of(row), None)
        if before is not None:
            again.append(before)
        if row["interrupted"]:
            interrupted[task_of(row)] = row
    ended = {task_of(row) for row in last if not row["interrupted"]}
    unfinished = [task for tasks in requested.values() for task in tasks if task not in ended]
    if not lives:
        unfinished = [task for task in unfinished if task not in interrupted]
    again.extend(interrupted[task] for task in unfinished if task in interrupted)
    run.interruptions = again
    dropped = {id(row) for row in again}
    run.rows = [row for row in last if id(row) not in dropped]
    known = live or {}
    run.rows.extend(known.get(task) or unfinished_row(task, run.directory) for task in unfinished)
    return run


def _attempts(report: Path, directory: str, owner: int) -> Iterator[Tuple[RunRow, int]]:
    """Yield a row, with the number of the submission, for each line of the report.

    There is none for an array as a whole: an array is its iterations.
    """
    awaiting: Dict[str, List[RunRow]] = {}
    submissions = Submissions()
    for where, line in _lines(report, owner):
        task = split_task(line["name"])
        try:
            number = submissions.of(line["name"], line, interrupted=INTERRUPTED in line.get("runtime", {}))
            row = make_row(task, line, directory)
            is_whole = task[1] is None and task[0] in awaiting
            submitted = _first_queued(line) if is_whole else None
        except _UNREADABLE as error:
            raise InvalidOption(f"{where} is no record of a job, as a manager writes it: {error!r}") from error
        if is_whole:
            for of_iteration in awaiting.pop(task[0]):
                of_iteration["submitted"] = submitted
            continue
        if task[1] is not None:
            awaiting.setdefault(task[0], []).append(row)
        yield row, number


def _first_queued(line: Dict[str, Any]) -> Optional[datetime]:
    queued = (moment_of(step) for step in line.get("history", ()) if step["state"] == "QUEUED")
    return next(queued, None)


def _submitted(run: Run, requests: Path, owner: int) -> Tuple[Dict[str, int], Dict[str, List[Task]]]:
    """Return how often each name was submitted, and what the last submission of each has to do."""
    times: Dict[str, int] = {}
    tasks: Dict[str, List[Task]] = {}
    for where, request in _lines(requests, owner):
        name = request["name"]
        times[name] = times.get(name, 0) + 1
        tasks.pop(name, None)  # it stands where it was submitted last
        try:
            tasks[name] = _tasks(request)
        except _UNREADABLE as error:
            raise InvalidOption(f"{where} is no description of a job, as a manager keeps it: {error!r}") from error
    if times:
        run.last_request = datetime.fromtimestamp(requests.stat().st_mtime, timezone.utc).astimezone()
    return times, tasks


def _tasks(request: Dict[str, Any]) -> List[Task]:
    iteration = request.get("iteration")
    if not iteration:
        return [(request["name"], None)]
    values = iteration.get("values")
    start = iteration.get("start") or 0
    numbers = range(len(values)) if values else range(start, iteration["stop"])
    if len(numbers) > MOST_ITERATIONS:
        raise ValueError(f"{len(numbers)} iterations")
    return [(request["name"], number) for number in numbers]


def _lines(path: Path, owner: int) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """Yield what each line holds, with the words for where it is."""
    try:
        file = open_of_run(path, owner)
    except FileNotFoundError:
        return  # nothing has ended yet, or nothing was kept of what was submitted
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # torn: the manager is writing it, or was when it ended
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                raise InvalidOption(f"line {number} of {path} is not JSON, as a manager writes it by default") from None
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise InvalidOption(f"line {number} of {path} is no record of a job: it has no name")
            entry["name"] = visible(entry["name"])  # up to release 0.15 a name could be any text
            yield f"line {number} of {path}", entry


def _eras(directory: Path, owner: int, until: Optional[datetime]) -> List[Era]:
    try:
        return _eras_in(directory / "service.log", owner, until)
    except (IndexError, *_UNREADABLE) as error:
        raise InvalidOption(f"{directory / 'service.log'} is no log of a manager: {error!r}") from error


def _eras_in(path: Path, owner: int, until: Optional[datetime]) -> List[Era]:
    """Read the manager's log: each manager says there what it has, and its last line is when it was last seen."""
    eras: List[Era] = []
    nodes: Dict[str, int] = {}
    started: Optional[datetime] = None
    last = ""
    expected = 0
    try:
        log = io.TextIOWrapper(open_of_run(path, owner), encoding="utf-8", errors="replace")
    except OSError:
        return []  # a report alone; then nobody knows how many cores there were
    with log:
        for line in log:
            if not line.endswith("\n"):
                break  # torn, as the last line of a report may be
            if expected:
                expected -= 1
                name, _, size = line.partition(" ")
                nodes[name] = _usable(size)
                continue
            stamp = _STAMP.match(line)
            seen = stamp.group() if stamp else last  # what is logged over several lines has none
            is_told = _RESOURCES in line
            if started and (is_told or _START.match(line, len(seen))):
                eras.append(Era(started, _moment(last), nodes))
                started = None
            if is_told:
                started, nodes, expected = _moment(seen), {}, int(line.split(" cores on ")[1].split(" ")[0])
            last = seen
    if started:
        eras.append(Era(started, until or _moment(last), nodes))
    return eras


def _usable(size: str) -> int:
    """Read a node's ``4 (1 used)``, where what is used at the start is kept from jobs."""
    total, _, used = size.partition(" (")
    return int(total) - int(used.split(" ")[0])


def _moment(stamp: str) -> datetime:
    """Return the time of a line of the log; without a zone, as up to release 0.15, it is local."""
    zone = f"{stamp[-5:-2]}:{stamp[-2:]}" if stamp[-5] in "+-" else ""
    return local(stamp[: len("2026-11-23 01:46:02,373")].replace(",", ".") + zone)


def _age(run: Path) -> float:
    return run.stat().st_ctime


_Key = Tuple[str, Task]


def drop_what_ran_elsewhere(runs: Sequence[Run]) -> None:
    """Take out of each run what was interrupted, or lost, there and has ended later in another run of the same `wd`.

    So it is when jobs of one executor are spread over allocations, and when a program is simply started again.
    """
    if len(runs) < 2:
        return
    ends: Dict[_Key, Tuple[datetime, Run]] = {}
    for run in runs:
        for row in run.rows:
            key = _key(run, row)
            if row["ended"] and not row["interrupted"] and (key not in ends or ends[key][0] < row["ended"]):
                ends[key] = row["ended"], run
    for run in runs:
        kept: List[RunRow] = []
        for row in run.rows:
            left = _left_at(run, row)
            ended, where = ends.get(_key(run, row), (left, run))
            if left is None or where is run or not ended or ended <= left:
                kept.append(row)
            elif row["interrupted"]:
                run.interruptions.append(row)
        run.rows = kept


def _key(run: Run, row: RunRow) -> _Key:
    return os.path.dirname(run.directory), task_of(row)


def _left_at(run: Run, row: RunRow) -> Optional[datetime]:
    """Return when the job was left to others, None when it was not."""
    if row["interrupted"]:
        return row["ended"] or run.last_request
    return run.last_request if row["state"] == UNFINISHED and not run.lives else None
