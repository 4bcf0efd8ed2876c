"""Programs in an allocation of the tests' Slurm cluster, whose nodes are all on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import uuid
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Dict, Iterator, List

from harness.environments import CHECKOUT
from harness.processes import MARK, become_subreaper, descendants, kill_descendants
from harness.rounds import Load, environment_of, read_result, run_alone, worker_arguments
from harness.systems import REFERENCE, SYSTEMS, System

sys.path.insert(0, str(CHECKOUT / "tests" / "slurm"))  # tests are no package

from cluster import Cluster, ClusterError, why_not

__all__ = ["Cluster", "many_in_allocation", "running_cluster", "salloc", "why_not"]


def salloc(cluster: Cluster, limit: float) -> List[str]:
    """Return what to put before a command that shall run in an allocation of all nodes for `limit` seconds."""
    # the inner limit ends the program, which salloc would leave behind
    return ["salloc", "-Q", f"-N{len(cluster.node_names)}", "--exclusive", "timeout", "-k", "5", str(limit)]


def many_in_allocation(cluster: Cluster, system: System, python: Path, load: Load, limit: float) -> Dict[str, Any]:
    """Return what the worker has measured; it has all nodes but for threads, which have those of its own node only.

    Raises:
        RoundFailed: it has not.
    """
    workers = max(cluster.cpus.values()) if system is SYSTEMS[REFERENCE] else 0
    command = [str(python), *worker_arguments(system, load._replace(workers=workers))]
    environment = environment_of(python)
    slurm = {**cluster.environment, **environment, "PATH": f"{environment['PATH']}{os.pathsep}/usr/sbin:/sbin"}
    try:
        output, _ = run_alone([*salloc(cluster, limit), *command], limit + 60, {**slurm, MARK: uuid.uuid4().hex})
    finally:
        cluster.cancel_jobs()
    return read_result(output)


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Keep a cluster up that runs batch jobs as fast as a real one; nothing of it is left, if this is a subreaper.

    Raises:
        ClusterError: it does not come up.
    """
    here_before = descendants()
    cluster = Cluster()
    context = multiprocessing.get_context("fork")
    up = context.Event()
    guard = context.Process(target=_keep, args=(cluster, up))
    try:
        guard.start()
        while not up.wait(0.1):
            if not guard.is_alive():
                raise ClusterError("it has not come up")
        yield cluster
    finally:
        cluster.stop()
        guard.kill()
        guard.join()
        kill_descendants(here_before)


def _keep(cluster: Cluster, up: Event) -> None:
    """Start a cluster, and be the parent of its orphans until the last one has ended.

    A batch job that has used srun leaves a dead process for init to collect. Until then, and a pause of whole seconds
    longer, its node takes no other job; the init of some machines has its time, and others do not collect at all.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the one who stops the cluster
    become_subreaper()
    cluster.start()
    up.set()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
