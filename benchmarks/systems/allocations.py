"""Studies that begin outside any allocation: each has Slurm find room for runs of ``hostname``; a function a study.

A study yields the host name that each run has told, in the order of submission; when it is exhausted all is closed. A
system is imported by its own study only, as the time of the import is measured too.
"""

import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional

_RUN = partial(subprocess.run, ["hostname"], stdout=subprocess.PIPE, text=True, check=True)
_QUEUE = "p"
_NODES = 2
_CORES = 2  # of each node
_MINUTES = 10


def _ours(jobs: int) -> Iterator[str]:
    from qcg.pilotjob.executor_api import Allocation, BasicTemplate, QCGPJExecutor

    allocation = Allocation(nodes=_NODES, walltime=f"{_MINUTES}m", queue=_QUEUE, cores_per_node=_CORES)
    with QCGPJExecutor(allocation=allocation) as executor:
        futures = [
            executor.submit(BasicTemplate, name=f"n{number}", exec="hostname", stdout=f"n{number}.out")
            for number in range(jobs)
        ]
        for number, future in enumerate(futures):
            future.raise_for_status()
            yield Path(f"n{number}.out").read_text().strip()


def _submitit(jobs: int, poll_seconds: Optional[float] = None, **parameters: bool) -> Iterator[str]:
    """Run each call as a job of Slurm, all of them one array; result() looks once a second, unless this does."""
    import submitit

    executor = submitit.AutoExecutor("submitit")
    executor.update_parameters(timeout_min=_MINUTES, slurm_partition=_QUEUE, cpus_per_task=1, **parameters)
    for job in executor.submit_array([_RUN] * jobs):
        while poll_seconds is not None and not job.done():
            time.sleep(poll_seconds)
        yield job.result().stdout.strip()


def _dask(jobs: int, **workers: int) -> Iterator[str]:
    """Run workers as jobs of Slurm, one a node."""
    from dask_jobqueue import SLURMCluster
    from distributed import Client

    cluster = SLURMCluster(
        cores=_CORES,
        memory="1GB",
        # the nodes of this cluster have no memory to give away; their jobs have what there is
        job_directives_skip=["--mem"],
        queue=_QUEUE,
        walltime=f"00:{_MINUTES}:00",
        **workers,
    )
    with cluster, Client(cluster) as client:
        cluster.scale(jobs=_NODES)
        # pure functions with equal arguments would run once
        for future in [client.submit(_RUN, pure=False) for _ in range(jobs)]:
            yield future.result().stdout.strip()


STUDIES: Dict[str, Callable[[int], Iterator[str]]] = {
    "ours": _ours,
    "submitit": _submitit,
    # without srun in each job, and with ten looks a second at its result
    "submitit-tuned": partial(_submitit, poll_seconds=0.1, slurm_use_srun=False),
    "dask": partial(_dask, processes=_CORES),
    # a worker a node with two threads, which the calls allow, as they wait for a process; and no process to watch it
    "dask-tuned": partial(_dask, processes=1, nanny=False),
}
