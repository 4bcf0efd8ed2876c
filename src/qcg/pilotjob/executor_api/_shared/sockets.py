"""The private directory in which a Unix socket is."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Callable

from qcg.pilotjob.executor_api._shared.proc import ADDRESS

__all__ = ["make_socket_directory"]

_LONGEST_PATH = 107  # sun_path has 108 bytes, one of them for the end


def make_socket_directory(
    last_resort: str, longest_name: str, announce: Callable[[str], None] = lambda _: None
) -> Path:
    """Make a directory for sockets where temporary files go, unless its path is too long for them.

    In a job of an executor it is made in that one's directory, which is removed with all that is in it by whoever ends
    what a killed manager has left. Its path is told to `announce` before it is there, so that whoever has to remove it
    knows it.

    Raises:
        OSError: no directory will do.
    """
    longest = _LONGEST_PATH - len(f"/qcgpj-12345678/{longest_name}")
    for parent in dict.fromkeys([_directory_around(), tempfile.gettempdir(), "/tmp", "/dev/shm", last_resort]):
        if not parent or len(os.fsencode(parent)) > longest or _lets_others_rename(parent):
            continue
        path = Path(parent, f"qcgpj-{os.urandom(4).hex()}")
        announce(str(path))
        with contextlib.suppress(OSError):
            path.mkdir(mode=0o700)
            return path
    raise OSError(
        f"no directory for sockets: none of {tempfile.gettempdir()}, /tmp, /dev/shm can be written to and has a path "
        f"of at most {longest} bytes; set TMPDIR to one that is"
    )


def _directory_around() -> str:
    """Return the directory of sockets of the executor that this process is a job of; nothing where there is none."""
    directory = os.path.dirname(os.environ.get(ADDRESS, "").partition("ipc://")[2])
    with contextlib.suppress(OSError):  # that executor is on another machine
        if os.stat(directory).st_uid == os.geteuid():
            return directory
    return ""


def _lets_others_rename(parent: str) -> bool:
    """Return whether others could put a directory of theirs in place of one in there."""
    try:
        mode = os.stat(parent).st_mode
    except OSError:
        return True
    return bool(mode & (stat.S_IWGRP | stat.S_IWOTH)) and not mode & stat.S_ISVTX
