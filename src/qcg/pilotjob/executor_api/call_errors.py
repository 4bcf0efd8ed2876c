"""Exceptions that the calls of a `FunctionPool` raise beside those of the functions themselves.

::

    QCGPJError
    ├── CallFailed      RuntimeError       the function raised what cannot be pickled; told in words
    ├── CallTimeout     TimeoutError       the call took longer than its walltime
    └── BrokenCall      BrokenProcessPool
        ├── WorkerDied                     the process that made the call, or should have, has ended
        └── CallUnreadable                 arguments or value cannot be unpickled where they arrive

A module of its own, since ``BrokenProcessPool`` brings all of ``multiprocessing``.
"""

from __future__ import annotations

import concurrent.futures
from concurrent.futures.process import BrokenProcessPool

from qcg.pilotjob.executor_api.errors import QCGPJError

__all__ = ["BrokenCall", "CallFailed", "CallTimeout", "CallUnreadable", "RemoteTraceback", "WorkerDied"]

_TAIL_LINES = 10
_TIMEOUTS = tuple(dict.fromkeys((concurrent.futures.TimeoutError, TimeoutError)))  # two classes before Python 3.11


class CallFailed(QCGPJError, RuntimeError):
    """The function raised an exception that cannot be brought here; the message has its type and text."""


class CallTimeout(QCGPJError, *_TIMEOUTS):  # type: ignore[misc]  # the bases differ between Python versions
    """The call took longer than its walltime; its process was ended."""


class BrokenCall(QCGPJError, BrokenProcessPool):
    """The call has no value, through no exception of the function. Other calls are not affected."""


class WorkerDied(BrokenCall):
    """The process that made the call, or should have made it, has ended; the message tells how.

    That may be a crash, ``os._exit``, the kernel that is short of memory, a node that has gone, or a Python in which
    workers cannot run. The pool goes on with other workers.
    """


class CallUnreadable(BrokenCall):
    """The arguments cannot be unpickled by the worker, or the value cannot be here; the cause tells why."""


class RemoteTraceback(Exception):
    """Tells where in the worker an exception was raised, and what the call had written to standard error: its cause."""

    def __init__(self, traceback: str, stderr: str = "") -> None:
        super().__init__(traceback, stderr)
        self.traceback = traceback
        self.stderr = stderr

    def __str__(self) -> str:
        lines = self.stderr.splitlines()[-_TAIL_LINES:]
        said = "".join(f"  | {line}\n" for line in lines)
        return f'\n"""\n{self.traceback}"""' + (f"\nthe end of its standard error:\n{said}" if said else "")
