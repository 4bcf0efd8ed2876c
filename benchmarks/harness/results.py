"""The results: one document, written as JSON; what is said of it is computed from there."""

from __future__ import annotations

import statistics
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from harness.systems import REFERENCE

Round = Dict[str, Any]
Document = Dict[str, Any]


class Spread(NamedTuple):
    """A figure of several rounds."""

    median: float
    least: float
    most: float


def spread(values: List[float]) -> Optional[Spread]:
    """Return the spread of `values`, None when there are none."""
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def rate(one: Round) -> Optional[float]:
    """Return jobs a second; None for a round that stalled."""
    return one["jobs"] / one["seconds"] if one["seconds"] else None


def cpu(one: Round) -> float:
    """Return milliseconds of client and services a job."""
    cost: Dict[str, float] = one["cost"]
    return 1000 * (cost["client_cpu"] + cost["services_cpu"]) / int(one["jobs"])


def figure(rounds: List[Round], get: Callable[[Round], Optional[float]]) -> Optional[Spread]:
    """Return a figure over the rounds that have it."""
    values = [get(one) for one in rounds]
    return spread([value for value in values if value is not None])


def ratio(rounds: List[Round], reference: List[Round]) -> Optional[Spread]:
    """Return how many times the rate of the reference: turn by turn, since the machine's speed changes."""
    beside = {one["turn"]: rate(one) for one in reference}
    pairs = [(rate(one), beside.get(one["turn"])) for one in rounds]
    return spread([own / other for own, other in pairs if own and other])


def reference_of(systems: Dict[str, Any]) -> List[Round]:
    """Return the rounds of the reference, none when it was not run."""
    rounds: List[Round] = systems.get(REFERENCE, {}).get("rounds", [])
    return rounds


def every_round(system: Dict[str, Any]) -> List[Round]:
    """Return all that was measured of a system."""
    return [*system["rounds"], *system["scripts"], *system["sizes"]]


def jobs_lost(document: Document) -> int:
    """Return how many jobs are not accounted for; those of a round that failed are not."""
    lost = 0
    for part in ("systems", "slurm"):
        for system in document.get(part, {}).values():
            lost += sum(one["lost"] for one in every_round(system))
            lost += sum(failure["jobs"] for failure in system["failures"])
    return lost
