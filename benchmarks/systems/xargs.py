"""GNU xargs, no Python beside it: started for each batch, which has one exit code for all its jobs."""

import subprocess
import time
from typing import List

from harness.session import Run


class _Session:
    def __init__(self, workers: int, command: List[str]) -> None:
        self._xargs = ["xargs", f"-P{workers}", "-n1", *command]

    def run(self, jobs: int) -> Run:
        # an argument a job is the price of -n1; sleep takes "0" for nothing more to sleep
        start = time.perf_counter()
        with subprocess.Popen(self._xargs, stdin=subprocess.PIPE) as process:
            process.communicate(b"0\n" * jobs)
        return Run(time.perf_counter() - start, jobs if process.returncode == 0 else 0, None)

    def close(self) -> None:
        """Do nothing: xargs has ended with its jobs."""


def open_session(workers: int, command: List[str]) -> _Session:
    """Start nothing yet."""
    return _Session(workers, command)
