#!/usr/bin/env python3
"""How many jobs a second in a Slurm allocation: 1000 times /bin/true on 2 nodes of 2 cores, ours and the core alone.

Brings up the cluster of the tests (both nodes are on this machine; needs Slurm's programs, and root). As in
throughput.py the executor gets the jobs one by one, each with a future of its own, and the core gets all of them in one
request, which is its best case; the rounds are taken in turn, each in an allocation and a directory of its own. The CPU
time is that of all processes of the round but the jobs': client, manager, agents, srun and Slurm's step daemons.

Exit status: 1 when a job was lost, whatever the figures are.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, List

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "slurm"))  # tests are no package

from cluster import Cluster, why_not

MARK = "QCGPJ_BENCHMARK"  # in the environment of every process of a round, on every node
CORES = 4
PATIENCE = 120.0  # seconds for the jobs of a round


def marked(mark: str) -> List[psutil.Process]:
    """Return the processes that have `mark` in their environment, but not this one."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "environ", "name", "status"])
        if (process.info["environ"] or {}).get(MARK) == mark
        and process.info["status"] != psutil.STATUS_ZOMBIE
        and process.pid != os.getpid()
    ]


def in_allocation(cluster: Cluster, directory: str, mark: str, *arguments: str, limit: float) -> Dict[str, Any]:
    """Run Python with `arguments` in an allocation of both nodes; return the JSON on its last line.

    Raises:
        RuntimeError: it failed.
    """
    # the inner limit ends the program, which salloc would leave behind
    limits = ["timeout", "-k", "5", str(limit)]
    completed = subprocess.run(
        ["salloc", "-Q", f"-N{len(cluster.node_names)}", "--exclusive", *limits, sys.executable, *arguments],
        cwd=directory,
        env={**cluster.environment, MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=limit + 60,
        check=False,
    )
    if completed.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: exit code {completed.returncode}\n{completed.stdout}")
    result: Dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    return result


def cpu_seconds() -> float:
    """Return the CPU time of all processes of this round so far; there must be no job."""
    mine = marked(os.environ[MARK])
    steps = [parent for process in mine for parent in process.parents() if parent.name() == "slurmstepd"]
    times = [process.cpu_times() for process in {psutil.Process(), *mine, *steps}]
    return float(sum(each.user + each.system for each in times))


def run_ours(jobs: int) -> Dict[str, Any]:
    """Submit to the executor one by one; every future has to tell SUCCEED of its own job."""
    from qcg.pilotjob.executor_api import QCGPJExecutor

    def template() -> str:
        return '{"name": "${name}", "execution": {"exec": "/bin/true"}}'

    opening = time.monotonic()
    executor = QCGPJExecutor(log_level="info")
    opened = time.monotonic() - opening
    with executor:
        assert executor.qcgpj_manager.resources()["total_cores"] == CORES
        cpu = cpu_seconds()
        start = time.monotonic()
        futures = {f"job{number}": executor.submit(template, name=f"job{number}") for number in range(jobs)}
        good = sum(future.result(PATIENCE) == {name: "SUCCEED"} for name, future in futures.items())
        taken = time.monotonic() - start
        cpu = cpu_seconds() - cpu
        closing = time.monotonic()
    closed = time.monotonic() - closing
    return {"seconds": taken, "cpu": cpu, "lost": jobs - good, "opened": opened, "closed": closed}


def run_core(jobs: int) -> Dict[str, Any]:
    """Submit to the core in one request; when it waits for an event that never comes, the round is no measurement."""
    from qcg.pilotjob.api.errors import TimeoutElapsed
    from qcg.pilotjob.api.job import Jobs
    from qcg.pilotjob.api.manager import LocalManager

    opening = time.monotonic()
    manager = LocalManager(["--wd", ".", "--log", "info"], {"log_level": "info"})
    try:
        assert manager.resources()["total_cores"] == CORES
        opened = time.monotonic() - opening
        cpu = cpu_seconds()
        start = time.monotonic()
        batch = Jobs()
        for number in range(jobs):
            batch.add(name=f"job{number}", exec="/bin/true")
        names = manager.submit(batch)
        try:
            manager.wait4(names, PATIENCE)
            taken = time.monotonic() - start
        except TimeoutElapsed:
            taken = None
        cpu = cpu_seconds() - cpu
        answers = manager.status(names)["jobs"].values()
        good = Counter(answer["data"]["status"] for answer in answers)["SUCCEED"]
        closing = time.monotonic()
    finally:
        manager.finish()
    closed = time.monotonic() - closing
    return {"seconds": taken, "cpu": cpu, "lost": jobs - good, "opened": opened, "closed": closed}


RUNNERS: Dict[str, Callable[[int], Dict[str, Any]]] = {"ours": run_ours, "core": run_core}


def round_of(cluster: Cluster, name: str, jobs: int) -> Dict[str, Any]:
    """Run one round; what it leaves behind does not disturb the next one."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="slurm-round-") as directory:
        try:
            return in_allocation(
                cluster, directory, mark, __file__, "--worker", name, "--jobs", str(jobs), limit=PATIENCE + 60
            )
        finally:
            cluster.cancel_jobs()
            for process in marked(mark):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def show(name: str, number: int, result: Dict[str, Any], jobs: int) -> None:
    speed = f"{jobs / result['seconds']:5.0f} jobs/s" if result["seconds"] else "stalled: an event was lost"
    print(
        f"round {number}  {name}: {speed}   CPU {1000 * result['cpu'] / jobs:.2f} ms/job   lost {result['lost']}   "
        f"open {result['opened']:.2f} s   close {result['closed']:.2f} s",
        flush=True,
    )


def measure(cluster: Cluster, rounds: int, jobs: int) -> int:
    """Take the rounds in turn; return how many jobs were lost."""
    results: Dict[str, List[Dict[str, Any]]] = {name: [] for name in RUNNERS}
    for number in range(1, rounds + 1):
        for name in RUNNERS:
            results[name].append(round_of(cluster, name, jobs))
            show(name, number, results[name][-1], jobs)
    medians = {}
    for name, own in results.items():
        speeds = [jobs / result["seconds"] for result in own if result["seconds"]]
        if speeds:
            medians[name] = statistics.median(speeds)
            cpu, opened, closed = (statistics.median(each[key] for each in own) for key in ("cpu", "opened", "closed"))
            print(
                f"{name}: min {min(speeds):.0f}, median {medians[name]:.0f}, max {max(speeds):.0f} jobs/s; "
                f"medians: CPU {1000 * cpu / jobs:.2f} ms/job, open {opened:.2f} s, close {closed:.2f} s"
            )
    if len(medians) == len(RUNNERS):
        print(f"ours / core: {medians['ours'] / medians['core']:.2f}")
    return sum(result["lost"] for own in results.values() for result in own)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--worker", choices=RUNNERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(RUNNERS[options.worker](options.jobs)))
        return 0
    if why_not():
        sys.exit(why_not())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which takes the cluster down too
    cluster = Cluster()
    cluster.start()
    try:
        return 1 if measure(cluster, options.rounds, options.jobs) else 0
    finally:
        cluster.stop()


if __name__ == "__main__":
    sys.exit(main())
