#!/usr/bin/env python3
"""The core's own interface, without the executor: an array job of four iterations through a LocalManager.

Run it in a directory where files may be written. Exit status: 0 when everything that it shows is as it should be.
"""

import json
import sys
from pathlib import Path
from typing import List

from qcg.pilotjob.api.job import Jobs
from qcg.pilotjob.api.manager import LocalManager

ITERATIONS = 4


def run(manager: LocalManager) -> List[str]:
    """Submit the array, follow it to its end, and return the names of the jobs."""
    resources = manager.resources()
    print(f"resources: {resources['total_nodes']} node, {resources['total_cores']} cores")

    jobs = Jobs().add(
        name="squares",
        script="echo iteration ${it} of job ${jname}: $((${it} * ${it}))",
        stdout="job.out.${it}",
        iteration=ITERATIONS,
    )
    names = manager.submit(jobs)
    print(f"submitted: {names}")

    states = {name: answer["data"]["status"] for name, answer in manager.status(names)["jobs"].items()}
    print(f"known to the manager: {sorted(states)}")
    print(f"wait4: {manager.wait4(names)}")
    manager.wait4all()
    print("wait4all: no job is left")

    for name, answer in manager.info(names, withChilds=True)["jobs"].items():
        data = answer["data"]
        print(f"info: {name} is {data['status']}, {data['iterations']['finished']} iterations have ended")
        print(f"info: exit codes {[child['runtime']['exit_code'] for child in data['childs']]}")
    return names


def show_files() -> bool:
    """Print what the jobs and the manager have written; return whether all of it is there."""
    for iteration in range(ITERATIONS):
        path = Path(f"job.out.{iteration}")
        print(f"{path}: {path.read_text().strip()}")
    (service,) = Path().glob(".qcgpjm-service-*")
    records = [json.loads(line) for line in (service / "jobs.report").read_text().splitlines()]
    print(f"jobs.report: {[(record['name'], record['state']) for record in records]}")
    log = service / "service.log"
    print(f"service.log: {'written' if log.stat().st_size else 'empty'}")
    return log.stat().st_size > 0 and all(record["state"] == "SUCCEED" for record in records)


def main() -> int:
    manager = LocalManager(["--nodes", "2", "--wd", ".", "--log", "info"])
    try:
        run(manager)
    finally:
        manager.finish()  # also when something failed: nothing else stops the manager's process
    print("finish: the manager has stopped")
    return 0 if show_files() else 1


if __name__ == "__main__":
    sys.exit(main())
