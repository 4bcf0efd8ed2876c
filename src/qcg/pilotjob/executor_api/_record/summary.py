"""Sum up a record, in numbers and in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from qcg.pilotjob.executor_api._record.rows import RunRow, spent
from qcg.pilotjob.executor_api._record.runs import Era, Run
from qcg.pilotjob.executor_api._shared.job_info import is_named_after
from qcg.pilotjob.executor_api._shared.run_files import tail
from qcg.pilotjob.executor_api._shared.texts import code_text, printable, visible

__all__ = [
    "RunFailure",
    "RunSummary",
    "Steps",
    "cores_there",
    "cores_used",
    "duration",
    "label",
    "seconds_covered",
    "summarize",
]

Steps = List[Tuple[datetime, int]]
"""From each time on, as many; in the order of time."""


def cores_there(eras: Iterable[Era]) -> Steps:
    """Return how many cores jobs could use."""
    return _steps((era.started, era.ended, era.cores) for era in eras)


def cores_used(rows: Iterable[RunRow], now: datetime) -> Steps:
    """Return how many cores jobs had; those that run have theirs up to `now`."""
    return _steps(
        (row["started"], row["ended"] or now, row["cores"])
        for row in rows
        if row["started"] and (row["ended"] or row["state"] == "EXECUTING")
    )


def seconds_covered(steps: Steps) -> float:
    """Return for how long there was something."""
    pairs = zip(steps, steps[1:])
    return sum(((after - moment).total_seconds() for (moment, number), (after, _) in pairs if number), 0.0)


def _steps(spans: Iterable[Tuple[datetime, datetime, int]]) -> Steps:
    changes: List[Tuple[datetime, int]] = []
    for started, ended, number in spans:
        changes += [(started, number), (ended, -number)]
    changes.sort()
    steps: Steps = []
    level = 0
    for moment, together in groupby(changes, key=lambda change: change[0]):
        level += sum(change for _, change in together)
        steps.append((moment, level))
    return steps


_HOUR = 3600.0
_MOST_FAILURES = 10
_FEW_CORE_HOURS = 0.01  # fewer are shown as core-seconds
_WIDEST_LINE = 120


@dataclass(frozen=True)
class RunFailure:
    """A job or iteration that is FAILED.

    Attributes:
        row: what is on record of it.
    """

    row: RunRow

    @property
    def last_line(self) -> str:
        """The last line of its standard error that is not blank; empty when there is none, or no file any more.

        It is read when it is asked for, and only from a file that is named after the job: any other file may hold lines
        of other jobs.
        """
        path = self.row["stderr"]
        is_own = path is not None and is_named_after(self.row["name"], self.row["iteration"], Path(visible(path)))
        lines = tail(path, 20).splitlines() if path and is_own else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return printable(last)

    def __str__(self) -> str:
        code = code_text(self.row["exit_code"], self.row["signal"])
        parts = [code, self.row["message"], self.last_line[:_WIDEST_LINE]]
        return f"{label(self.row)}: " + ("; ".join(part for part in parts if part) or "nothing is known of the reason")


@dataclass(frozen=True)
class RunSummary:
    """Holds the sums of a `RunRecord`; as text by ``str()``.

    Attributes:
        jobs: the number of jobs, each iteration of an array counted as one.
        runs: the number of runs; one that was resumed is one run.
        states: how many there are in each state; see `RunRow`.
        interrupted: how often a job that ran was ended by the end of its manager or its node, run again or not.
        succeeded_core_hours: what jobs have used that SUCCEED, also those whose names were used again.
        wasted_core_hours: what the others have used that ended, and what was interrupted; what ran when its manager
            was killed is on no record, and not in here.
        running_core_hours: what those have used until now that are EXECUTING, as far as the manager tells.
        wall_seconds: for how long a manager was there; where no log tells, from the first submission to the last end.
        cores: the most that jobs could use at a time; None when no log tells.
        mean_use: which part of the cores was in use, on average, while a manager was there; None when no log tells.
        slowest: the rows of the jobs that took longest, the slowest first.
        failed: all that is FAILED, in the order of the record.
    """

    jobs: int
    runs: int
    states: Dict[str, int]
    interrupted: int
    succeeded_core_hours: float
    wasted_core_hours: float
    running_core_hours: float
    wall_seconds: float
    cores: Optional[int]
    mean_use: Optional[float]
    slowest: List[RunRow]
    failed: List[RunFailure]

    def __str__(self) -> str:
        counts = ", ".join(f"{number} {state}" for state, number in sorted(self.states.items()))
        runs = f" in {self.runs} runs" if self.runs > 1 else ""
        lines = [f"jobs:        {self.jobs}{runs}" + (f" ({counts})" if counts else "")]
        if self.interrupted:
            lines.append(f"interrupted: {self.interrupted} times")
        lines.append(self._used())
        lines.append(f"wall time:   {duration(self.wall_seconds)}{self._use()}")
        if self.slowest:
            lines.append("slowest:")
            lines += [f"  {duration(row['seconds'] or 0.0):>10}  {label(row)}  {row['state']}" for row in self.slowest]
        if self.failed:
            lines.append(f"failed:      {len(self.failed)}")
            lines += [f"  {failure}" for failure in self.failed[:_MOST_FAILURES]]
        if len(self.failed) > _MOST_FAILURES:
            lines.append(f"  and {len(self.failed) - _MOST_FAILURES} more")
        return "\n".join(lines)

    def _used(self) -> str:
        used = (self.succeeded_core_hours, self.wasted_core_hours, self.running_core_hours)
        name, unit = ("core-hours:  ", 1.0) if sum(used) >= _FEW_CORE_HOURS else ("core-s:      ", _HOUR)
        succeeded, wasted, running = (f"{hours * unit:.4g}" for hours in used)
        return f"{name}{succeeded} succeeded, {wasted} wasted" + (f", {running} running" if used[2] else "")

    def _use(self) -> str:
        if self.cores is None:
            return ""
        return f" on {self.cores} cores" + ("" if self.mean_use is None else f", {self.mean_use:.0%} of them in use")


def summarize(
    rows: Sequence[RunRow], earlier: Sequence[RunRow], runs: Sequence[Run], now: datetime, slowest: int
) -> RunSummary:
    """Return what the rows, and the `earlier` ones of what was run again or replaced, come to."""
    every = [*rows, *earlier]
    eras = [era for run in runs for era in run.eras]
    there = cores_there(eras)
    offered = sum(era.cores * (era.ended - era.started).total_seconds() for era in eras)
    used = sum(spent(row, now) for row in every)
    running = sum(spent(row, now) for row in rows if row["state"] == "EXECUTING")
    succeeded = sum(spent(row, now) for row in every if row["state"] == "SUCCEED")
    timed = [row for row in rows if row["seconds"] is not None]
    return RunSummary(
        jobs=len(rows),
        runs=len(runs),
        states=dict(Counter(row["state"] for row in rows)),
        interrupted=sum(row["interrupted"] and row["started"] is not None for row in every),
        succeeded_core_hours=succeeded / _HOUR,
        wasted_core_hours=(used - running - succeeded) / _HOUR,
        running_core_hours=running / _HOUR,
        wall_seconds=seconds_covered(there) if eras else _span(every),
        cores=max([*(number for _, number in there), *(era.cores for era in eras)], default=None),
        mean_use=min(1.0, used / offered) if offered else None,
        slowest=sorted(timed, key=lambda row: -(row["seconds"] or 0.0))[:slowest],
        failed=[RunFailure(row) for row in rows if row["state"] == "FAILED"],
    )


def label(row: RunRow) -> str:
    """Return how the manager calls a job or an iteration."""
    return row["name"] if row["iteration"] is None else f"{row['name']}:{row['iteration']}"


def _span(rows: Sequence[RunRow]) -> float:
    begins = [moment for row in rows for moment in (row["submitted"] or row["started"],) if moment]
    ends = [row["ended"] for row in rows if row["ended"]]
    return max(0.0, (max(ends) - min(begins)).total_seconds()) if begins and ends else 0.0


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    return str(timedelta(seconds=round(seconds)))
