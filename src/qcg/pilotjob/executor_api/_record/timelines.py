"""The lanes of the picture of a run: one for each core of each node, with the bars of what ran there."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Dict, Iterable, List, Sequence, Tuple

from qcg.pilotjob.executor_api._record.rows import RunRow
from qcg.pilotjob.executor_api._record.runs import Era, Run

__all__ = ["Bar", "Lane", "lanes_of"]


@dataclass
class Bar:
    """What ran on a core: a row, from when to when."""

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
