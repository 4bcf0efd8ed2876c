"""posix_spawn(3) of the C library: a process is started without a copy of this one, and without Python's lock.

The call returns when the new program runs, which takes the kernel a good part of a millisecond. Called through ctypes
it lets the other threads go on meanwhile; Python's own ``os.posix_spawn`` and ``subprocess`` keep them waiting.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any, Optional, Sequence

__all__ = ["available", "posix_spawn"]

_SETPGROUP, _SETSIGDEF, _SETSIGMASK = 0x02, 0x04, 0x08
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_OPAQUE = 1024  # bytes; more than any C library needs for one of its opaque structures
_MODES = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

_with_lock: Any = ctypes.PyDLL(None)  # for what is done at once
_without_lock: Any = ctypes.CDLL(None)

available = hasattr(_with_lock, "posix_spawn_file_actions_addchdir_np")  # glibc has it since 2.29


def posix_spawn(
    path: str, command: Sequence[str], environment: Sequence[bytes], cwd: str, files: Sequence[Optional[str]]
) -> int:
    """Start the program at `path` in a process group of its own, and return its process id; 0 when that cannot be.

    `environment` has entries ``NAME=value``. `files` are the absolute paths of standard input, output and error, None
    for nothing. Signals have their default actions, and none is blocked.
    """
    actions = ctypes.create_string_buffer(_OPAQUE)
    _with_lock.posix_spawn_file_actions_init(actions)
    try:
        for number, (name, mode) in enumerate(zip(files, _MODES)):
            if number == 2 and name is not None and name == files[1]:
                _with_lock.posix_spawn_file_actions_adddup2(actions, 1, 2)
            else:
                place = os.fsencode(name or os.devnull)
                _with_lock.posix_spawn_file_actions_addopen(actions, number, place, mode, 0o666)
        _with_lock.posix_spawn_file_actions_addchdir_np(actions, os.fsencode(cwd))
        pid = ctypes.c_int()
        arguments = _array([os.fsencode(argument) for argument in command])
        failed = _without_lock.posix_spawn(
            ctypes.byref(pid), os.fsencode(path), actions, _attributes, arguments, _array(environment)
        )
    finally:
        _with_lock.posix_spawn_file_actions_destroy(actions)
    return 0 if failed else pid.value


def _array(texts: Sequence[bytes]) -> Any:
    return (ctypes.c_char_p * (len(texts) + 1))(*texts)


def _make_attributes() -> Any:
    attributes, signals = (ctypes.create_string_buffer(_OPAQUE) for _ in range(2))
    _with_lock.posix_spawnattr_init(attributes)
    _with_lock.sigemptyset(signals)
    _with_lock.posix_spawnattr_setsigmask(attributes, signals)
    for number in _IGNORED_BY_PYTHON:
        _with_lock.sigaddset(signals, int(number))
    _with_lock.posix_spawnattr_setsigdefault(attributes, signals)
    _with_lock.posix_spawnattr_setpgroup(attributes, 0)
    _with_lock.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETPGROUP | _SETSIGDEF | _SETSIGMASK))
    return attributes


_attributes = _make_attributes()
