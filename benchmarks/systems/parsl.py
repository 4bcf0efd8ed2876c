"""Parsl, as an executor of concurrent.futures: functions in worker processes (HTEX), or in its threads."""

import subprocess
from typing import List

from parsl.concurrent import ParslPoolExecutor
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor
from parsl.providers import LocalProvider

from harness.session import Run, one_by_one


class _Session:
    def __init__(self, executor: ParslExecutor, command: List[str]) -> None:
        self._executor = ParslPoolExecutor(Config(executors=[executor], run_dir="parsl"))
        self._command = command

    def run(self, jobs: int) -> Run:
        return one_by_one(
            jobs,
            lambda: self._executor.submit(subprocess.call, self._command),
            lambda future: future.result() == 0,
        )

    def close(self) -> None:
        self._executor.shutdown()


def open_session(workers: int, command: List[str], executor: str) -> _Session:
    """Open the executor that is called "htex" or "threads"."""
    if executor == "threads":
        return _Session(ThreadPoolExecutor(max_threads=workers), command)
    htex = HighThroughputExecutor(
        address="127.0.0.1",
        max_workers_per_node=workers,
        provider=LocalProvider(init_blocks=1, max_blocks=1),  # one pool of workers, and no second one
    )
    return _Session(htex, command)
