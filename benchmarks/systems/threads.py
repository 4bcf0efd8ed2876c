"""Threads of the standard library that wait for a process each: the least that any executor in Python has to do."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import List

from harness.session import Run, one_by_one


class _Session:
    def __init__(self, workers: int, command: List[str]) -> None:
        self._executor = ThreadPoolExecutor(workers)
        self._command = command

    def run(self, jobs: int) -> Run:
        return one_by_one(
            jobs,
            lambda: self._executor.submit(subprocess.run, self._command, check=True),
            lambda future: future.result().returncode == 0,
        )

    def close(self) -> None:
        self._executor.shutdown()


def open_session(workers: int, command: List[str]) -> _Session:
    """Open a pool of threads."""
    return _Session(workers, command)
