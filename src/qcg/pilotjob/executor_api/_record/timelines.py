"""The lanes and the time axis of the picture of a run."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Dict, Iterable, List, Sequence, Tuple

from qcg.pilotjob.executor_api._record.rows import RunRow
from qcg.pilotjob.executor_api._record.runs import Era, Run

__all__ = ["Axis", "Bar", "Lane", "Moments", "lanes_of"]

_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


@dataclass(frozen=True)
class Axis:
    """The axis of time, from 0 to `length` in a unit of so many seconds."""

    began: datetime
    ended: datetime
    unit: float
    name: str

    @property
    def length(self) -> float:
        """Where it ends."""
        return max(1e-3, (self.ended - self.began).total_seconds()) / self.unit

    @property
    def label(self) -> str:
        """What stands below it."""
        return f"{self.name} since {self.began:%Y-%m-%d %H:%M:%S}"

    def place(self, moment: datetime) -> float:
        """Return where a moment is."""
        return (moment - self.began).total_seconds() / self.unit

    def span(self, started: datetime, ended: datetime) -> Tuple[float, float]:
        """Return where a time begins and ends, in no more digits than a microsecond has."""
        return round(self.place(started), 9), round(self.place(ended), 9)


@dataclass
class Moments:
    """Holds what is drawn: the runs, when the record was taken, the picture's title."""

    runs: Sequence[Run]
    taken: datetime
    title: str

    @property
    def rows(self) -> List[RunRow]:
        """The rows of all that ran, run again or not."""
        return [row for run in self.runs for row in run.attempts]

    @property
    def started(self) -> datetime:
        """When it began: the first manager, or the first job."""
        starts = [era.started for run in self.runs for era in run.eras]
        return min([*starts, *(row["started"] for row in self.rows if row["started"])], default=self.taken)

    @property
    def ended(self) -> datetime:
        """When it ended: the last manager, or the last job."""
        ends = [era.ended for run in self.runs for era in run.eras]
        return max([*ends, *(row["ended"] for row in self.rows if row["ended"])], default=self.taken)

    def axis(self) -> Axis:
        """Return the axis, in the largest unit of which there are three."""
        began, ended = self.started, self.ended
        length = (ended - began).total_seconds()
        unit, name = next(item for item in _UNITS if length >= item[0] * 3 or item[0] == 1.0)
        return Axis(began, ended, unit, name)


@dataclass
class Bar:
    """Holds what ran on a core: a row, from when to when."""

    row: RunRow
    started: datetime
    ended: datetime


@dataclass
class Lane:
    """A core; when it was there, and what ran on it."""

    run: str
    node: str
    core: str
    there: List[Tuple[datetime, datetime]] = field(default_factory=list)
    bars: List[Bar] = field(default_factory=list)


def lanes_of(runs: Sequence[Run], now: datetime) -> List[Lane]:
    """Return the lanes, run by run, in the order of nodes and cores."""
    return [lane for run in runs for lane in _lanes(run, now)]


def _lanes(run: Run, now: datetime) -> List[Lane]:
    lanes: Dict[Tuple[str, str], Lane] = {}
    for row in run.attempts:
        ended = row["ended"] or (now if row["state"] == "EXECUTING" else None)
        if row["started"] is None or ended is None:
            continue
        bar = Bar(row, row["started"], ended)
        for node, core in _cores(row):
            lanes.setdefault((node, core), Lane(run.directory, node, core)).bars.append(bar)
    _add_idle(run, lanes)
    ordered = sorted(lanes.values(), key=lambda lane: (_natural(lane.node), _natural(lane.core)))
    _say_when(run, ordered)
    return ordered


def _cores(row: RunRow) -> Iterable[Tuple[str, str]]:
    return ((node, core) for node, cores in row["core_numbers"].items() for core in cores)


def _add_idle(run: Run, lanes: Dict[Tuple[str, str], Lane]) -> None:
    """Add lanes for cores that nothing ran on, and say of each when it was there.

    The record has the numbers of cores that something ran on, the log how many there are. So the others get the lowest
    numbers that are free; where a core was kept from the jobs that may be its number.
    """
    nodes = {node for era in run.eras for node in era.nodes if node}
    for node in nodes:
        most = max(era.nodes.get(node, 0) for era in run.eras)
        missing = most - sum(name == node for name, _ in lanes)
        for number in map(str, count()):
            if missing <= 0:
                break
            if (node, number) not in lanes:
                lanes[node, number] = Lane(run.directory, node, number)
                missing -= 1


def _say_when(run: Run, lanes: Sequence[Lane]) -> None:
    """Say of each core when it was there: what was used, and the first ones of the others."""
    for era in run.eras:
        left = Counter(era.nodes)
        for lane in sorted(lanes, key=lambda lane: not _is_used(lane, era)):
            if left[lane.node] > 0 or "" in era.nodes:
                left[lane.node] -= 1
                lane.there.append((era.started, era.ended))


def _is_used(lane: Lane, era: Era) -> bool:
    return any(bar.started < era.ended and bar.ended > era.started for bar in lane.bars)


def _natural(name: str) -> List[Tuple[int, int, str]]:
    """Return a key by which n2 comes before n10."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", name) if part]
