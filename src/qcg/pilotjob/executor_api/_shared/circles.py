"""Jobs that wait for each other and would never start: looked for in the client and in the manager."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Iterable, List, Mapping

__all__ = ["circle_in"]


def circle_in(waits: Mapping[str, Iterable[str]]) -> List[str]:
    """Return jobs that wait for each other, an empty list when none do; `waits` has the `after` of each job."""
    try:
        TopologicalSorter({job: {name.partition(":")[0] for name in after} for job, after in waits.items()}).prepare()
    except CycleError as error:
        return list(dict.fromkeys(error.args[1]))
    return []
