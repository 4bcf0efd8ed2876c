"""Rate against number of jobs: ``plot.py PICTURE < RESULTS``, with the interpreter that has matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

_COLOURS = {"ours": "crimson", "threads": "black"}  # the others have those of the cycle, without its red
_OTHERS = ("C0", "C1", "C2", "C4", "C5", "C6", "C7", "C8", "C9")
_APART = 0.05  # of the axis, from label to label


class Line(NamedTuple):
    """What is drawn of a system; those of a family, like quiet and not, have one colour."""

    label: str
    points: List[Tuple[int, float]]
    colour: str
    variant: bool
    ours: bool

    @property
    def end(self) -> float:
        """The last rate."""
        return self.points[-1][1]


def lines_of(systems: Dict[str, Any]) -> List[Line]:
    """Return the lines of the systems that were run with several sizes; rounds that stalled have no rate."""
    others = [name for name in systems if "-" not in name and name not in _COLOURS]
    colours = {**_COLOURS, **dict(zip(others, _OTHERS))}
    lines = []
    for name, system in systems.items():
        points = sorted((one["jobs"], one["jobs"] / one["seconds"]) for one in system["sizes"] if one["seconds"])
        family, _, variant = name.partition("-")
        colour = colours.get(family, "grey")
        lines.append(Line(system["label"].replace("`", ""), points, colour, bool(variant), name == "ours"))
    return [line for line in lines if line.points]


def draw(document: Dict[str, Any], picture: Path) -> None:
    """Draw a line a system, with its name beside its end."""
    lines = lines_of(document["systems"])
    figure, axes = plt.subplots(figsize=(11, 6.5), layout="constrained")
    axes.set_xscale("log")
    for line in lines:
        style = {"linewidth": 3.5, "zorder": 3} if line.ours else {"linewidth": 1.5}
        axes.plot(*zip(*line.points), marker="o", color=line.colour, linestyle=":" if line.variant else "-", **style)
    axes.set_ylim(bottom=0)
    label_ends(axes, lines)
    load = document["load"]
    job = f"/bin/sleep {load['seconds']}" if load["seconds"] else "/bin/true"
    axes.set_xlabel("number of jobs")
    axes.set_ylabel("jobs a second")
    axes.set_title(f"{job}, {load['workers']} at a time, on {document['machine']['cores']} cores")
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=130)


def label_ends(axes: Any, lines: List[Line]) -> None:
    """Write the names in a column on the right, each tied to the end of its line."""
    right = 1.4 * axes.get_xlim()[1]
    top = axes.get_ylim()[1]
    ordered = sorted(lines, key=lambda line: line.end)
    for line, place in zip(ordered, places([line.end for line in ordered], _APART * top, top)):
        axes.annotate(
            line.label,
            xy=(line.points[-1][0], line.end),
            xytext=(right, place),
            va="center",
            color=line.colour,
            weight="bold" if line.ours else "normal",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": line.colour, "alpha": 0.35, "relpos": (0, 0.5)},
        )


def places(wanted: List[float], apart: float, top: float) -> List[float]:
    """Return where labels go, from the bottom: where they are wanted, but `apart` from one another and below `top`."""
    found: List[float] = []
    for place in wanted:
        found.append(max(place, found[-1] + apart) if found else place)
    limit = top
    for number in reversed(range(len(found))):
        found[number] = min(found[number], limit)
        limit = found[number] - apart
    return found


if __name__ == "__main__":
    draw(json.load(sys.stdin), Path(sys.argv[1]))
