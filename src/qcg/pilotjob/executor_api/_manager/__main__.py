"""The manager process: ``python -m qcg.pilotjob.executor_api._manager`` with its orders on standard input."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
from typing import Any, Dict

from qcg.pilotjob.executor_api._manager.streams import take_standard_input


def main(orders: Dict[str, Any]) -> None:
    """Run a manager until it is told to end; the exit code is 0 when it ended as it was told.

    `orders` holds ``arguments`` (the core service's command line), ``ready`` (a file descriptor that takes lines of
    JSON, the last of them when the manager is ready or has failed) and ``restarts`` (how often a job may lose its node
    and be started again).
    """
    gc.disable()  # what is imported stays: looking for garbage in it would cost a tenth of the start
    lifeline = take_standard_input()
    # a blocked or ignored signal would be inherited by this process, and from here by every job
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    ready: int = orders["ready"]
    os.set_inheritable(ready, False)
    jobs_umask = os.umask(0o077)
    try:
        from qcg.pilotjob.executor_api._manager.allocation import leave_step
        from qcg.pilotjob.executor_api._manager.imports import defer, import_asyncio_without_ssl
        from qcg.pilotjob.executor_api._manager.starter import fork_starter

        leave_step()
        starter = fork_starter(os.environ, umask=jobs_umask, alone=True)
        import_asyncio_without_ssl()
        defer("psutil")  # for jobs that are cancelled
        from qcg.pilotjob.executor_api._manager.node_job import NodeJob
        from qcg.pilotjob.executor_api._manager.presence import CannotResume
        from qcg.pilotjob.executor_api._manager.service import Service

        NodeJob.umask = jobs_umask
        NodeJob.tell_waiting = lambda nodes: _tell(ready, {"waiting": nodes})
        NodeJob.restarts = orders.get("restarts", 0)
        try:
            service = Service(orders["arguments"], lifeline, starter)
        except CannotResume as refusal:
            _tell(ready, {"refused": str(refusal)})
            os._exit(1)
    except BaseException as error:
        _tell(ready, {"error": f"{type(error).__name__}: {error}"})
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


def _tell(ready: int, message: Dict[str, Any]) -> None:
    # the descriptor stays open: its end tells the client that this process has ended
    unsent = json.dumps(message).encode() + b"\n"
    with contextlib.suppress(BrokenPipeError):  # the client has gone already; the lifeline tells what to do then
        while unsent:
            unsent = unsent[os.write(ready, unsent) :]


if __name__ == "__main__":
    main(json.loads(sys.stdin.buffer.readline()))
