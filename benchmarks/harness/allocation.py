"""Programs in an allocation of the tests' Slurm cluster, whose nodes are all on this machine."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import Any, Dict, List

from harness.environments import CHECKOUT
from harness.processes import MARK
from harness.rounds import Load, environment_of, read_result, run_alone, worker_arguments
from harness.systems import REFERENCE, SYSTEMS, System

sys.path.insert(0, str(CHECKOUT / "tests" / "slurm"))  # tests are no package

from cluster import Cluster, why_not

__all__ = ["Cluster", "many_in_allocation", "salloc", "why_not"]


def salloc(cluster: Cluster, limit: float) -> List[str]:
    """Return what to put before a command that shall run in an allocation of all nodes for `limit` seconds."""
    # the inner limit ends the program, which salloc would leave behind
    return ["salloc", "-Q", f"-N{len(cluster.node_names)}", "--exclusive", "timeout", "-k", "5", str(limit)]


def many_in_allocation(cluster: Cluster, system: System, python: Path, load: Load, limit: float) -> Dict[str, Any]:
    """Return what the worker has measured; it has all nodes but for threads, which have those of its own node only.

    Raises:
        RoundFailed: it has not.
    """
    workers = cluster.cpus if system is SYSTEMS[REFERENCE] else 0
    command = [str(python), *worker_arguments(system, load._replace(workers=workers))]
    environment = environment_of(python)
    slurm = {**cluster.environment, **environment, "PATH": f"{environment['PATH']}{os.pathsep}/usr/sbin:/sbin"}
    try:
        output, _ = run_alone([*salloc(cluster, limit), *command], limit + 60, {**slurm, MARK: uuid.uuid4().hex})
    finally:
        cluster.cancel_jobs()
    return read_result(output)
