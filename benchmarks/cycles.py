#!/usr/bin/env python3
"""Whether anything is left: cluster up, allocation, executor, jobs on both nodes, all down again, 50 times.

Each cycle has a temporary directory of its own, and a mark in the environment of all its processes, the cluster's
daemons included. When it is over there must be no process with that mark, nothing in the directory, no socket at a
path in it, and nothing that listens at the cluster's ports. When the executor is closed and the cluster is still up,
the client must have the threads, children, files and sockets that it had before, and no agent and no srun may be left
for Slurm to end; this program must have after each cycle what it had before the first one.

Exit status: 1 when something was left, or a job was not run.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Dict, List, Set

import psutil

from harness.allocation import Cluster, salloc, why_not
from harness.processes import MARK
from qcg.pilotjob.executor_api import BasicTemplate, QCGPJExecutor

JOBS = 36
PATIENCE = 60.0  # seconds for a cycle's jobs
LEFT_SECONDS = 10.0  # a step that has to be ended takes Slurm KillWait seconds and a little more
OWN_SECONDS = 10.0  # Linux shows a thread for a moment after its end, which is longer on a busy machine
PROCESS_SECONDS = 4.0  # less than the cluster's KillWait: what Slurm has to end would be gone after that


def marked(mark: str) -> List[psutil.Process]:
    """Return the processes that have `mark` in their environment, but not this one."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "environ", "name", "status"])
        if (process.info["environ"] or {}).get(MARK) == mark
        and process.info["status"] != psutil.STATUS_ZOMBIE
        and process.pid != os.getpid()
    ]


def use_executor(jobs: int) -> None:
    """Run `jobs` on both nodes."""
    with QCGPJExecutor() as executor:
        futures = [
            executor.submit(BasicTemplate, name=f"job{number}", exec="hostname", stdout=f"job{number}.out")
            for number in range(jobs)
        ]
        for future in futures:
            future.raise_for_status(timeout=PATIENCE)
    nodes = {Path(f"job{number}.out").read_text().strip() for number in range(jobs)}
    assert nodes == {"n1", "n2"}, nodes


def possessions() -> Dict[str, Any]:
    """Return what this process holds, and what else runs in its cycle."""
    this = psutil.Process()
    links = (os.path.join("/proc/self/fd", each) for each in os.listdir("/proc/self/fd"))
    return {
        "Python's threads": sorted(thread.name for thread in threading.enumerate()),
        "threads": this.num_threads(),
        "children": len(this.children()),
        "processes": sorted(process.info["name"] for process in marked(os.environ.get(MARK, ""))),
        "files and sockets": sorted(os.readlink(link).partition(":")[0] for link in links if os.path.exists(link)),
    }


def differences(before: Dict[str, Any]) -> List[str]:
    """Return what this process holds that it did not, or no longer, after the time that it has to let go of it."""
    begin = time.monotonic()
    while True:
        after, waited = possessions(), time.monotonic() - begin
        changed = [name for name in before if before[name] != after[name]]
        if not changed or waited > (PROCESS_SECONDS if "processes" in changed else OWN_SECONDS):
            return [f"{name}: {before[name]} before, {after[name]} after" for name in changed]
        time.sleep(0.01)


def work(jobs: int) -> Dict[str, Any]:
    """Return what is left in this process of an executor that was closed."""
    before = possessions()
    use_executor(jobs)
    return {"left": differences(before)}


def in_allocation(cluster: Cluster, directory: str, mark: str, jobs: int) -> Dict[str, Any]:
    """Run this program's `work` in an allocation of both nodes."""
    limit = 2 * PATIENCE + 30
    completed = subprocess.run(
        [*salloc(cluster, limit), sys.executable, __file__, "--worker", "--jobs", str(jobs)],
        cwd=directory,
        env={**cluster.environment, MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=limit + 60,
        check=True,
    )
    answer: Dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    return answer


def ports_of(cluster: Cluster) -> Set[int]:
    conf = (cluster.directory / "slurm.conf").read_text()
    return {int(part.partition("=")[2]) for part in conf.split() if part.startswith(("Port=", "SlurmctldPort="))}


def left_behind(mark: str, directory: str, ports: Set[int]) -> List[str]:
    """Return what is left on this machine once it has had a moment to go."""
    end = time.monotonic() + LEFT_SECONDS
    while marked(mark) and time.monotonic() < end:
        time.sleep(0.02)
    left = [f"process {process.pid}: {' '.join(process.info['cmdline'] or ())[:100]}" for process in marked(mark)]
    left += [f"in the temporary directory: {path}" for path in Path(directory).iterdir()]
    left += [f"socket: {line}" for line in Path("/proc/net/unix").read_text().splitlines() if directory in line]
    listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    left += [f"port: {each.laddr.port}" for each in listening if each.laddr.port in ports]
    return left


def cycle(jobs: int) -> List[str]:
    """Take a cluster up, use it and take it down; return what is left."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="cycle-") as directory, tempfile.TemporaryDirectory(prefix="wd-") as wd:
        os.environ[MARK] = mark
        tempfile.tempdir = os.environ["TMPDIR"] = directory
        try:
            cluster = Cluster()
            cluster.start()
            try:
                ports = ports_of(cluster)
                answer = in_allocation(cluster, wd, mark, jobs)
            finally:
                cluster.stop()
            left = [f"in the client: {each}" for each in answer["left"]] + left_behind(mark, directory, ports)
        finally:
            tempfile.tempdir = None
            del os.environ["TMPDIR"], os.environ[MARK]
    return left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=50, metavar="N")
    parser.add_argument("--jobs", type=int, default=JOBS, metavar="N")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.jobs)))
        return 0
    if why_not():
        sys.exit(why_not())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which takes the cluster down too
    leaks = 0
    before = possessions()
    start = time.monotonic()
    for number in range(1, options.cycles + 1):
        begin = time.monotonic()
        left = cycle(options.jobs)
        left += [f"in this program: {each}" for each in differences(before)]
        leaks += len(left)
        print(f"cycle {number:3}: {options.jobs} jobs, {time.monotonic() - begin:.2f} s, {len(left)} leaks", flush=True)
        for each in left:
            print(f"    {each}", flush=True)
    print(f"{options.cycles} cycles in {time.monotonic() - start:.0f} s, leaks: {leaks}")
    return 1 if leaks else 0


if __name__ == "__main__":
    sys.exit(main())
