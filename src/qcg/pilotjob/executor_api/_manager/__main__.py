"""The manager process: ``python -m qcg.pilotjob.executor_api._manager`` with its orders on standard input."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
from functools import partial
from typing import Any, Dict, Optional

from qcg.pilotjob.executor_api._shared.core_names import OF_MANAGER, refuse_changed_core, told
from qcg.pilotjob.executor_api._shared.proc import WITHIN, enclosing
from qcg.pilotjob.executor_api._shared.python_process import take_standard_input

_LOSS_SECONDS = 5.0  # Slurm ends the steps of an allocation one after the other, the batch script's perhaps last


def main(orders: Dict[str, Any]) -> None:
    """Run a manager until it is told to end; the exit code is 0 when it ended as it was told.

    `orders` holds what `serve` takes, and ``ready``, the file descriptor for what there is to say.
    """
    gc.disable()  # what is imported stays: looking for garbage in it would cost a tenth of the start
    serve(orders, ready=orders["ready"], lifeline=take_standard_input())


def serve(orders: Dict[str, Any], *, ready: int, lifeline: Optional[int]) -> None:
    """Run a manager, and end this process with it.

    `orders` holds ``arguments`` (the core service's command line), ``restarts`` (how often a job may lose its node and
    be started again), ``cores`` (how many of an allocation jobs may use, None for all), ``threads_per_core`` (how many
    jobs may share one), ``exclusive`` (whether a batch system other than Slurm was asked for the whole node) and, for a
    client on another machine, ``remote``: its keys, and how long it may be silent.
    `ready` takes lines of JSON, the last of them when the manager is ready or has failed. The end of `lifeline` is the
    client's.
    """
    # a blocked or ignored signal would be inherited by this process, and from here by every job
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    os.set_inheritable(ready, False)
    jobs_umask = os.umask(0o077)
    try:
        from qcg.pilotjob.executor_api._execution.slurm import leave_step
        from qcg.pilotjob.executor_api._manager.imports import defer, import_asyncio_without_ssl
        from qcg.pilotjob.executor_api._processes.starter import fork_starter

        leave_step()
        around = enclosing(os.environ)
        if around:
            os.environ[WITHIN] = around  # jobs have our address in place of that of the manager whose job we are
        starter = fork_starter(os.environ, umask=jobs_umask)
        if lifeline is None:  # nobody else removes what it has made when it is ended at its start
            signal.signal(signal.SIGTERM, _end_at_start)
        import_asyncio_without_ssl()
        defer("psutil")  # for jobs that are cancelled
        from qcg.pilotjob.executor_api._execution.nodes import AgentsNotStarted
        from qcg.pilotjob.executor_api._execution.settings import Settings
        from qcg.pilotjob.executor_api._execution.slurm import AllocationUnreadable, Wanted
        from qcg.pilotjob.executor_api._manager.presence import CannotResume
        from qcg.pilotjob.executor_api._manager.service import Service

        refuse_changed_core(OF_MANAGER)
        settings = Settings(
            tell=partial(_tell, ready),
            umask=jobs_umask,
            reruns=orders.get("rerun", True),
            restarts=orders.get("restarts", 0),
            # a client elsewhere hears of the end of the allocation, and not of that of its jobs
            loss_seconds=_LOSS_SECONDS if orders.get("remote") else 0.0,
            wanted=Wanted(orders.get("cores"), orders.get("threads_per_core", 1)),
        )
        try:
            service = Service(
                orders["arguments"],
                lifeline,
                starter,
                settings,
                orders.get("remote"),
                exclusive=orders.get("exclusive", False),
            )
        except (CannotResume, AllocationUnreadable, AgentsNotStarted) as refusal:  # whose messages say all
            _tell(ready, {"refused" if isinstance(refusal, CannotResume) else "unusable": str(refusal)})
            os._exit(1)
    except BaseException as error:
        _tell(ready, {"error": told(error)})
        raise
    os.umask(jobs_umask)
    gc.freeze()  # the first look for garbage would go through all that was imported, before the client hears of us
    gc.set_threshold(10_000)  # a batch of jobs makes that many objects, and none of them is garbage
    gc.enable()
    _tell(ready, service.description)
    service.start()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(service.exit_code)  # all is closed; taking the interpreter apart would double the time of the end


def _end_at_start(*_: object) -> None:
    raise SystemExit("it got SIGTERM while it was starting")


def _tell(ready: int, message: Dict[str, Any]) -> None:
    # the descriptor stays open: its end tells the client that this process has ended
    unsent = json.dumps(message).encode() + b"\n"
    with contextlib.suppress(BrokenPipeError):  # the client has gone already; the lifeline tells what to do then
        while unsent:
            unsent = unsent[os.write(ready, unsent) :]


if __name__ == "__main__":
    main(json.loads(sys.stdin.buffer.readline()))
