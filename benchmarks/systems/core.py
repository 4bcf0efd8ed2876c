"""The core without an executor: all jobs in one request, and one wait for all, which is the fastest way to use it."""

import time
from typing import Any, Dict, List

from qcg.pilotjob.api.errors import TimeoutElapsed
from qcg.pilotjob.api.job import Jobs
from qcg.pilotjob.api.manager import LocalManager
from qcg.pilotjob.logger import top_logger

from harness.session import Run

_PATIENCE = 60.0  # seconds, and a fiftieth of one for each job


class _Session:
    def __init__(self, manager: LocalManager, command: List[str]) -> None:
        self._manager = manager
        self._program, *self._arguments = command
        self._submitted = 0

    def run(self, jobs: int) -> Run:
        start = time.perf_counter()
        batch = Jobs()
        for number in range(self._submitted, self._submitted + jobs):
            batch.add(name=f"job{number}", exec=self._program, args=self._arguments)
        self._submitted += jobs
        names = self._manager.submit(batch)
        submitting = time.perf_counter() - start
        try:
            states: Dict[str, Any] = self._manager.wait4(names, _PATIENCE + jobs / 50)
        except TimeoutElapsed:
            # an event that it waits for has been lost, as happens
            return Run(submitting, self._good(names), names, stalled=True)
        return Run(submitting, list(states.values()).count("SUCCEED"), names)

    def _good(self, names: List[str]) -> int:
        answers = self._manager.status(names)["jobs"].values()
        return [answer["data"]["status"] for answer in answers].count("SUCCEED")

    def close(self) -> None:
        self._manager.finish()


def open_session(workers: int, command: List[str], quiet: str = "") -> _Session:
    """Start a manager; its default log level is "info"."""
    arguments = [
        "--wd",
        ".",
        *(["--nodes", str(workers)] if workers else []),
        *(["--log", "critical"] if quiet else []),
    ]
    manager = LocalManager(arguments)
    if quiet:
        top_logger.setLevel("CRITICAL")  # its client knows "info" and "debug" only
    return _Session(manager, command)
