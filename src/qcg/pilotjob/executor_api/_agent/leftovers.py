"""The end of what a job has left on a node, whoever has started it there: ``srun``, or a daemon of MPI.

Such processes do not come from the agent, so only the mark in their environment tells whose they are.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Callable, Dict, List, Optional

import psutil

from qcg.pilotjob.executor_api._processes import descendants

__all__ = ["Sweeper"]

_logger = logging.getLogger(__name__)

_GATHER_SECONDS = 0.002  # one look, which is at every process there is, is for all jobs that end meanwhile
_AGAIN_SECONDS = 0.02
_TERM_SECONDS = 1.0  # for a daemon of MPI to clean up; its job has ended
_GIVE_UP_SECONDS = _TERM_SECONDS + descendants.LINGER_SECONDS + 1.0  # for what not even SIGKILL ends


class Sweeper:
    """Ends the processes of jobs on this node, and tells when none is left. Belongs to the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_swept: Callable[[str], None]) -> None:
        """`on_swept` gets the mark of each job of which nothing is left."""
        self._loop = loop
        self._on_swept = on_swept
        self._since: Dict[str, float] = {}
        self._timer: Optional[asyncio.TimerHandle] = None

    def sweep(self, job: str) -> None:
        """End what has the mark `job`: with SIGTERM, and what is left a second later with SIGKILL."""
        self._since.setdefault(job, self._loop.time())
        self._look_in(_GATHER_SECONDS)

    def _look_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        found = descendants.all_marked(set(self._since))
        for job, processes in found.items():
            age = now - self._since[job]
            if processes and age > _GIVE_UP_SECONDS:
                _logger.warning("processes %s do not end after SIGKILL", [process.pid for process in processes])
            if not processes or age > _GIVE_UP_SECONDS:
                del self._since[job]
                self._on_swept(job)
            else:
                _signal(processes, signal.SIGTERM if age < _TERM_SECONDS else signal.SIGKILL)
        if self._since:
            self._look_in(_AGAIN_SECONDS)


def _signal(processes: List[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        descendants.send(process, number)
