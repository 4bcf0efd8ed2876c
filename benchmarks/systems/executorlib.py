"""executorlib: functions in worker processes, here one that starts a program and waits for it."""

import subprocess
from typing import List

from executorlib import SingleNodeExecutor

from harness.session import Run, one_by_one


class _Session:
    def __init__(self, workers: int, command: List[str]) -> None:
        # workers that stay, which is its fastest mode; without it each call starts an interpreter
        self._executor = SingleNodeExecutor(max_workers=workers, block_allocation=True)
        self._command = command

    def run(self, jobs: int) -> Run:
        return one_by_one(
            jobs,
            lambda: self._executor.submit(subprocess.call, self._command),
            lambda future: future.result() == 0,
        )

    def close(self) -> None:
        self._executor.shutdown()


def open_session(workers: int, command: List[str]) -> _Session:
    """Open an executor with workers that stay."""
    return _Session(workers, command)
