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
from typing import List, Tuple

__all__ = ["ALONG_TIME", "NAME", "NARROW", "Tips", "write_page"]

ALONG_TIME = "time-"
NARROW = "time-narrow-"
NAME = "name-"

Box = Tuple[float, float, float, float]


@dataclass
class Tips:
    """What the page says where one points at.

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
