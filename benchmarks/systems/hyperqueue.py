"""HyperQueue, by its Python interface: server and worker are threads of the client's process there."""

import time
from typing import List

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

from harness.session import Run


class _Session:
    def __init__(self, workers: int, command: List[str], jobs_of: str) -> None:
        self._cluster = LocalCluster(worker_config=WorkerConfig(cores=workers))
        self._client = self._cluster.client()
        self._command = command
        self._each = jobs_of == "one task"

    def run(self, jobs: int) -> Run:
        start = time.perf_counter()
        sizes = [1] * jobs if self._each else [jobs]
        submitted = [self._client.submit(self._job(tasks)) for tasks in sizes]
        submitting = time.perf_counter() - start
        good = self._client.wait_for_jobs(submitted, raise_on_error=False)
        return Run(submitting, jobs if good else 0, submitted)

    def _job(self, tasks: int) -> Job:
        job = Job(max_fails=None)
        for _ in range(tasks):
            job.program(self._command, stdout=None, stderr=None)  # by default it writes two files a task
        return job

    def close(self) -> None:
        self._cluster.stop()


def open_session(workers: int, command: List[str], jobs_of: str) -> _Session:
    """Start a server with one worker; `jobs_of` is "all tasks" or "one task"."""
    return _Session(workers, command, jobs_of)
