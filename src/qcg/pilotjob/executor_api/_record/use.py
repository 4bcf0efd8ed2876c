"""Cores over time: how many there were, how many were in use."""

from __future__ import annotations

from datetime import datetime
from itertools import groupby
from typing import Iterable, List, Tuple

from qcg.pilotjob.executor_api._record.rows import RunRow
from qcg.pilotjob.executor_api._record.runs import Era

__all__ = ["Steps", "cores_there", "cores_used", "seconds_covered"]

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
