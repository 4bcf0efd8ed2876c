"""Jobs without processes: the manager does all that it does for a job, but where it would start a process it waits.

So the cost of client and manager can be seen for more jobs and cores than a machine has. This is the only place that
knows how the client starts a manager and how the manager starts a job.
"""

from __future__ import annotations

import asyncio
import os

_SECONDS = "QCGPJ_BENCHMARK_SECONDS"
_MAIN = "import main; "


def use(seconds: float) -> None:
    """Have the managers of this process's executors pretend that each job takes so long; call it before one is opened.

    Raises:
        RuntimeError: managers are no longer started in the way that is known here.
    """
    from qcg.pilotjob.executor_api._shared import python_process

    if _MAIN not in python_process._BOOT:
        raise RuntimeError(f"the program that starts a manager has changed: {python_process._BOOT}")
    os.environ[_SECONDS] = str(seconds)
    hooked = f"{_MAIN}from harness import instant; instant.in_manager(); "
    python_process._BOOT = python_process._BOOT.replace(_MAIN, hooked)


def in_manager() -> None:
    """Replace the start of a job, in a manager process that is about to run."""
    from qcg.pilotjob.executor_api._execution.local_job import LocalJob
    from qcg.pilotjob.executor_api._manager.job_queue import Reserve

    seconds = float(os.environ[_SECONDS])

    def start(job: LocalJob) -> None:
        job.process_pid = 0
        job._limit_walltime()
        asyncio.get_running_loop().call_later(seconds, job._ended, 0)

    Reserve.fill = lambda *_: None  # type: ignore[method-assign]
    LocalJob._start = start  # type: ignore[method-assign, assignment]  # it is named `self` there
