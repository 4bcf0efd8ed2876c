"""Dask's distributed scheduler with one process a worker: functions there, here one that starts a program."""

import subprocess
from typing import List

from distributed import Client, LocalCluster

from harness.session import Run, one_by_one


class _Session:
    def __init__(self, workers: int, command: List[str]) -> None:
        self._cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        self._client = Client(self._cluster)
        self._command = command

    def run(self, jobs: int) -> Run:
        # pure functions with equal arguments would run once
        return one_by_one(
            jobs,
            lambda: self._client.submit(subprocess.call, self._command, pure=False),
            lambda future: future.result() == 0,
        )

    def close(self) -> None:
        self._client.close()
        self._cluster.close()


def open_session(workers: int, command: List[str]) -> _Session:
    """Start a scheduler and its workers."""
    return _Session(workers, command)
