"""The manager as a scheduler's job: its orders are in a file, and its client is on another machine.

What it has to say at its start, and its last words, go to a file beside the orders, which the client's side reads: the
same lines that a manager process says to its client through a pipe.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict

from qcg.pilotjob.executor_api._manager.__main__ import serve
from qcg.pilotjob.executor_api._shared.python_process import take_standard_input

__all__ = ["main"]


def main(orders: Dict[str, Any]) -> None:
    """Run a manager in an allocation until its client, or the end of the allocation, ends it.

    `orders` holds what ``__main__.serve`` takes, and ``said`` (the file for what there is to say).
    """
    os.close(take_standard_input())
    said = os.open(orders["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    line = {"pilot": {"host": os.uname().nodename, "pid": os.getpid()}}
    os.write(said, json.dumps(line).encode() + b"\n")
    serve(orders, ready=said, lifeline=None)
