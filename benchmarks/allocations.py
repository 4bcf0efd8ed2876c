#!/usr/bin/env python3
"""Compare ways from a program outside any allocation to results of jobs in Slurm: seconds to the first and the last.

The program is started where a login node would be, and asks the tests' Slurm cluster, whose two nodes are on this
machine and idle, for room. As in run.py, each system has a virtual environment of its own, each round is a process in
an empty directory, and the rounds are taken in turn; the first turn is not counted.

Exit status: 1 when a job was lost or a round failed, whatever the figures are.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

from harness.allocation import Cluster, running_cluster, why_not
from harness.environments import DEFAULT_ROOT, Environments, NotMade
from harness.machine import machine, revision
from harness.processes import become_subreaper
from harness.results import Document, Round, figure
from harness.rounds import BENCHMARKS, RoundFailed, environment_of, read_result, run_alone


class _System(NamedTuple):
    label: str
    environment: str


SYSTEMS: Dict[str, _System] = {
    "ours": _System("ours, `allocation=`", "allocations-ours"),
    "submitit": _System("submitit", "submitit"),
    "submitit-tuned": _System("submitit, no srun, polls 10 times a second", "submitit"),
    "dask": _System("dask-jobqueue, 2 processes a job", "dask-jobqueue"),
    "dask-tuned": _System("dask-jobqueue, 2 threads a job, no nanny", "dask-jobqueue"),
}
_FIGURES = ("first", "last", "ended")
_SHOWN = ("dask-jobqueue", "distributed", "psij-python", "qcg-pilotjob", "submitit")
_LIMIT_SECONDS = 180.0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--jobs", type=int, default=20, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    if why_not():
        sys.exit(why_not())
    become_subreaper()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which takes the cluster down too
    environments = Environments(DEFAULT_ROOT)
    systems = {name: _place(environments, name) for name in options.systems}
    document: Document = {
        "date": datetime.now().isoformat(" ", "minutes"),
        "command": shlex.join(["python", *sys.argv]),
        "revision": revision(),
        "machine": machine(),
        "jobs": options.jobs,
        "systems": systems,
    }
    try:
        with running_cluster() as cluster:
            for turn in range(options.rounds + 1):
                for name in [name for name in systems if not systems[name]["reason"]]:
                    python = environments.python(SYSTEMS[name].environment)
                    _take(systems[name], turn, partial(_round, cluster, python, name, options.jobs))
    finally:
        if options.json:
            options.json.write_text(f"{json.dumps(document, indent=1)}\n")
        print(*table(document), sep="\n")
    return int(any(each["reason"] or any(one["lost"] for one in each["rounds"]) for each in systems.values()))


def _place(environments: Environments, name: str) -> Dict[str, Any]:
    """Make the environment of a system; return what the document says of it before its first round."""
    system = SYSTEMS[name]
    place: Dict[str, Any] = {"label": system.label, "packages": {}, "rounds": [], "reason": ""}
    try:
        environments.python(system.environment)
        place["packages"] = environments.packages(system.environment)
    except NotMade as error:
        place["reason"] = str(error)
    return place


def _take(place: Dict[str, Any], turn: int, measure: Callable[[], Round]) -> None:
    """Take a round and note it, but for turn 0: that fills caches, and compiles what was not."""
    try:
        one = measure()
    except RoundFailed as error:
        place["reason"] = said = str(error)
    else:
        if turn:
            place["rounds"].append({"turn": turn, **one})
        said = ", ".join(f"{each} {one[each]:.2f} s" for each in _FIGURES)
        said += f", {one['lost']} LOST" if one["lost"] else ""
    print(f"turn {turn}: {place['label']}: {said}", file=sys.stderr, flush=True)


def _round(cluster: Cluster, python: Path, name: str, jobs: int) -> Round:
    """Return the seconds from the start of the program; all nodes are idle again afterwards.

    Raises:
        RoundFailed: it has failed.
    """
    environment = {**environment_of(python), "SLURM_CONF": cluster.environment["SLURM_CONF"]}
    command = [str(python), str(BENCHMARKS / "allocation_worker.py"), name, str(jobs)]
    start = time.monotonic()
    output, seconds = run_alone(command, _LIMIT_SECONDS, environment, before_killing=cluster.cancel_jobs)
    told = read_result(output)
    return {
        "first": told["first"] - start,
        "last": told["last"] - start,
        "ended": seconds,
        # one that has run elsewhere was not run by Slurm
        "lost": jobs - sum(host in cluster.node_names for host in told["hosts"]),
    }


def table(document: Document) -> Iterator[str]:
    """Return the lines of the table."""
    where = document["machine"]
    yield (
        f"{document['date']}, `{document['command']}`, revision {document['revision'] or 'unknown'}. "
        f"{where['processor']}, {where['cores']} cores, {where['kernel']}, Python {where['python']}, load at the start "
        f"{where['load']:.1f}.{_versions(document)} Seconds from the start of the program, median (least, most):"
    )
    yield ""
    yield f"| System | first result | all {document['jobs']} results | program ended |"
    yield "|---|---:|---:|---:|"
    for place in document["systems"].values():
        yield f"| {' | '.join([place['label'], *_cells(place)])} |"


def _versions(document: Document) -> str:
    installed = {item for place in document["systems"].values() for item in place["packages"].items()}
    shown = [f"{name} {version}" for name, version in sorted(installed) if name in _SHOWN]
    return f" {', '.join(shown)}." if shown else ""


def _cells(place: Dict[str, Any]) -> List[str]:
    if place["reason"] or not place["rounds"]:
        return [f"not run: {place['reason'] or 'no rounds'}", "", ""]
    lost = sum(one["lost"] for one in place["rounds"])
    first, last, ended = (_cell(place["rounds"], name) for name in _FIGURES)
    return [first, f"{last}, {lost} LOST" if lost else last, ended]


def _cell(rounds: List[Round], name: str) -> str:
    value = figure(rounds, lambda one: one[name])
    return f"{value.median:.2f} ({value.least:.2f}, {value.most:.2f})" if value else "-"


if __name__ == "__main__":
    sys.exit(main())
