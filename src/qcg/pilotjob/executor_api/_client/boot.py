"""How a Python process of ours is started: a manager by the client, an agent by the manager."""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, List

__all__ = ["command", "with_path"]

_BOOT = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; "  # a json.py in the user's directory is not ours
    "import json; orders = json.loads(sys.stdin.buffer.readline()); sys.path[:] = orders.pop('path'); "
    "from qcg.pilotjob.executor_api.{module} import main; main(orders)"
)


def command(module: str, *arguments: str) -> List[str]:
    """Return the command that runs ``main(orders)`` of `module`; orders are a line of JSON on its standard input.

    `arguments` are for whoever looks at a list of processes.
    """
    return [sys.executable, "-c", _BOOT.format(module=module), *arguments]


def with_path(orders: Dict[str, Any]) -> Dict[str, Any]:
    """Return `orders` with what the process needs to find all that this one can import."""
    return {**orders, "path": [os.path.abspath(entry) for entry in sys.path]}
