"""Refuse files of others: what another user may have put there or changed is not believed, executed or connected to.

A run has a directory of its own, made with mode 0700. The working directory that it stands in may be anybody's, and
others may write there, so what looks like the directory of a run may be a trap: its jobs would run as whoever takes up
that run. So two things are asked of a directory before anything in it is used: that its owner is this user, and that
its mode lets nobody else write. Of a file they are asked by the descriptor that it is read with: a name may stand for
another file a moment later.

Which other directories lead there is not asked. At many sites all directories are writable for a group; who renames
the directory of a run and puts another one in its place has not put one there that belongs to its victim.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import IO, Optional, Union

__all__ = ["NotOwned", "open_owned", "owner_name", "owner_of", "read_owned", "refuse_foreign"]

_Path = Union[str, "os.PathLike[str]"]

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH


class NotOwned(PermissionError):
    """Another user's file, or one that others may have changed; the message says which and why."""


def owner_name(uid: int) -> str:
    """Return the name of a user, as far as there is one."""
    import pwd  # only for messages

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def owner_of(path: _Path) -> int:
    """Return whose a file is; of a symbolic link, who has made that.

    Raises:
        OSError: it cannot be looked at.
    """
    return os.lstat(path).st_uid


def refuse_foreign(path: _Path) -> None:
    """Refuse a directory that is not to be believed, or a symbolic link to one that somebody else has made.

    Raises:
        NotOwned: it is another user's, or others can write there.
        OSError: it cannot be looked at.
    """
    if owner_of(path) != os.geteuid():
        raise NotOwned(f"{os.fspath(path)} belongs to {owner_name(owner_of(path))}, not to {owner_name(os.geteuid())}")
    _refuse(os.fspath(path), os.stat(path), os.geteuid(), others_write=False)


def open_owned(
    path: _Path, flags: int = os.O_RDONLY, *, owner: Optional[int] = None, others_write: bool = False
) -> IO[bytes]:
    """Open a regular file that belongs to `owner`, by default this user, and so does its directory.

    Nobody else may be able to write to either of them, unless `others_write`.

    Raises:
        NotOwned: it is another user's, others can write to it, or it is no regular file.
        OSError: it cannot be opened.
    """
    uid = os.geteuid() if owner is None else owner
    directory, name = os.path.split(os.fspath(path))
    place = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        of_directory = os.fstat(place)
        _refuse(directory or ".", of_directory, uid, others_write=others_write)
        # a FIFO that somebody has put there must not hold up whoever opens it
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotOwned(f"{os.fspath(path)} is a symbolic link, where a file should be") from None
        raise
    finally:
        os.close(place)
    try:
        of_file = os.fstat(descriptor)
        if not stat.S_ISREG(of_file.st_mode):
            raise NotOwned(f"{os.fspath(path)} is no regular file")
        # where nobody else can enter the directory, nobody else gets at a file in it, whatever its mode
        closed = not of_directory.st_mode & _OTHERS_ENTER
        _refuse(os.fspath(path), of_file, uid, others_write=others_write or closed)
        return os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "r+b")
    except BaseException:
        os.close(descriptor)
        raise


def read_owned(path: _Path, *, owner: Optional[int] = None) -> bytes:
    """Return what is in a file that belongs to `owner`, by default this user; see `open_owned`."""
    with open_owned(path, owner=owner) as file:
        return file.read()


def _refuse(path: str, status: os.stat_result, owner: int, *, others_write: bool) -> None:
    why = _why(path, status, owner, others_write=others_write)
    if why:
        raise NotOwned(why)


def _why(path: str, status: os.stat_result, owner: int, *, others_write: bool = False) -> str:
    if status.st_uid != owner:
        return f"{path} belongs to {owner_name(status.st_uid)}, not to {owner_name(owner)}"
    if status.st_mode & _OTHERS_WRITE and not others_write:
        return f"others than {owner_name(owner)} can write to {path}, which has the mode {status.st_mode & 0o7777:04o}"
    return ""
