"""Settings: what all jobs of a manager have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from qcg.pilotjob.executor_api._execution.slurm import Wanted

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._processes.children import Children
    from qcg.pilotjob.executor_api._processes.run_times import RunTimes

__all__ = ["Settings"]


@dataclass
class Settings:
    """Holds what the manager's process was started with, and what it has made since, for all that starts jobs.

    Belongs to the loop's thread.

    Attributes:
        tell: sends a message to the client, through the ready pipe.
        umask: of the jobs.
        reruns: whether jobs that were interrupted run again when the run is resumed.
        restarts: how often a job that has lost its node is started again.
        loss_seconds: for which a node that has gone is not called lost: the allocation may be ending.
        wanted: how many cores of the allocation jobs may use.
        sockets: the directory of the manager's sockets.
        address: where requests are taken.
        earlier_sockets: the same directory of the manager whose run is taken up, when that manager was killed.
        children: starts and ends the processes on this machine.
        run_times: measures the processes, when the user has asked for it.
        note_in_log: writes a line into the manager's log, where the log has a line for each job.
        grace: seconds between SIGTERM and SIGKILL for the processes of a job that is ended.
    """

    tell: Callable[[Dict[str, Any]], None]
    umask: int = 0o022
    reruns: bool = True
    restarts: int = 0
    loss_seconds: float = 0.0
    wanted: Wanted = field(default_factory=Wanted)
    sockets: Path = Path()
    address: str = ""
    earlier_sockets: str = ""
    children: Children = field(init=False)
    run_times: Optional[RunTimes] = None
    note_in_log: Optional[Callable[[str], None]] = None
    grace: float = 5.0
