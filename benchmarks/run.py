#!/usr/bin/env python3
"""Compare this executor with what its users could take instead: many short programs on one machine.

Each system has a virtual environment of its own, which is made when it is first needed; each round is a process in an
empty directory, and the rounds of the systems are taken in turn. README.md beside this file tells what is measured.

Exit status: 1 when a job was lost or a round failed, whatever the figures are.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import List

from harness.comparison import Comparison
from harness.environments import DEFAULT_ROOT, Environments, NotMade
from harness.processes import become_subreaper
from harness.results import jobs_lost
from harness.rounds import BENCHMARKS, Load
from harness.systems import QUICK, SYSTEMS
from harness.table import tables

SIZES = [100, 1_000, 10_000, 100_000, 200_000]


def parsed() -> argparse.Namespace:
    """Return the options; those that --quick changes are as given, or as it has them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--quick", action="store_true", help="a look at the most important systems, in less than two minutes")
    add("--systems", nargs="+", choices=SYSTEMS, metavar="NAME", help=", ".join(SYSTEMS))
    add("--rounds", type=int, metavar="N", help="5, or 3 if quick")
    add("--jobs", type=int, default=1000, metavar="N", help="in each round: %(default)s")
    add("--workers", type=int, default=2, metavar="N", help="how many jobs run at a time: %(default)s")
    add("--seconds", type=float, default=0.0, metavar="S", help="each job sleeps so long; 0 is /bin/true, the default")
    add("--sizes", type=int, nargs="*", metavar="N", help=f"numbers of jobs for the plot; {SIZES} if all systems run")
    add("--most-seconds", type=float, default=200.0, metavar="S", help="skip sizes that take longer: %(default)s")
    add("--slurm", action="store_true", help="in a Slurm cluster of two nodes too, which is brought up here")
    add("--json", type=Path, metavar="FILE", help="write the results there")
    add("--plot", type=Path, metavar="FILE", help="draw jobs a second against the number of jobs there")
    add("--table", type=Path, metavar="FILE", help="measure nothing: print the tables of a file of results")
    add("--envs", type=Path, default=DEFAULT_ROOT, metavar="DIR", help="the environments: %(default)s")
    options = parser.parse_args()
    if options.sizes is None:
        options.sizes = [] if options.quick or options.systems else SIZES
    if options.systems is None:
        options.systems = list(QUICK if options.quick else SYSTEMS)
    if options.rounds is None:
        options.rounds = 3 if options.quick else 5
    if options.plot and not options.sizes:
        parser.error("--plot needs --sizes")
    if options.slurm and importlib.util.find_spec("psutil") is None:
        parser.error("--slurm needs an interpreter with psutil, which the tests' cluster uses")
    return options


def measure(options: argparse.Namespace) -> int:
    """Measure, and write what was measured, also when it is interrupted; return the exit status."""
    become_subreaper()  # what a round leaves behind is found then
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    environments = Environments(options.envs)
    try:
        plotter = environments.python("plot") if options.plot else None
    except NotMade as error:
        sys.exit(f"--plot needs matplotlib, which {error}")
    load = Load(options.workers, options.jobs, options.seconds)
    comparison = Comparison(options.systems, load, environments, shlex.join(["python", *sys.argv]))
    try:
        comparison.take_rounds(options.rounds)
        comparison.take_sizes(sorted(options.sizes), options.most_seconds)
        if options.slurm:
            comparison.take_slurm(options.rounds)
    finally:
        text = json.dumps(comparison.document, indent=1)
        if options.json:
            options.json.write_text(f"{text}\n")
        print(*tables(comparison.document), sep="\n")
    if plotter is not None:
        draw(plotter, text, options.plot)
    return 1 if jobs_lost(comparison.document) else 0


def draw(python: Path, results: str, picture: Path) -> None:
    """Draw the plot with an interpreter that has matplotlib."""
    command: List[str] = [str(python), str(BENCHMARKS / "harness" / "plot.py"), str(picture)]
    subprocess.run(command, input=results, text=True, check=True)


def main() -> int:
    options = parsed()
    if options.table:
        print(*tables(json.loads(options.table.read_text())), sep="\n")
        return 0
    return measure(options)


if __name__ == "__main__":
    sys.exit(main())
