"""The pictures of a record, by matplotlib; without its global state, so any thread may draw."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Set, Tuple

from qcg.pilotjob.executor_api._record.lanes import Bar, Lane, lanes_of
from qcg.pilotjob.executor_api._record.rows import RunRow
from qcg.pilotjob.executor_api._record.runs import Run
from qcg.pilotjob.executor_api._record.summary import label
from qcg.pilotjob.executor_api._record.use import Steps, cores_there, cores_used
from qcg.pilotjob.executor_api.errors import InvalidOption

__all__ = ["Moments", "draw_timeline", "draw_utilisation"]

_KINDS = (".png", ".svg", ".pdf")
_WIDTH = 11.0  # inches, of every picture
_LANE = 0.26  # inches, of a lane where there are few
_TALLEST = 24.0
_MOST_LANES = 250
_MOST_LABELS = 40
_MOST_NAMES = 300  # bars that have their names written into them
_CHARACTERS = 150.0  # as many as fit beside each other into the width of a picture

_NARROWEST = 0.002  # of the width, for what is bad: one failure among thousands is what a picture is looked at for
_EDGED = 0.004  # of the width: narrower bars have no edges, which would hide them

# In the order of drawing. What is bad has a hatch too: not everybody sees the colours, and not every printer has them.
_LOOKS = {
    "succeeded": ("#4477aa", ""),
    "running": ("#99ccee", ""),
    "cancelled": ("#ccbb44", "...."),
    "interrupted": ("#aa3377", "xxxx"),
    "failed": ("#ee6677", "////"),
}
_STATES = {"SUCCEED": "succeeded", "FAILED": "failed", "CANCELED": "cancelled", "EXECUTING": "running"}
_IDLE = "#e8e8e8"


@dataclass
class Moments:
    """What is drawn: the runs, when the record was taken, the picture's title."""

    runs: Sequence[Run]
    taken: datetime
    title: str

    @property
    def rows(self) -> List[RunRow]:
        """The rows of all that ran, run again or not."""
        return [row for run in self.runs for row in (*run.rows, *run.interruptions)]

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

    def axis(self) -> Tuple[Callable[[datetime], float], float, str]:
        """Return what places a moment on the axis, where that ends, and its label."""
        length = max(1e-3, (self.ended - self.started).total_seconds())
        unit, name = next(item for item in _UNITS if length >= item[0] * 3 or item[0] == 1.0)
        began = self.started

        def place(moment: datetime) -> float:
            return (moment - began).total_seconds() / unit

        return place, length / unit, f"{name} since {began:%Y-%m-%d %H:%M:%S}"


_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def draw_timeline(path: Path, moments: Moments) -> Path:
    """Draw a lane for each core; see ``RunRecord.timeline``."""
    lanes = lanes_of(moments.runs, moments.taken)
    shown = _most_used(lanes)
    height = min(_TALLEST, max(2.4, 1.5 + _LANE * len(shown)))
    figure, axes = _figure(path, height)
    place, length, unit = moments.axis()
    axes.set_xlim(0.0, length)
    axes.set_xlabel(unit)
    kinds = _draw_lanes(axes, shown, place, length)
    _write_names(axes, shown, place, length)
    _label_lanes(axes, shown, len(moments.runs) > 1)
    title = moments.title
    if len(shown) < len(lanes):
        title += f" ({len(shown)} of {len(lanes)} cores)"
    _finish(axes, title, [_key(kind) for kind in _LOOKS if kind in kinds] + [_idle_key()])
    return _save(figure, path)


def draw_utilisation(path: Path, moments: Moments) -> Path:
    """Draw the number of cores in use over time; see ``RunRecord.utilisation``."""
    figure, axes = _figure(path, 3.6)
    place, length, unit = moments.axis()
    used = cores_used(moments.rows, moments.taken)
    there = cores_there(era for run in moments.runs for era in run.eras)
    axes.set_xlim(0.0, length)
    axes.set_xlabel(unit)
    axes.set_ylabel("cores")
    axes.set_ylim(0, max([1, *(number for _, number in used), *(number for _, number in there)]) * 1.08)
    axes.yaxis.get_major_locator().set_params(integer=True)
    handles = [axes.fill_between(*_stairs(used, place), step="post", color=_LOOKS["succeeded"][0], label="in use")]
    if there:
        handles += axes.step(*_stairs(there, place), where="post", color="#222222", linewidth=1.4, label="there")
    _finish(axes, moments.title, handles)
    return _save(figure, path)


def _figure(path: Path, height: float) -> Tuple[Any, Any]:
    if path.suffix.lower() not in _KINDS:
        raise InvalidOption(f"{os.fspath(path)!r} is no name of a picture; let it end with .png, .svg or .pdf")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'qcg-pilotjob-executor-api[pictures]'") from error
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=130)
    return path


def _finish(axes: Any, title: str, handles: List[Any]) -> None:
    """Write what stands around the picture; a `$` in a name is no formula."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.figure.suptitle(title, x=0.01, ha="left", fontsize=9, parse_math=False)
    corner = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
    axes.legend(handles=handles, ncols=len(handles), frameon=False, fontsize=8, **corner)


def _most_used(lanes: List[Lane]) -> List[Lane]:
    if len(lanes) <= _MOST_LANES:
        return lanes
    kept = sorted(range(len(lanes)), key=lambda number: not lanes[number].bars)[:_MOST_LANES]
    return [lanes[number] for number in sorted(kept)]


def _draw_lanes(axes: Any, lanes: Sequence[Lane], place: Callable[[datetime], float], length: float) -> Set[str]:
    """Draw the lanes, the first one on top, and return the kinds of bars."""
    bars = [(number, bar) for number, lane in enumerate(lanes) for bar in lane.bars]
    for number, lane in enumerate(lanes):
        there = [(place(started), place(ended) - place(started)) for started, ended in lane.there]
        axes.broken_barh(there, (number - 0.45, 0.9), facecolors=_IDLE, linewidth=0)
    spans: Dict[Tuple[str, int, bool], List[Tuple[float, float]]] = {}
    for number, bar in bars:
        kind, width = _kind(bar.row), (place(bar.ended) - place(bar.started)) / length
        if _LOOKS[kind][1]:
            width = max(width, _NARROWEST)
        spans.setdefault((kind, number, width > _EDGED), []).append((place(bar.started), width * length))
    for kind, number, edged in sorted(spans, key=lambda key: list(_LOOKS).index(key[0])):
        color, hatch = _LOOKS[kind]
        axes.broken_barh(
            spans[kind, number, edged], (number - 0.45, 0.9),
            facecolors=color, hatch=hatch, edgecolor="white", linewidth=0.5 if edged else 0.0,
        )  # fmt: skip
    axes.set_ylim(max(1, len(lanes)) - 0.4, -0.6)
    if not bars:
        axes.text(0.5, 0.5, "nothing has run", transform=axes.transAxes, ha="center", va="center", color="#666666")
    return {kind for kind, _, _ in spans}


def _kind(row: RunRow) -> str:
    return "interrupted" if row["interrupted"] else _STATES.get(row["state"], "failed")


def _write_names(axes: Any, lanes: Sequence[Lane], place: Callable[[datetime], float], length: float) -> None:
    """Write the names of jobs into their bars, where there is room; once for each, into the first of its lanes."""
    if len(lanes) > _MOST_LABELS or sum(len(lane.bars) for lane in lanes) > _MOST_NAMES:
        return
    written = set()
    for number, lane in enumerate(lanes):
        for bar in lane.bars:
            name, share = label(bar.row), (place(bar.ended) - place(bar.started)) / length
            if id(bar) in written or len(name) > share * _CHARACTERS:
                continue
            written.add(id(bar))
            axes.text(
                (place(bar.started) + place(bar.ended)) / 2, number, name, ha="center", va="center", fontsize=7,
                parse_math=False, bbox=_ground(bar), color="black" if _kind(bar.row) != "succeeded" else "white",
            )  # fmt: skip


def _ground(bar: Bar) -> Dict[str, Any]:
    color, hatch = _LOOKS[_kind(bar.row)]
    return {"boxstyle": "square,pad=0.15", "facecolor": "white" if hatch else color, "linewidth": 0}


def _label_lanes(axes: Any, lanes: Sequence[Lane], several: bool) -> None:
    """Name each core; where there are many, each node once."""
    places: List[float] = []
    names: List[str] = []
    previous = None
    for number, lane in enumerate(lanes):
        node = f"{_short(lane.run)} {lane.node}" if several else lane.node
        if len(lanes) <= _MOST_LABELS or (lane.run, lane.node) != previous:
            places.append(number)
            names.append(f"{node}:{lane.core}" if len(lanes) <= _MOST_LABELS else node)
        if previous not in (None, (lane.run, lane.node)):
            axes.axhline(number - 0.5, color="#888888", linewidth=0.6)
        previous = (lane.run, lane.node)
    axes.set_yticks(places, names, fontsize=7, parse_math=False)
    axes.tick_params(axis="y", length=0)


def _short(run: str) -> str:
    return os.path.basename(run).rpartition("-")[2]


def _stairs(steps: Steps, place: Callable[[datetime], float]) -> Tuple[List[float], List[int]]:
    return [place(moment) for moment, _ in steps], [number for _, number in steps]


def _key(kind: str) -> Any:
    from matplotlib.patches import Patch

    color, hatch = _LOOKS[kind]
    return Patch(facecolor=color, hatch=hatch, edgecolor="white", linewidth=0, label=kind)


def _idle_key() -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=_IDLE, linewidth=0, label="idle")
