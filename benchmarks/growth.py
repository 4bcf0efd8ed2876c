#!/usr/bin/env python3
"""How the cost of client and manager grows with jobs and with cores; no job has a process, see harness/instant.py.

First more and more jobs that end at once, on 100 cores; then five jobs a core, each of which takes a second, on more
and more cores. The interpreter has to have this package. Sizes that would take longer than --most-seconds, going by
the one before, are left out and named.

Exit status: 1 when a job was lost, whatever the figures are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from harness.processes import Cost, become_subreaper, cost
from harness.rounds import RoundFailed, environment_of, read_result, run_alone
from harness.session import one_by_one

JOBS = [1_000, 10_000, 100_000, 1_000_000]
CORES = [2, 100, 1_000, 10_000]
NODE = 100  # cores of a node; the many jobs run on one
JOBS_A_CORE, SECONDS = 5, 1.0
LEAST_CPU = 0.1  # seconds that are worth a division: the kernel counts in hundredths
TITLES = ("jobs", "cores", "jobs/s", "client, µs", "manager, µs", "client, KB", "manager, KB", "disk, KB", "cores busy")


class Load(NamedTuple):
    """What one measurement does."""

    jobs: int
    cores: int
    seconds: float


def work(load: Load) -> Dict[str, Any]:
    """Run jobs without processes in an executor of this process; return what they have cost."""
    from harness import instant
    from qcg.pilotjob.executor_api import QCGPJExecutor

    def template() -> str:
        return '{"name": "job${number}", "execution": {"exec": "/bin/true"}}'

    instant.use(load.seconds)
    with QCGPJExecutor(resources=nodes(load.cores)) as executor:
        executor.submit(template, number="first").result()
        numbers = iter(range(load.jobs))
        before = cost()
        start = time.perf_counter()
        run = one_by_one(
            load.jobs,
            lambda: executor.submit(template, number=next(numbers)),
            lambda future: list(future.result().values()) == ["SUCCEED"],
        )
        taken = time.perf_counter() - start
        spent = [late - early for early, late in zip(before, cost())]
    disk = sum(path.stat().st_size for path in Path().rglob("*"))
    return {"taken": taken, "lost": load.jobs - run.good, "spent": spent, "disk": disk}


def nodes(cores: int) -> str:
    """Return `cores` as nodes."""
    full, rest = divmod(cores, NODE)
    sizes = [NODE] * full + [rest] * bool(rest)
    return ",".join(f"n{number}:{size}" for number, size in enumerate(sizes, 1))


def measured(load: Load, limit: float) -> Dict[str, Any]:
    """Measure in a process and a directory of its own."""
    command = [sys.executable, __file__, "--worker", json.dumps(load)]
    return read_result(run_alone(command, limit, environment_of(Path(sys.executable)))[0])


def row(load: Load, result: Dict[str, Any]) -> str:
    """Return a line of the table, all costs by job; a CPU time of a few clock ticks is none."""
    spent = Cost(*result["spent"])
    cpu = [each if each > LEAST_CPU else None for each in (spent.client_cpu, spent.services_cpu)]
    busy = load.jobs * load.seconds / load.cores / result["taken"]
    cells = [
        f"{load.jobs:,}",
        f"{load.cores:,}",
        f"{load.jobs / result['taken']:.0f}",
        *("-" if each is None else f"{1e6 * each / load.jobs:.0f}" for each in cpu),
        *(f"{each / 1000 / load.jobs:.1f}" for each in (spent.client_rss, spent.services_rss, result["disk"])),
        f"{busy:.0%}" if load.seconds else "-",
    ]
    return f"| {' | '.join(cells)} |"


def measure(loads: List[Load], most_seconds: float) -> int:
    """Measure more and more, and print a line each and what the last one means; return how many jobs were lost."""
    print(f"| {' | '.join(TITLES)} |\n{'|---:' * len(TITLES)}|")
    lost, said = 0, ""
    cpu = 0.0  # seconds a job, which is what the time comes to when there are many
    for load in loads:
        if load.jobs * cpu > most_seconds:
            said += f"\n{load.jobs:,} jobs were left out: they would take longer than {most_seconds:.0f} s."
            break
        try:
            # what a job costs can grow with their number
            result = measured(load, 60 + 2 * most_seconds)
        except RoundFailed as error:
            lost += load.jobs
            said += f"\n{load.jobs:,} jobs: {error}"
            break
        print(row(load, result), flush=True)
        lost += result["lost"]
        cpu = (result["spent"][0] + result["spent"][1]) / load.jobs
        said = limits(load, result)
    print(f"\n{said}\n")
    return lost


def limits(load: Load, result: Dict[str, Any]) -> str:
    """Return what a result means: the manager is one process, and what it needs a job bounds all else."""
    spent = Cost(*result["spent"])
    manager = spent.services_cpu / load.jobs
    if spent.services_cpu < LEAST_CPU:
        return ""
    return (
        f"At the cost in the last line a manager starts and ends {1 / manager:.0f} jobs/s at the most: 10,000 cores "
        f"are busy with jobs of {10_000 * manager:.1f} s or longer; a million jobs take {1e6 * manager / 60:.0f} "
        f"minutes, {1e6 * spent.client_rss / load.jobs / 2**30:.1f} GiB of memory in the client and "
        f"{1e6 * spent.services_rss / load.jobs / 2**30:.1f} GiB in the manager, and "
        f"{1e6 * result['disk'] / load.jobs / 2**30:.1f} GiB of disk."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="*", default=JOBS, metavar="N", help="default: %(default)s")
    parser.add_argument("--cores", type=int, nargs="*", default=CORES, metavar="N", help="default: %(default)s")
    parser.add_argument("--most-seconds", type=float, default=1800.0, metavar="S", help="default: %(default)s")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    become_subreaper()
    if options.worker:
        print(json.dumps(work(Load(*json.loads(options.worker)))))
        return 0
    lost = measure([Load(jobs, NODE, 0.0) for jobs in options.jobs], options.most_seconds)
    lost += measure([Load(JOBS_A_CORE * cores, cores, SECONDS) for cores in options.cores], options.most_seconds)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
