"""The end of what an earlier manager of the same run has left: its jobs, before they run again.

A manager that is killed leaves its jobs to the starter, which ends them, or to the client. When all three are killed
together, the jobs go on; they bear the name of their manager's directory of sockets in their environment, and
``manager.json`` is still there, where that manager has written it down.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import subprocess
from typing import Any, Callable, Mapping

from qcg.pilotjob.executor_api._manager.presence import CannotResume
from qcg.pilotjob.executor_api._shared.proc import kill_jobs_of, kill_starters_of

__all__ = ["end_earlier", "sockets_of"]

_logger = logging.getLogger(__name__)

_SOCKETS = re.compile(r"(/.*)?/qcgpj-[0-9a-f]{8}")
_SECONDS = 10.0  # for Slurm's controller to answer
_OVER = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
)  # fmt: skip


def sockets_of(told: Mapping[str, Any]) -> str:
    """Return the directory of sockets of a manager that has `told` of itself; nothing when it names none."""
    sockets = told.get("sockets")
    return sockets if isinstance(sockets, str) and _SOCKETS.fullmatch(sockets) else ""


def end_earlier(told: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """End what is left of a manager that has `told` of itself and was killed; `tell` the user what cannot be known.

    On the nodes of an allocation the agents do the same (see `agent`).

    Raises:
        CannotResume: something does not end, and would run beside its second start.
    """
    sockets = sockets_of(told)
    if not sockets:
        return
    if told.get("host") == socket.gethostname():
        left = kill_starters_of(sockets) or kill_jobs_of(sockets)
        if left:
            raise CannotResume(
                f"its manager was killed, and processes that it has started do not end, also after SIGKILL: {left}; "
                "wait for their end, as long as the file system that they use does not answer"
            )
        _remove(sockets)
    elif not _is_looked_after(told.get("slurm_job")):
        tell(
            f"the manager of the run that is resumed was killed on {told.get('host')}: what it had started there may "
            "still run, beside its second start here"
        )


def _remove(sockets: str) -> None:
    if os.path.isdir(sockets) and not os.path.islink(sockets) and os.stat(sockets).st_uid == os.geteuid():
        shutil.rmtree(sockets, ignore_errors=True)  # its client may be removing it too


def _is_looked_after(job: Any) -> bool:
    """Whether that Slurm job is this one, whose agents look at their nodes, or one that is over."""
    if not job:
        return False
    if job == os.environ.get("SLURM_JOB_ID"):
        return True
    command = ["squeue", "--noheader", "--format=%T", "--jobs", str(job)]
    try:
        asked = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _logger.warning("whether the Slurm job %s is over is not known: %s", job, error)
        return False
    if asked.returncode:
        return "Invalid job id" in asked.stderr  # Slurm has forgotten it
    return all(state in _OVER for state in asked.stdout.split())
