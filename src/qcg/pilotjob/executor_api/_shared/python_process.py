"""Start a Python process of ours: a manager, a guard, an agent, a pilot or a worker of functions.

What such a process imports is the standard library's and this package's, whatever files the user has: a ``queue.py``
beside a script, or in the current directory, is not ours. So the standard library comes first there, and the
directories that Python puts in front for scripts come last, or not at all.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, List

from qcg.pilotjob.executor_api.errors import ManagerStartError

__all__ = [
    "PROTECT_IMPORTS",
    "READ_ORDERS",
    "command",
    "interpreter",
    "protected_path",
    "take_standard_input",
    "with_path",
]

# what `os` and `sys` are is settled when this runs: Python has imported both at its start
PROTECT_IMPORTS = (
    "import os, sys; _given = sys.path[:]; _library = os.path.dirname(os.__file__); "
    "sys.path[:] = [_library, *sorted((p for p in _given if p and p != _library), "
    "key=lambda p: os.path.basename(p) != 'lib-dynload')]; import json; "
)
"""The beginning of what ``python -c`` is given: from there on imports are safe; `_given` is the path as it was."""

READ_ORDERS = (
    "_file = os.open(sys.argv[1], os.O_RDONLY | os.O_NOFOLLOW); "
    "os.fstat(_file).st_uid in (int(sys.argv[2]), os.geteuid()) or sys.exit(sys.argv[1] + ' belongs to another user'); "
    "orders = json.load(open(_file)); "
)
"""Code behind that, which reads the orders from a file: the first argument is its path, the second one its owner.

The file may be read hours after it was written, and elsewhere. On some file systems its owner is not who has made it,
so that is told. The orders say what code is run, so they are not read from what another user has put in their place.
"""

_BOOT = (
    PROTECT_IMPORTS + "orders = json.loads(sys.stdin.buffer.readline()); sys.path[:] = orders.pop('path'); "
    "from qcg.pilotjob.executor_api.{module} import main; main(orders)"
)


def command(module: str, *arguments: str) -> List[str]:
    """Return the command that runs ``main(orders)`` of `module`; orders are a line of JSON on its standard input.

    `arguments` are for whoever looks at a list of processes.
    """
    return [interpreter(), "-c", _BOOT.format(module=module), *arguments]


def interpreter() -> str:
    """Return the Python that runs processes of ours: this program's, or the one that was set for ``multiprocessing``.

    Raises:
        ManagerStartError: the program is frozen, or embeds Python, and no interpreter was set.
    """
    if sys.executable and not getattr(sys, "frozen", False):
        return sys.executable
    from multiprocessing import spawn

    chosen = os.fsdecode(spawn.get_executable() or "")
    if not chosen or chosen == sys.executable:  # a frozen program would start itself, again and again
        raise ManagerStartError(
            "this program is no Python interpreter, and the manager needs one\n"
            "  next: multiprocessing.set_executable(path), to a Python of this version that has this package"
        )
    return chosen


def with_path(orders: Dict[str, Any]) -> Dict[str, Any]:
    """Return `orders` with what the process needs to find all that this one can import."""
    return {**orders, "path": protected_path()}


def protected_path() -> List[str]:
    """Return ``sys.path`` for a process of ours: the standard library first, the user's own directories last.

    Those are the current directory and the script's. The one in which this package was found stays where it is: another
    version of it may be installed elsewhere.
    """
    library = os.path.dirname(os.__file__)
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    users = {os.getcwd()}
    if script:
        users |= {os.path.dirname(os.path.abspath(script)), os.path.dirname(os.path.realpath(script))}
    users.discard(_place_of_package())

    def rank(entry: str) -> int:
        if entry == library or os.path.basename(entry) == "lib-dynload":
            return 0
        return 2 if entry in users else 1

    return sorted((os.path.abspath(entry) for entry in sys.path), key=rank)


def _place_of_package() -> str:
    place = os.path.abspath(__file__)
    for _ in __name__.split("."):
        place = os.path.dirname(place)
    return place


def take_standard_input() -> int:
    """Move standard input out of the jobs' reach, who get end of file there; return the descriptor that it has now."""
    taken = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return taken
