"""What a page says of the bars and steps of its picture."""

from __future__ import annotations

from typing import Dict, List, Sequence, Tuple

from qcg.pilotjob.executor_api._record.moments import Axis
from qcg.pilotjob.executor_api._record.page import Tips
from qcg.pilotjob.executor_api._record.rows import RunRow
from qcg.pilotjob.executor_api._record.summary import RunFailure, duration, label
from qcg.pilotjob.executor_api._record.timelines import Lane
from qcg.pilotjob.executor_api._record.use import Steps
from qcg.pilotjob.executor_api._shared.exit_codes import code_text

__all__ = ["tips_of_lanes", "tips_of_steps"]


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
