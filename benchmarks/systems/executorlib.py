"""executorlib: functions in worker processes, here one that starts a program and waits for it."""

from typing import List

from executorlib import SingleNodeExecutor

from harness.session import Calls


def open_session(workers: int, command: List[str]) -> Calls:
    """Open an executor with workers that stay: its fastest mode, as otherwise each call starts an interpreter."""
    return Calls(SingleNodeExecutor(max_workers=workers, block_allocation=True), command)
