"""A picture as a page for a browser: all in one file, with a tip for each bar, and a zoom along time.

The picture is the one that is drawn for an SVG. What lies along time there has an id that begins with `ALONG_TIME`, or
`NARROW` where edges would hide it; a name in a bar one that begins with `NAME`. The script in ``page.html`` takes it
from there.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from qcg.pilotjob.executor_api._record.rows import RunRow
from qcg.pilotjob.executor_api._record.summary import RunFailure, Steps, duration, label
from qcg.pilotjob.executor_api._record.timelines import Axis, Lane
from qcg.pilotjob.executor_api._shared.texts import code_text

__all__ = ["ALONG_TIME", "NAME", "NARROW", "Tips", "tips_of_lanes", "tips_of_steps", "write_page"]

ALONG_TIME = "time-"
NARROW = "time-narrow-"
NAME = "name-"

Box = Tuple[float, float, float, float]


@dataclass
class Tips:
    """Holds what the page says of a bar, or of a step.

    Attributes:
        began: the start of the time axis, as ISO 8601.
        unit: of that axis, in seconds.
        length: of that axis, in its unit.
        range: the numbers of lanes at the upper and the lower end of the picture.
        lanes: a name for each.
        bars: for each lane from when to when, in the axis's unit, there is which of the tips.
        tips: texts.
    """

    began: str
    unit: float
    length: float
    range: Tuple[float, float]
    lanes: List[str]
    bars: List[List[Tuple[float, float, int]]]
    tips: List[str]


def write_page(path: Path, title: str, picture: str, box: Box, tips: Tips) -> None:
    """Write the page; `box` has left, top, width and height of where the lanes are, as parts of the picture's."""
    # In a script element only a "<" could end it: what a job wrote may be anything.
    data = json.dumps({"box": box, **asdict(tips)}, separators=(",", ":")).replace("<", "\\u003c")
    parts = {"@title@": html.escape(title), "@picture@": picture[picture.index("<svg") :], "@data@": data}
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    path.write_text(re.sub("|".join(parts), lambda mark: parts[mark.group()], page), encoding="utf-8")


def tips_of_lanes(lanes: Sequence[Lane], names: Sequence[str], axis: Axis) -> Tips:
    """Return a tip for each bar; the lanes are drawn from -0.6 on, each of the height 1."""
    numbers: Dict[int, int] = {}
    texts: List[str] = []
    bars: List[List[Tuple[float, float, int]]] = []
    for lane in lanes:
        bars.append([])
        for bar in sorted(lane.bars, key=lambda bar: bar.started):
            if id(bar) not in numbers:  # a bar on several cores is one
                numbers[id(bar)] = len(texts)
                texts.append(_told(bar.row, (bar.ended - bar.started).total_seconds()))
            bars[-1].append((*axis.span(bar.started, bar.ended), numbers[id(bar)]))
    heights = (-0.6, max(1, len(lanes)) - 0.4)
    return Tips(axis.began.isoformat(), axis.unit, axis.length, heights, list(names), bars, texts)


def tips_of_steps(used: Steps, there: Steps, axis: Axis) -> Tips:
    """Return a tip for each time between two changes."""
    moments = sorted({axis.began, axis.ended, *(moment for moment, _ in (*used, *there))})
    bars: List[Tuple[float, float, int]] = []
    texts: List[str] = []
    steps, levels = {"used": dict(used), "there": dict(there)}, {"used": 0, "there": 0}
    for moment, after in zip(moments, moments[1:]):
        levels = {name: steps[name].get(moment, level) for name, level in levels.items()}
        of = f" of {levels['there']}" if there else ""
        bars.append((*axis.span(moment, after), len(texts)))
        texts.append(f"{levels['used']}{of} cores in use, for {duration((after - moment).total_seconds())}")
    return Tips(axis.began.isoformat(), axis.unit, axis.length, (-0.5, 0.5), [""], [bars], texts)


def _told(row: RunRow, seconds: float) -> str:
    cores = "1 core" if row["cores"] == 1 else f"{row['cores']} cores"
    places = (f"{node}: {', '.join(numbers)}" for node, numbers in row["core_numbers"].items())
    lines = [
        f"{label(row)}   {row['state']}" + (", interrupted" if row["interrupted"] else ""),
        code_text(row["exit_code"], row["signal"]),
        f"started {row['started']:%Y-%m-%d %H:%M:%S}, {duration(seconds)}",
        "   ".join([cores, *places]),
        row["message"],
        RunFailure(row).last_line if row["state"] == "FAILED" else "",
    ]
    return "\n".join(line for line in lines if line)
