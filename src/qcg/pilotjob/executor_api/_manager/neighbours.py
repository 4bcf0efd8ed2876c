"""Other managers with jobs in the same working directory on the same cores, as a cell of a notebook run twice makes.

That is allowed, and each has files of its own. But there are twice the jobs on those cores, so the user is told.

To look through a working directory takes long when it has the outputs of many jobs. So a manager first looks whether
there is another one at all: each holds a name in Linux's abstract namespace of sockets, which the kernel gives to one
process at a time. Of two that start at the same time at least one finds the other: each says how it is reached before
it looks.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional

from qcg.pilotjob.executor_api._shared.ownership import NotOwned, read_owned
from qcg.pilotjob.executor_api._shared.run_files import PRESENCE, is_lived_in, of_this_user, runs_in

__all__ = ["note_on_neighbours"]

_MOST = 8  # managers in one directory that hold a name; more of them are still found by one that looks

_held: Dict[int, socket.socket] = {}  # until this process ends


def note_on_neighbours(run: Path, own: Mapping[str, Any], usable: int) -> str:
    """Return what the user is to be told of others in the same place, an empty string when there is nothing.

    `run` is the directory of this manager, `own` what it says of itself, and `usable` how many CPUs of this machine
    there are for jobs.
    """
    if not _has_company(run.parent):
        return ""
    others = [other for other in _others(run) if _shares(own, other)]
    if not others:
        return ""
    overlap = "the same nodes of this allocation"
    if own["local"]:
        wanted = sum(manager["capacity"]["cores"] for manager in (own, *others))
        if wanted <= usable:
            return ""
        overlap = f"{wanted} cores in all, where there are {usable}"
    named = ", ".join(f"that of process {other['pid']}, {other['run']}" for other in others)
    return (
        f"another executor runs jobs in {run.parent} too, and together they use {overlap}; its manager is {named}: "
        "shut it down, or give each a part by resources=; jobs of the same name write to the same files"
    )


def _has_company(place: Path) -> bool:
    """Hold a name that stands for a working directory, and return whether others have one too."""
    status = os.stat(place)
    company = False
    for number in range(_MOST):
        holder = _bound(f"\0qcgpj-in-{status.st_dev}-{status.st_ino}-{number}")
        if holder is None:
            company = True
        elif _held:
            holder.close()
        else:
            _held[number] = holder
    return company


def _bound(name: str) -> Optional[socket.socket]:
    """Return what holds a name until it is closed, None when somebody else does."""
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.bind(name)
    except OSError as error:
        holder.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return holder


def _others(run: Path) -> Iterator[Dict[str, Any]]:
    """Yield what other managers of this user say of themselves, except the one whose job this process is in."""
    for found in of_this_user(runs_in(str(run.parent))):
        if found == str(run) or not is_lived_in(found):
            continue
        with contextlib.suppress(FileNotFoundError, NotOwned, ValueError):  # it ends; or it starts, and will look too
            other = json.loads(read_owned(os.path.join(found, PRESENCE)))
            if other["address"] != os.environ.get("QCG_PM_ZMQ_ADDRESS"):
                yield {**other, "run": found}


def _shares(own: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether both have the same machine, or nodes of the same allocation where not each has a part."""
    if other["local"] != own["local"] or other.get("remote"):
        return False
    if own["local"]:
        return bool(other["host"] == socket.gethostname())
    if other.get("allocation") != own["allocation"] or (own["part"] and other.get("part")):
        return False
    return not set(own["nodes"]).isdisjoint(other.get("nodes", ()))
