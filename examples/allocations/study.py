#!/usr/bin/env python3
"""A study that is started on the login node: the executor gets an allocation for it, and gives it back.

``python study.py --nodes 2 --queue debug`` asks the scheduler that is here, ``python study.py --local`` takes two cores
of this machine instead, to try it.
"""

import argparse
import sys
from concurrent.futures import wait
from pathlib import Path
from typing import List

from qcg.pilotjob.executor_api import (
    Allocation,
    AllocationStatus,
    JobFailed,
    QCGPJExecutor,
    QCGPJFuture,
    ScriptTemplate,
)

RUNS = 20
WD = Path("study")


def allocation() -> Allocation:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--local", action="store_true", help="two cores of this machine, without a scheduler")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--walltime", default="10m")
    parser.add_argument("--queue")
    parser.add_argument("--account")
    given = parser.parse_args()
    if given.local:
        return Allocation(scheduler="local", cores_per_node=2, walltime=given.walltime)
    return Allocation(nodes=given.nodes, walltime=given.walltime, queue=given.queue, account=given.account)


def in_words(status: AllocationStatus) -> str:
    """Return a line on where an allocation stands."""
    words = f"allocation {status.id} is {status.state}"
    if status.state == "QUEUED" and status.position is not None:
        words += f", number {status.position} in the queue"
    if status.state == "RUNNING" and status.until is not None:
        words += f" with {status.cores} cores until {status.until:%H:%M}"
    return words


def follow(executor: QCGPJExecutor, futures: List[QCGPJFuture]) -> None:
    """Wait for all jobs, and print where the allocation stands whenever that has changed."""
    said = ""
    left = True
    while left:
        left = bool(wait(futures, timeout=0.2).not_done)
        (status,) = executor.allocations
        if in_words(status) != said:
            said = in_words(status)
            print(said, flush=True)


def main() -> int:
    """Return how many jobs failed."""
    with QCGPJExecutor(wd=WD, allocation=allocation()) as executor:
        futures = [
            executor.submit(ScriptTemplate, name=f"run{n}", script=f"echo $(( {n} * {n} )) > run{n}.result")
            for n in range(RUNS)
        ]
        follow(executor, futures)
        failed = 0
        for future in futures:
            try:
                future.raise_for_status()
            except JobFailed as failure:
                failed += 1
                print(failure)
    if not failed:
        print(f"the sum of all results is {sum(int((WD / f'run{n}.result').read_text()) for n in range(RUNS))}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
