"""The pictures of a record, by matplotlib; without its global state, so any thread may draw."""

from __future__ import annotations

import io
import os
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Set, Tuple

from qcg.pilotjob.executor_api._record.page import (
    ALONG_TIME,
    NAME,
    NARROW,
    Tips,
    tips_of_lanes,
    tips_of_steps,
    write_page,
)
from qcg.pilotjob.executor_api._record.rows import RunRow
from qcg.pilotjob.executor_api._record.summary import Steps, cores_there, cores_used, label
from qcg.pilotjob.executor_api._record.timelines import Bar, Lane, Moments, lanes_of
from qcg.pilotjob.executor_api._shared.texts import visible
from qcg.pilotjob.executor_api.errors import InvalidOption

__all__ = ["draw_timeline", "draw_utilisation"]

_PAGE = ".html"
_KINDS = (".png", ".svg", ".pdf", _PAGE)
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


def draw_timeline(path: Path, moments: Moments) -> Path:
    """Draw a lane for each core; see ``RunRecord.timeline``."""
    lanes = lanes_of(moments.runs, moments.taken)
    shown = _most_used(lanes)
    picture = _Picture(path, min(_TALLEST, max(2.4, 1.5 + _LANE * len(shown))), moments)
    kinds = _draw_lanes(picture, shown)
    _write_names(picture, shown)
    _label_lanes(picture.axes, shown, len(moments.runs) > 1)
    title = moments.title
    if len(shown) < len(lanes):
        title += f" ({len(shown)} of {len(lanes)} cores)"
    picture.finish(title, [_key(kind) for kind in _LOOKS if kind in kinds] + [_idle_key()])
    names = [_name(lane, len(moments.runs) > 1) for lane in shown]
    return picture.save(lambda: tips_of_lanes(shown, names, picture.axis))


def draw_utilisation(path: Path, moments: Moments) -> Path:
    """Draw the number of cores in use over time; see ``RunRecord.utilisation``."""
    picture = _Picture(path, 3.6, moments)
    axes, place = picture.axes, picture.axis.place
    used = cores_used(moments.rows, moments.taken)
    there = cores_there(era for run in moments.runs for era in run.eras)
    axes.set_ylabel("cores")
    axes.set_ylim(0, max([1, *(number for _, number in used), *(number for _, number in there)]) * 1.08)
    axes.yaxis.get_major_locator().set_params(integer=True)
    handles = [axes.fill_between(*_stairs(used, place), step="post", color=_LOOKS["succeeded"][0], label="in use")]
    if there:
        handles += axes.step(*_stairs(there, place), where="post", color="#222222", linewidth=1.4, label="there")
    for number, handle in enumerate(handles):
        handle.set_gid(f"{ALONG_TIME}{number}")
    picture.finish(moments.title, handles)
    return picture.save(lambda: tips_of_steps(used, there, picture.axis))


class _Picture:
    """A figure over the axis of time.

    Attributes:
        axes: matplotlib's.
        axis: of time.
        is_page: it becomes a page, in which time can be stretched.
    """

    def __init__(self, path: Path, height: float, moments: Moments) -> None:
        if path.suffix.lower() not in _KINDS:
            kinds = f"{', '.join(_KINDS[:-1])} or {_KINDS[-1]}"
            raise InvalidOption(f"{os.fspath(path)!r} is no name of a picture; let it end with {kinds}")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("pictures need matplotlib: pip install 'qcg-pilotjob-executor-api[pictures]'") from error
        self._path = path
        self._figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        self._title = ""
        self.is_page = path.suffix.lower() == _PAGE
        self.axes: Any = self._figure.add_subplot()
        self.axis = moments.axis()
        self.axes.set_xlim(0.0, self.axis.length)
        self.axes.set_xlabel(self.axis.label)

    def finish(self, title: str, handles: List[Any]) -> None:
        """Write what stands around the picture; a `$` in a name is no formula."""
        self._title = visible(title)  # a directory may be called anything
        for side in ("top", "right"):
            self.axes.spines[side].set_visible(False)
        self._figure.suptitle(self._title, x=0.01, ha="left", fontsize=9, parse_math=False)
        corner = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
        self.axes.legend(handles=handles, ncols=len(handles), frameon=False, fontsize=8, **corner)

    def save(self, tips: Callable[[], Tips]) -> Path:
        """Write the file, and return its path; a page has the tips."""
        whole = self._figure.bbox_inches  # whatever the user's settings are
        if not self.is_page:
            self._figure.savefig(self._path, dpi=130, bbox_inches=whole)
            return self._path
        drawn = io.StringIO()
        self._figure.savefig(drawn, format="svg", bbox_inches=whole)
        place = self.axes.get_position()  # as the layout has left it, and from below
        box = (place.x0, 1.0 - place.y1, place.width, place.height)
        write_page(self._path, self._title, drawn.getvalue(), box, tips())
        return self._path


def _most_used(lanes: List[Lane]) -> List[Lane]:
    if len(lanes) <= _MOST_LANES:
        return lanes
    kept = sorted(range(len(lanes)), key=lambda number: not lanes[number].bars)[:_MOST_LANES]
    return [lanes[number] for number in sorted(kept)]


def _draw_lanes(picture: _Picture, lanes: Sequence[Lane]) -> Set[str]:
    """Draw the lanes, the first one on top, and return the kinds of bars."""
    axes, place, length = picture.axes, picture.axis.place, picture.axis.length
    ids = count()
    for number, lane in enumerate(lanes):
        there = [(place(started), place(ended) - place(started)) for started, ended in lane.there]
        ground = axes.broken_barh(there, (number - 0.45, 0.9), facecolors=_IDLE, linewidth=0)
        ground.set_gid(f"{ALONG_TIME}{next(ids)}")
    spans: Dict[Tuple[str, int, bool], List[Tuple[float, float]]] = {}
    for number, bar in ((number, bar) for number, lane in enumerate(lanes) for bar in lane.bars):
        kind, width = _kind(bar.row), (place(bar.ended) - place(bar.started)) / length
        if _LOOKS[kind][1] and not picture.is_page:
            width = max(width, _NARROWEST)
        spans.setdefault((kind, number, width > _EDGED), []).append((place(bar.started), width * length))
    for kind, number, edged in sorted(spans, key=lambda key: list(_LOOKS).index(key[0])):
        bars = axes.broken_barh(
            spans[kind, number, edged], (number - 0.45, 0.9), **_looks(kind, edged, picture.is_page)
        )
        bars.set_gid(f"{ALONG_TIME if edged or _LOOKS[kind][1] else NARROW}{next(ids)}")
    axes.set_ylim(max(1, len(lanes)) - 0.4, -0.6)
    if not spans:
        axes.text(0.5, 0.5, "nothing has run", transform=axes.transAxes, ha="center", va="center", color="#666666")
    return {kind for kind, _, _ in spans}


def _looks(kind: str, edged: bool, is_page: bool) -> Dict[str, Any]:
    """Return how bars look; in a page, where they grow, the edge is what keeps bad ones from being too narrow."""
    color, hatch = _LOOKS[kind]
    if is_page and hatch and not edged:
        return {"facecolors": color, "edgecolor": color, "linewidth": 1.5}
    return {"facecolors": color, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5 if edged else 0.0}


def _kind(row: RunRow) -> str:
    return "interrupted" if row["interrupted"] else _STATES.get(row["state"], "failed")


def _write_names(picture: _Picture, lanes: Sequence[Lane]) -> None:
    """Write the names of jobs into their bars, where there is room; once for each, into the first of its lanes."""
    if len(lanes) > _MOST_LABELS or sum(len(lane.bars) for lane in lanes) > _MOST_NAMES:
        return
    place, length = picture.axis.place, picture.axis.length
    written = set()
    for number, lane in enumerate(lanes):
        for bar in lane.bars:
            name, share = label(bar.row), (place(bar.ended) - place(bar.started)) / length
            if id(bar) in written or len(name) > share * _CHARACTERS:
                continue
            written.add(id(bar))
            text = picture.axes.text(
                (place(bar.started) + place(bar.ended)) / 2, number, name, ha="center", va="center", fontsize=7,
                parse_math=False, bbox=_ground(bar), color="black" if _kind(bar.row) != "succeeded" else "white",
            )  # fmt: skip
            text.set_gid(f"{NAME}{len(written)}")


def _ground(bar: Bar) -> Dict[str, Any]:
    color, hatch = _LOOKS[_kind(bar.row)]
    return {"boxstyle": "square,pad=0.15", "facecolor": "white" if hatch else color, "linewidth": 0}


def _label_lanes(axes: Any, lanes: Sequence[Lane], several: bool) -> None:
    """Name each core; where there are many, each node once."""
    places: List[float] = []
    names: List[str] = []
    previous = None
    for number, lane in enumerate(lanes):
        if len(lanes) <= _MOST_LABELS or (lane.run, lane.node) != previous:
            places.append(number)
            name = _name(lane, several)
            names.append(name if len(lanes) <= _MOST_LABELS else name.rpartition(":")[0])
        if previous not in (None, (lane.run, lane.node)):
            axes.axhline(number - 0.5, color="#888888", linewidth=0.6)
        previous = (lane.run, lane.node)
    axes.set_yticks(places, names, fontsize=7, parse_math=False)
    axes.tick_params(axis="y", length=0)


def _name(lane: Lane, several: bool) -> str:
    run = visible(os.path.basename(lane.run).rpartition("-")[2])
    return f"{run} {lane.node}:{lane.core}" if several else f"{lane.node}:{lane.core}"


def _stairs(steps: Steps, place: Callable[[datetime], float]) -> Tuple[List[float], List[int]]:
    return [place(moment) for moment, _ in steps], [number for _, number in steps]


def _key(kind: str) -> Any:
    from matplotlib.patches import Patch

    color, hatch = _LOOKS[kind]
    return Patch(facecolor=color, hatch=hatch, edgecolor="white", linewidth=0, label=kind)


def _idle_key() -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=_IDLE, linewidth=0, label="idle")
