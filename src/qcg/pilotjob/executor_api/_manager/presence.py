"""Find other managers of a directory: one that lives, what an earlier one has left, one that is beside it.

A manager that is killed leaves its jobs to the starter, which ends them, or to the client. When all three are killed
together, the jobs go on; they bear the name of their manager's directory of sockets in their environment, and
``manager.json`` is still there, where that manager has written it down.

Another manager may have jobs in the same working directory on the same cores, as a cell of a notebook makes that is run
twice. That is allowed, and each has files of its own. But there are twice the jobs on those cores, so the user is told.

To look through a working directory takes long when it has the outputs of many jobs. So a manager first looks whether
there is another one at all: each holds a name in Linux's abstract namespace of sockets, which the kernel gives to one
process at a time. Of two that start at the same time at least one finds the other: each says how it is reached before
it looks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Optional

from qcg.pilotjob.executor_api._shared.ownership import NotOwned, owner_name, read_owned, refuse_foreign
from qcg.pilotjob.executor_api._shared.proc import kill_jobs_of, kill_starters_of
from qcg.pilotjob.executor_api._shared.run_files import PRESENCE, is_lived_in, of_this_user, runs_in

__all__ = ["CannotResume", "Presence", "end_earlier", "note_on_neighbours", "refuse_other_users", "sockets_of"]

# A client that dies takes its manager with it, within this time: whoever starts the program again need not wait first.
_LAST_MOMENTS = 6.0
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class CannotResume(Exception):
    """The interrupted run cannot be taken up; the message says why, and what to do."""


class Presence:
    """The file of the manager that lives in `directory`: locked as long as the process exists, removed at its end."""

    def __init__(self, directory: Path) -> None:
        """Take the directory.

        Raises:
            CannotResume: another manager lives there, or it cannot be told whether one does.
        """
        self._path = directory / PRESENCE
        self._has_told = False
        was_there = self._path.exists()
        _refuse_living_core(directory / "address")
        self._file = self._open()
        deadline = time.monotonic() + _LAST_MOMENTS
        while not (self._lock(was_there) and self._is_there()):
            if time.monotonic() > deadline:
                raise CannotResume(f"its manager still lives: {self._owner()}; wait for its end, or end it")
            time.sleep(0.02)
        self.earlier = self._told()
        """What an earlier manager has told of itself that was killed; nothing when there was none."""
        if self.earlier and self.owner != os.geteuid():  # what it tells of is ended
            raise CannotResume(f"{self._path} belongs to {owner_name(self.owner)}, not to {owner_name(os.geteuid())}")

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def _is_there(self) -> bool:
        """Return whether the locked file is there; if not, take the next one: a manager removes its own at its end."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file), os.stat(self._path)):
                return True
        os.close(self._file)
        self._file = self._open()
        return False

    def _lock(self, was_there: bool) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if was_there:
                raise CannotResume(
                    "its file system has no locks, so it cannot be told whether its manager still lives: "
                    f"{self._owner()}; see that it does not, remove {self._path} and try again"
                ) from error
        return True

    @property
    def owner(self) -> int:
        """Whose the file is, which this process may have made: on some file systems that is not who it runs as."""
        return os.fstat(self._file).st_uid

    def tell(self, description: Dict[str, Any]) -> None:
        """Write down how the manager is reached."""
        job = os.environ.get("SLURM_JOB_ID")
        here = {"host": socket.gethostname(), "pid": os.getpid(), "slurm_job": job, **description}
        size = os.fstat(self._file).st_size  # of what one that was killed has left: nobody may find the file empty
        os.pwrite(self._file, json.dumps(here).encode().ljust(size), 0)
        self._has_told = True

    def end(self) -> None:
        """Remove the file, unless it is still what an earlier manager has told: the next one has to read it."""
        if self.earlier and not self._has_told:
            return
        with contextlib.suppress(OSError):  # whoever removed the directory has removed it too
            self._path.unlink()

    def _told(self) -> Dict[str, Any]:
        """Return what the file says; nothing of a manager that is starting, or ending."""
        try:
            told = json.loads(os.pread(self._file, os.fstat(self._file).st_size, 0))
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}

    def _owner(self) -> str:
        owner = self._told()
        if not owner:
            return "it is starting, or ending"
        return f"process {owner.get('pid')} on {owner.get('host')}"


def refuse_other_users(directory: str) -> None:
    """Refuse to take up a run from a directory where another user may have written what is to be run.

    Raises:
        CannotResume: it is another user's, or others can write there.
    """
    try:
        refuse_foreign(directory)
    except NotOwned as error:
        raise CannotResume(f"what is on record there may be another user's: {error}") from None


def _refuse_living_core(address_file: Path) -> None:
    """Refuse the directory of a manager of the bare core that still listens: it locks nothing."""
    try:
        address = address_file.read_text().strip()
    except FileNotFoundError:
        return
    transport, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if transport != "tcp" or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return  # nobody listens
    raise CannotResume(
        f"its manager still listens at {address}; end it, or remove {address_file} if that is another program"
    )


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
    """Return whether that Slurm job is this one, whose agents look at their nodes, or one that is over."""
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
