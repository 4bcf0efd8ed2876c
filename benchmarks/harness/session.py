"""What an adapter in systems/ has to offer; this module and they need the standard library and their own system only.

An adapter is a module with one function::

    def open_session(workers: int, command: List[str], **options: str) -> Session

`workers` is 0 where the system shall find out itself what it has, as in an allocation of Slurm.
"""

from __future__ import annotations

import subprocess
import time
from typing import Any, Callable, List, NamedTuple, Protocol


class Run(NamedTuple):
    """Some jobs, from the first submit to the last result."""

    submitting: float  # seconds until the last call of submit had returned
    good: int  # jobs that have told of their success
    kept: Any  # what a user keeps of them: its memory counts
    stalled: bool = False  # an event was lost, and the wait for it has ended by a time limit


class Session(Protocol):
    """A system that is open and takes jobs."""

    def run(self, jobs: int) -> Run:
        """Run the command `jobs` times and return when all of them have ended."""

    def close(self) -> None:
        """End it as its users do."""


def one_by_one(jobs: int, submit: Callable[[], Any], is_good: Callable[[Any], bool]) -> Run:
    """Use an executor: a call of submit a job, and then the futures' results in turn."""
    start = time.perf_counter()
    futures: List[Any] = [submit() for _ in range(jobs)]
    submitting = time.perf_counter() - start
    return Run(submitting, sum(map(is_good, futures)), futures)


class Calls:
    """A session of an executor of functions: the function starts the command and waits for it."""

    def __init__(self, executor: Any, command: List[str]) -> None:
        self._executor = executor
        self._command = command

    def run(self, jobs: int) -> Run:
        """Run the command `jobs` times and return when all of them have ended."""
        return one_by_one(
            jobs,
            lambda: self._executor.submit(subprocess.call, self._command),
            lambda future: future.result() == 0,
        )

    def close(self) -> None:
        """End it as its users do."""
        self._executor.shutdown()
