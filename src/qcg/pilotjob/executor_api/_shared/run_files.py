"""The directory of a manager: what is in it, and how the directory of another run is found.

Paths are strings here: `pathlib` is imported while the manager process starts, and this before it.
"""

from __future__ import annotations

import os
import stat
from typing import Any, List, Optional, Sequence, Union

from qcg.pilotjob.executor_api._shared.ownership import NotOwned, owner_name, owner_of, refuse_foreign
from qcg.pilotjob.executor_api.errors import InvalidOption, ManagerStartError

__all__ = [
    "CANCELS",
    "HANDOVER",
    "KEYS",
    "PREFIX",
    "PRESENCE",
    "REMOVALS",
    "Directories",
    "closed_to_us",
    "find_run",
    "is_lived_in",
    "make_directories",
    "of_this_user",
    "private",
    "quoted",
    "runs_in",
    "tail",
]

PREFIX = ".qcgpjm-service-"
PRESENCE = "manager.json"
"""How a manager is reached, as long as it lives."""


KEYS = "keys.json"
"""The keys of both sides, where the manager is in an allocation and its client elsewhere."""
HANDOVER = "handover.json"
"""What a client leaves to a manager that is not there yet."""
REMOVALS = "track.removals"
"""Has a line for each job that was removed, which the next manager does not take up."""
CANCELS = "track.cancels"
"""Has a line for each job that was cancelled while the run had no manager, or took long to cancel: for the next one."""


class Directories:
    """Holds the paths of a manager's files.

    Attributes:
        aux: what is private to the manager's user, in the working directory.
        report: the file with a line of JSON for each job and iteration that has ended.
        log: the core's log.
        output: what the manager process prints: next to nothing, unless it fails.
    """

    def __init__(self, aux: str, report: str) -> None:
        self.aux = aux
        self.report = os.path.join(aux, report)
        self.log = os.path.join(aux, "service.log")
        self.output = os.path.join(aux, "manager.out")


def make_directories(wd: str, name: str, report: str, *, resumed: bool) -> Directories:
    """Make the directory of the manager `name`, private; that of a `resumed` run is there.

    Raises:
        ManagerStartError: another manager has or had that name.
    """
    os.makedirs(wd, exist_ok=True)
    aux = os.path.join(wd, f"{PREFIX}{name}")
    if not resumed:
        try:
            os.mkdir(aux, mode=0o700)
        except FileExistsError:
            raise ManagerStartError(
                f"{aux} exists: another manager has or had this id; give another --id or leave it out, or take up its "
                "run with resume="
            ) from None
    return Directories(aux, report or "jobs.report")


def find_run(option: str, given: Union[str, "os.PathLike[str]", Any]) -> str:
    """Return the manager's directory that `given` is, or this user's latest one in it.

    What is in that directory may be run, so nobody else may have been able to write it.

    Raises:
        InvalidOption: there is none, or it is not this user's alone.
    """
    if not given or not isinstance(given, (str, os.PathLike)):
        raise InvalidOption(f"{option} is {given!r}; give the directory of a manager, or the one that it worked in")
    path = os.path.abspath(os.fspath(given))
    try:
        run = _own_run(path)
        if run is None:
            raise InvalidOption(
                f"{option} is {os.fspath(given)!r}, which is not a manager's directory ({PREFIX}...) and has none in it"
            )
        refuse_foreign(run)
    except NotOwned as error:
        raise InvalidOption(
            f"{option} is {os.fspath(given)!r}: {error}; what is there would be run as you, so it has to be yours and "
            "writable for nobody else (qcg-pm-record tells of others' runs; where nobody has changed one of yours, "
            "chmod -R go-w it)"
        ) from None
    except PermissionError as error:
        raise InvalidOption(
            f"{option} is {os.fspath(given)!r}, which you may not look into: {closed_to_us(path, error)}"
        ) from None
    return run


def _own_run(path: str) -> Optional[str]:
    if os.path.basename(path).startswith(PREFIX) and os.path.isdir(path):
        return path
    runs = runs_in(path)
    own = of_this_user(runs)
    if runs and not own:
        raise NotOwned(f"the runs there are those of {', '.join(sorted({owner_name(owner_of(run)) for run in runs}))}")
    return max(own, key=os.path.getmtime, default=None)


def of_this_user(runs: Sequence[str]) -> List[str]:
    """Return those of the managers' directories that are this user's; others may work in the same directory."""
    return [run for run in runs if owner_of(run) == os.geteuid()]


def closed_to_us(path: str, error: OSError) -> str:
    """Return which directory on the way to a path is closed to this user, and whose it is."""
    while not os.access(os.path.dirname(path), os.X_OK):
        path = os.path.dirname(path)
    try:
        return f"{path} belongs to {owner_name(owner_of(path))}, who has not opened it for you"
    except OSError:
        return str(error)


def runs_in(path: str) -> List[str]:
    """Return the managers' directories that are in `path`; none when that is no directory."""
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.name.startswith(PREFIX) and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_lived_in(run: str) -> bool:
    """Return whether a manager lives in its directory: as long as it does, it holds a lock on a file there."""
    import fcntl

    try:
        with open(os.path.join(run, PRESENCE), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no such file; or no locks there, and nothing is known of a manager
    return False


def private(path: str, flags: int) -> int:
    """Open a file as ``open(..., opener=private)`` does: when it is made, for the owner alone."""
    return os.open(path, flags, 0o600)


def quoted(said: str) -> str:
    """Return the lines that a process has said, to stand behind a line of our own; nothing when it said nothing."""
    return "".join(f"\n  | {line}" for line in said.splitlines())


def tail(path: Union[str, "os.PathLike[str]"], lines: int, since: int = 0) -> str:
    """Return the last lines of a file, as far as they are in its last 16 KiB; nothing when it cannot be read.

    Of what is no regular file nothing is read: a FIFO would be waited for, and a record names whatever was given.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return ""
            file.seek(0, os.SEEK_END)
            file.seek(max(since, file.tell() - 16384))
            text = file.read().decode("utf-8", "backslashreplace")
    except (OSError, ValueError):  # a record may have NUL in a path
        return ""
    return "\n".join(text.splitlines()[-lines:])
