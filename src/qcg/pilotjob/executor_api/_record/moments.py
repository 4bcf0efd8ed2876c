"""When what is drawn was, and where on the axis of a picture a moment is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import List, Sequence, Tuple

from qcg.pilotjob.executor_api._record.rows import RunRow
from qcg.pilotjob.executor_api._record.runs import Run

__all__ = ["Axis", "Moments"]

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
    """What is drawn: the runs, when the record was taken, the picture's title."""

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
