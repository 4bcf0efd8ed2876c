"""What the files of a run tell a client of it."""

from __future__ import annotations

import json
import os
from typing import Set

__all__ = ["STARTS", "started_in"]

STARTS = "track.starts"
"""A line for each start of a job or iteration, where that is kept."""


def started_in(run: str) -> Set[str]:
    """Return the names of the jobs of a run that have started, arrays of which an iteration has among them."""
    try:
        with open(os.path.join(run, STARTS), "rb") as file:
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return set()
    return {json.loads(line)["task"].partition(":")[0] for line in lines}
