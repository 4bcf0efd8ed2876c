"""Rate against number of jobs: ``plot.py PICTURE < RESULTS``, with the interpreter that has matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

_OURS = "ours"
_REFERENCE = "threads"
_APART = 0.055  # of the axis, between two labels


def points(system: Dict[str, Any]) -> List[Tuple[int, float]]:
    """Return numbers of jobs and jobs a second; a round that stalled has none."""
    return sorted((one["jobs"], one["jobs"] / one["seconds"]) for one in system["sizes"] if one["seconds"])


def spread_out(wanted: List[float], apart: float) -> List[float]:
    """Return places for labels, from the bottom: where they are wanted, but `apart` from one another."""
    places: List[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + apart) if places else place)
    return places


def draw(document: Dict[str, Any], picture: Path) -> None:
    """Draw a line a system, with its name at its end."""
    lines = {name: (system["label"], points(system)) for name, system in document["systems"].items()}
    lines = {name: (label, own) for name, (label, own) in lines.items() if own}
    figure, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    axes.set_xscale("log")
    ends = []
    for number, (name, (label, own)) in enumerate(sorted(lines.items(), key=lambda item: item[0])):
        colour = {_OURS: "crimson", _REFERENCE: "black"}.get(name, f"C{number % 10}" if number % 10 != 3 else "teal")
        style = {"linewidth": 3.5, "zorder": 3} if name == _OURS else {"linewidth": 1.5}
        axes.plot(*zip(*own), marker="o", color=colour, linestyle="--" if name == _REFERENCE else "-", **style)
        ends.append((own[-1][1], own[-1][0], label.replace("`", ""), colour, name == _OURS))
    axes.set_ylim(bottom=0)
    label_ends(axes, sorted(ends))
    load = document["load"]
    axes.set_xlabel("number of jobs, submitted at once")
    axes.set_ylabel("jobs a second")
    job = f"/bin/sleep {load['seconds']}" if load["seconds"] else "/bin/true"
    axes.set_title(f"{job}, {load['workers']} at a time, {document['machine']['cores']} cores")
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=150)


def label_ends(axes: Any, ends: List[Tuple[float, int, str, str, bool]]) -> None:
    """Write the names in a column on the right, each with a thin line from the end of its own."""
    top = axes.get_ylim()[1]
    right = max(jobs for _, jobs, *_ in ends)
    places = spread_out([speed for speed, *_ in ends], _APART * top)
    for (speed, jobs, label, colour, is_ours), place in zip(ends, places):
        axes.annotate(
            label,
            xy=(jobs, speed),
            xytext=(right * 1.5, place),
            va="center",
            color=colour,
            weight="bold" if is_ours else "normal",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.4, "linewidth": 0.8},
        )
    axes.set_ylim(0, max(top, places[-1] + _APART * top))


if __name__ == "__main__":
    draw(json.load(sys.stdin), Path(sys.argv[1]))
