"""The rounds of all systems in turn, and the document that they fill."""

from __future__ import annotations

import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List

from harness import rounds
from harness.environments import Environments, NotMade
from harness.machine import machine, revision
from harness.results import Document, Round, rate
from harness.rounds import Load, RoundFailed, TookTooLong
from harness.systems import IN_ALLOCATION, SYSTEMS

LIMIT = 300.0  # seconds for a round, whatever it does


class Comparison:
    """Takes rounds of `systems` under a load; what comes of it is in `document`."""

    def __init__(self, systems: List[str], load: Load, environments: Environments, command: str) -> None:
        self._load = load
        self._environments = environments
        self._pythons: Dict[str, Path] = {}
        self.document: Document = {
            "date": datetime.now().isoformat(" ", "minutes"),
            "command": command,
            "revision": revision(),
            "machine": machine(),
            "load": load._asdict(),
            "systems": {name: self._prepared(name) for name in systems},
        }

    def _prepared(self, name: str) -> Dict[str, Any]:
        """Make the environment of a system; return the system's place in the document."""
        system = SYSTEMS[name]
        place = _place(name)
        try:
            self._pythons[name] = self._environments.python(system.environment)
            place["packages"] = self._environments.packages(system.environment)
        except NotMade as error:
            place["reason"] = str(error)
        return place

    def take_rounds(self, count: int) -> None:
        """Take `count` rounds of each system, in turn; the scripts come after, so that the rates are close together."""
        for turn in range(1, count + 1):
            for name in self._pythons:
                self._take(self.document["systems"][name], "rounds", turn, self._load, partial(self._many, name))
            for name in self._pythons:
                one = self._load._replace(jobs=1)
                self._take(self.document["systems"][name], "scripts", turn, one, partial(self._script, name))

    def _many(self, name: str, load: Load, limit: float = LIMIT) -> Round:
        return rounds.many(SYSTEMS[name], self._pythons[name], load, limit)

    def _script(self, name: str, load: Load) -> Round:
        return rounds.script(SYSTEMS[name], self._pythons[name], load, LIMIT)

    def take_sizes(self, sizes: List[int], most_seconds: float) -> None:
        """Take a round of each number of jobs, but not of those that would take longer than `most_seconds`."""
        for size in sizes:
            for name in self._pythons:
                place = self.document["systems"][name]
                if not place["skipped"]:
                    place["skipped"] = _why_to_skip(place["sizes"], size, most_seconds)
                if not place["skipped"]:
                    # the pace may fall with the number of jobs
                    measure = partial(self._many, name, limit=LIMIT + most_seconds)
                    self._take(place, "sizes", size, self._load._replace(jobs=size), measure)

    def take_slurm(self, count: int) -> None:
        """Take rounds in allocations of a Slurm cluster that is brought up for them."""
        from harness.allocation import Cluster, many_in_allocation, why_not  # the cluster of the tests needs psutil

        names = [name for name in IN_ALLOCATION if name in self._pythons]
        reason = why_not()
        self.document["slurm"] = {name: {**_place(name), "reason": reason} for name in names}
        if reason:
            return
        cluster = Cluster()
        cluster.start()
        try:
            for turn in range(1, count + 1):
                for name in names:
                    measure = partial(many_in_allocation, cluster, SYSTEMS[name], self._pythons[name], limit=LIMIT)
                    self._take(self.document["slurm"][name], "rounds", turn, self._load, measure)
        finally:
            cluster.stop()

    def _take(self, place: Dict[str, Any], kind: str, turn: int, load: Load, measure: Callable[[Load], Round]) -> None:
        try:
            result = measure(load)
        except RoundFailed as error:
            self._note_failure(place, kind, load, error)
        else:
            place[kind].append({"turn": turn, **result})
            taken = f"{load.jobs} in {result['seconds']:.2f} s" if result["seconds"] else "stalled"
            _say(f"{kind} {turn}: {place['label']}: {taken}")

    def _note_failure(self, place: Dict[str, Any], kind: str, load: Load, error: RoundFailed) -> None:
        reason = f"{load.jobs} jobs: {error}"
        place["reason"] = place["skipped"] = reason
        if kind != "sizes" or not isinstance(error, TookTooLong):  # how many jobs it can take is what sizes are for
            place["failures"].append({"reason": reason, "jobs": load.jobs})
        _say(f"{place['label']}: {reason}")


def _place(name: str) -> Dict[str, Any]:
    """Return what the document says of a system that was not run yet."""
    system = SYSTEMS[name]
    empty: Dict[str, Any] = {"rounds": [], "scripts": [], "sizes": [], "failures": []}
    return {"label": system.label, "open": system.open, "packages": {}, "reason": "", "skipped": "", **empty}


def _why_to_skip(sizes: List[Round], size: int, most_seconds: float) -> str:
    """Return why not to try a number of jobs, going by the smaller ones; nothing when it is to be tried."""
    speed = rate(sizes[-1]) if sizes else None
    if sizes and speed is None:
        return f"{size} jobs were not tried, as it stalled with fewer"
    if speed is not None and size / speed > most_seconds:
        return f"{size} jobs were not tried, as they would take longer than {most_seconds:.0f} s"
    return ""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
