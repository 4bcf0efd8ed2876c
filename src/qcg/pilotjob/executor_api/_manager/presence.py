"""That a manager lives in a directory, said so that others can find out: its file ``manager.json``, which it locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Dict

from qcg.pilotjob.executor_api._shared.ownership import NotOwned, owner_name, refuse_foreign
from qcg.pilotjob.executor_api._shared.run_files import PRESENCE

__all__ = ["CannotResume", "Presence", "refuse_other_users"]

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
        """Whether the file is there that is locked; if not, take the next: a manager removes its own at its end."""
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
