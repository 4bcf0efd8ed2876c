"""The private directory in which a Unix socket is."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Callable

__all__ = ["make_socket_directory"]

_LONGEST_PATH = 107  # sun_path has 108 bytes, one of them for the end


def make_socket_directory(
    last_resort: str, longest_name: str, announce: Callable[[str], None] = lambda _: None
) -> Path:
    """Make a directory for sockets where temporary files go, unless its path is too long for them.

    Its path is told to `announce` before it is there, so that it is known to whoever has to remove it.

    Raises:
        OSError: no directory will do.
    """
    longest = _LONGEST_PATH - len(f"/qcgpj-12345678/{longest_name}")
    for parent in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/dev/shm", last_resort]):
        if len(os.fsencode(parent)) > longest or _lets_others_rename(parent):
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


def _lets_others_rename(parent: str) -> bool:
    """Return whether others could put a directory of theirs in place of one in there."""
    try:
        mode = os.stat(parent).st_mode
    except OSError:
        return True
    return bool(mode & (stat.S_IWGRP | stat.S_IWOTH)) and not mode & stat.S_ISVTX
