#!/usr/bin/env python3
"""How many jobs a second: 1000 times /bin/true on 4 cores, through the executor and through the core alone.

The executor gets the jobs one by one, each with a future of its own; the core gets them all in one request, which is
its best case. The time is from the first submit to the last result; start and stop are not in it. The rounds are
taken in turn, each in a process and a directory of its own, with the same log level. The CPU time is that of the client
and the manager, without the jobs', in the same span: other programs on the machine disturb it less.

Exit status: 1 when a job was lost, whatever the figures are.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import Any, Dict, List

CORES = "4"
PATIENCE = 120.0  # seconds for a round


def cpu_seconds() -> float:
    """Return the CPU time of this process and its manager so far."""
    import psutil

    client = psutil.Process()
    times = [process.cpu_times() for process in (client, *client.children())]
    return sum(each.user + each.system for each in times)


def run_ours(jobs: int) -> Dict[str, Any]:
    """Submit to the executor one by one; every future has to tell SUCCEED of its own job."""
    from qcg.pilotjob.executor_api import QCGPJExecutor

    def template() -> str:
        return '{"name": "${name}", "execution": {"exec": "/bin/true"}}'

    with QCGPJExecutor(resources=CORES, log_level="info") as executor:
        cpu = cpu_seconds()
        start = time.monotonic()
        futures = {f"job{number}": executor.submit(template, name=f"job{number}") for number in range(jobs)}
        submitted = time.monotonic() - start
        good = sum(future.result(PATIENCE) == {name: "SUCCEED"} for name, future in futures.items())
        taken = time.monotonic() - start
        cpu = cpu_seconds() - cpu
    return {"seconds": taken, "cpu": cpu, "submit": submitted, "lost": jobs - good}


def run_core(jobs: int) -> Dict[str, Any]:
    """Submit to the core in one request; when it waits for an event that never comes, the round is no measurement."""
    from qcg.pilotjob.api.errors import TimeoutElapsed
    from qcg.pilotjob.api.job import Jobs
    from qcg.pilotjob.api.manager import LocalManager

    manager = LocalManager(["--nodes", CORES, "--wd", ".", "--log", "info"], {"log_level": "info"})
    try:
        cpu = cpu_seconds()
        start = time.monotonic()
        batch = Jobs()
        for number in range(jobs):
            batch.add(name=f"job{number}", exec="/bin/true")
        names = manager.submit(batch)
        submitted = time.monotonic() - start
        try:
            manager.wait4(names, PATIENCE)
            taken = time.monotonic() - start
        except TimeoutElapsed:
            taken = None
        cpu = cpu_seconds() - cpu
        answers = manager.status(names)["jobs"].values()
        good = Counter(answer["data"]["status"] for answer in answers)["SUCCEED"]
    finally:
        manager.finish()
    return {"seconds": taken, "cpu": cpu, "submit": submitted, "lost": jobs - good}


RUNNERS = {"ours": run_ours, "core": run_core}


def watch(process: "subprocess.Popen[str]") -> Dict[str, int]:
    """Return the largest numbers of threads and processes that are seen until `process` ends.

    Its only children are managers; what they start are the jobs.
    """
    import psutil

    most = {"client threads": 0, "manager threads": 0, "managers": 0}
    client = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            managers = client.children()
            seen = [
                client.num_threads(),
                max([manager.num_threads() for manager in managers], default=0),
                len(managers),
            ]
        except psutil.NoSuchProcess:
            continue
        most = {name: max(old, new) for (name, old), new in zip(most.items(), seen)}
        time.sleep(0.05)
    return most


def round_of(name: str, jobs: int) -> Dict[str, Any]:
    """Run one round in a process and a directory of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="throughput-") as directory,
        subprocess.Popen(
            [sys.executable, __file__, "--worker", name, "--jobs", str(jobs)],
            cwd=directory,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        most = watch(process)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode != 0:
        sys.exit(f"the round of {name} ended with exit code {process.returncode}")
    return {**json.loads(output), **most}


def show(name: str, number: int, result: Dict[str, Any], jobs: int) -> None:
    speed = f"{jobs / result['seconds']:5.0f} jobs/s" if result["seconds"] else "stalled: an event was lost"
    print(
        f"round {number}  {name}: {speed}   CPU {1000 * result['cpu'] / jobs:.2f} ms/job   "
        f"submitted in {result['submit']:.3f} s   lost {result['lost']}   threads: client {result['client threads']}, "
        f"manager {result['manager threads']}   managers {result['managers']}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--worker", choices=RUNNERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(RUNNERS[options.worker](options.jobs)))
        return 0

    results: Dict[str, List[Dict[str, Any]]] = {name: [] for name in RUNNERS}
    for number in range(1, options.rounds + 1):
        for name in RUNNERS:
            results[name].append(round_of(name, options.jobs))
            show(name, number, results[name][-1], options.jobs)
    medians = {}
    for name, rounds in results.items():
        speeds = [options.jobs / result["seconds"] for result in rounds if result["seconds"]]
        if speeds:
            medians[name] = statistics.median(speeds)
            cpu = statistics.median(1000 * result["cpu"] / options.jobs for result in rounds)
            print(
                f"{name}: min {min(speeds):.0f}, median {medians[name]:.0f}, max {max(speeds):.0f} jobs/s; "
                f"median CPU {cpu:.2f} ms/job"
            )
    if len(medians) == len(RUNNERS):
        print(f"ours / core: {medians['ours'] / medians['core']:.2f}")
    return 1 if any(result["lost"] for rounds in results.values() for result in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
