#!/usr/bin/env python3
"""Many jobs, submitted one by one: what each of them costs in memory and time, in the client and in the manager.

Exit status: 1 when a job was lost or its state is not on record, whatever the figures are.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import as_completed
from pathlib import Path

import psutil

from qcg.pilotjob.executor_api import QCGPJExecutor

CORES = "4"


def template() -> str:
    """A job that does nothing."""
    return '{"name": "${name}", "execution": {"exec": "/bin/true"}}'


def main() -> None:
    """Run, and print a line a tenth of the jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory(prefix="many-") as directory:
        os.chdir(directory)
        lost = run(jobs)
        os.chdir("/")
    sys.exit(1 if lost else 0)


def run(jobs: int) -> int:
    """Return how many jobs are not accounted for."""
    with QCGPJExecutor(resources=CORES) as executor:
        client = psutil.Process()
        (manager,) = client.children()
        executor.submit(template, name="first").result()
        before = client.memory_info().rss, manager.memory_info().rss
        start = time.monotonic()
        futures = [executor.submit(template, name=f"job{number}") for number in range(jobs)]
        print(f"{jobs} jobs submitted in {time.monotonic() - start:.1f} s", flush=True)
        good, last = 0, start
        for number, future in enumerate(as_completed(futures), 1):
            good += future.result() == {future.ids[0]: "SUCCEED"}
            if number % (jobs // 10) == 0:
                now = time.monotonic()
                print(f"{number:8} ended, the last tenth at {jobs / 10 / (now - last):.0f} jobs/s", flush=True)
                last = now
        taken = time.monotonic() - start
        after = client.memory_info().rss, manager.memory_info().rss
    (report,) = Path().glob(".qcgpjm-service-*/jobs.report")
    recorded = {entry["name"] for entry in map(json.loads, report.open()) if entry["state"] == "SUCCEED"}
    lost = jobs - min(good, len(recorded - {"first"}))
    print(f"{jobs / taken:.0f} jobs/s in all, lost {lost}")
    for name, less, more in zip(("client", "manager"), before, after):
        print(f"{name}: {less >> 20} MiB before, {more >> 20} MiB after, {(more - less) / jobs / 1000:.1f} KB a job")
    return lost


if __name__ == "__main__":
    main()
