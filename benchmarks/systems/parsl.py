"""Parsl, as an executor of concurrent.futures: functions in worker processes (HTEX), or in its threads."""

from typing import List

from parsl.concurrent import ParslPoolExecutor
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor
from parsl.providers import LocalProvider

from harness.session import Calls


def open_session(workers: int, command: List[str], executor: str) -> Calls:
    """Open the executor that is called "htex" or "threads"."""
    config = Config(executors=[_threads(workers) if executor == "threads" else _htex(workers)], run_dir="parsl")
    return Calls(ParslPoolExecutor(config), command)


def _threads(workers: int) -> ParslExecutor:
    return ThreadPoolExecutor(max_threads=workers)


def _htex(workers: int) -> ParslExecutor:
    return HighThroughputExecutor(
        address="127.0.0.1",
        max_workers_per_node=workers,
        provider=LocalProvider(init_blocks=1, max_blocks=1),  # one pool of workers, and no second one
    )
