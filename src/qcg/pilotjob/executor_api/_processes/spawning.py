"""One job's process, from its description: what the manager starts here and an agent on its node.

`posix_spawn`, the call of the C library, returns when the new program runs, which takes the kernel a good part of a
millisecond. Called through ctypes it lets the other threads go on meanwhile; Python's own ``os.posix_spawn`` and
``subprocess`` keep them waiting.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import signal
import stat
import subprocess
import sys
from typing import IO, Any, Callable, Dict, FrozenSet, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set

__all__ = ["available", "posix_spawn"]

_logger = logging.getLogger(__name__)

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells have them
NODE, DISK = "node", "disk"  # what may be to blame
_OF_THE_NODE = (
    errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EREMOTEIO,
)  # fmt: skip
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT)
_LACKS = (errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE)  # which may be over in a moment
_MODES = {"stdin": os.O_RDONLY, "stdout": os.O_WRONLY | os.O_CREAT, "stderr": os.O_WRONLY | os.O_CREAT}
STREAMS = tuple(_MODES)
# A group is all that is needed, and a session costs: where Linux shares the cores among sessions, each job that starts
# in one of its own has to queue for its first moment, which on a busy node halves the number of jobs a second.
OWN_GROUP: Dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}


class CannotStart(Exception):
    """The job's process could not be started.

    `blames` says what is to blame if not the job, which may then start another time: ``node``, this machine, so that it
    may start on another one; ``disk``, on which there is no room. `is_lack` says that this is a lack, of processes,
    memory or descriptors: in a moment it may start.
    """

    def __init__(
        self, reason: str, exit_code: int = NOT_EXECUTABLE, blames: str = "", *, is_lack: bool = False
    ) -> None:
        super().__init__(reason)
        self.exit_code = exit_code
        self.blames = blames
        self.is_lack = is_lack


class Order(NamedTuple):
    """Holds what is to be started.

    `env` has what differs from this process's environment, None for what shall not be there; `files` the absolute paths
    of the streams: one that has none reads end of file, or writes to nowhere. `cpus` are those it may use, all that
    this process may when there are none. A working directory that is missing is made where the order `makes_cwd`.
    """

    command: List[str]
    cwd: str
    env: Mapping[str, Optional[str]]
    files: Mapping[str, Optional[str]]
    cpus: FrozenSet[int] = frozenset()
    makes_cwd: bool = False


class Spawner:
    """Starts processes in an environment that is encoded once. Any thread may use it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        _keep_descriptors_from_jobs()
        self._environment = dict(environment)
        self._refused: Set[FrozenSet[int]] = set()
        self._encoded = {name: _entry(name, value) for name, value in environment.items()}

    def spawn(self, order: Order, is_wanted: Callable[[], bool] = lambda: True) -> int:
        """Start a process in a group of its own and return its id, unless it is not wanted any more when all is ready.

        Raises:
            CannotStart: a file cannot be opened, the working directory not be made, or the program not be started.
        """
        if order.makes_cwd and not os.path.isdir(order.cwd):
            _make_directory(order.cwd)
        with self._bound_to(order.cpus):
            return self._quickly(order, is_wanted) or self._carefully(order, is_wanted)

    @contextlib.contextmanager
    def _bound_to(self, cpus: FrozenSet[int]) -> Iterator[None]:
        """Bind what this thread starts meanwhile to `cpus`, or to all that this process may use if that is refused."""
        if not cpus:
            yield
            return
        all_cpus = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, cpus)
        except OSError as error:
            if cpus not in self._refused:
                self._refused.add(cpus)
                refusal = "cannot bind to the CPUs %s: %s; what would run there may use all of %s"
                _logger.warning(refusal, sorted(cpus), error.strerror, sorted(all_cpus))
            yield
            return
        try:
            yield
        finally:
            os.sched_setaffinity(0, all_cpus)

    def _quickly(self, order: Order, is_wanted: Callable[[], bool]) -> int:
        """Return 0 when it is not possible; `_carefully` knows why."""
        if not available:
            return 0
        path = _program(order.command[0], order.env.get("PATH", self._environment.get("PATH")))
        changed = {name: _entry(name, value) for name, value in order.env.items()}
        if not path or "\0" in "".join([*order.command, order.cwd]) or b"\0" in b"".join(changed.values()):
            return 0
        environment = [entry for entry in {**self._encoded, **changed}.values() if entry]
        files = [order.files.get(name) or None for name in STREAMS]
        if not is_wanted():
            return 0
        return posix_spawn(path, order.command, environment, order.cwd, files)

    def _carefully(self, order: Order, is_wanted: Callable[[], bool]) -> int:
        if not os.path.isdir(order.cwd):  # whoever has given the order has seen it
            raise CannotStart(f"cannot start: no working directory {order.cwd!r}", NOT_FOUND, NODE)
        changed = {**self._environment, **order.env}
        environment = {name: value for name, value in changed.items() if value is not None}
        with contextlib.ExitStack() as opened:
            streams = _open_all(order, opened, is_wanted)
            try:
                process = subprocess.Popen(order.command, cwd=order.cwd, env=environment, **OWN_GROUP, **streams)
            except FileNotFoundError as error:
                missing = _missing(str(error.filename), order.cwd)
                raise CannotStart(f"cannot start: no {missing}", NOT_FOUND) from error
            except OSError as error:
                is_directory = os.path.isdir(os.path.join(order.cwd, order.command[0]))
                why = "it is a directory" if is_directory else error.strerror
                reason = f"cannot start {order.command[0]!r}: {why}"
                raise _cannot(reason, error) from error
            except ValueError as error:
                raise CannotStart(f"cannot start {order.command[0]!r}: {error}") from error
        process.returncode = 0  # whoever has the process id waits for it; Popen must not
        return process.pid


def _missing(name: str, cwd: str) -> str:
    if name == cwd:
        return f"working directory {name!r}"
    if "/" in name and os.path.exists(os.path.join(cwd, name)):
        return f"interpreter for {name!r}, which its first line names"
    is_below = "/" in name and not os.path.isabs(name)
    return f"program {name!r}" + (f" in {cwd!r}" if is_below else "")


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise _cannot(f"cannot start: the working directory cannot be made: {error}", error) from error


def _keep_descriptors_from_jobs() -> None:
    """Keep descriptors from jobs that this process has inherited itself; Python's own are not inherited."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # that of the list itself
                os.set_inheritable(int(name), False)


def _entry(name: str, value: Optional[str]) -> bytes:
    return b"" if value is None else os.fsencode(f"{name}={value}")


def _program(name: str, search: Optional[str]) -> str:
    """Return the path of a program; nothing where only the start itself can tell."""
    if "/" in name:
        return name
    for directory in (search or "").split(os.pathsep):
        path = f"{directory}/{name}"
        if not directory.startswith("/"):
            return ""
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return ""


def _open_all(order: Order, stack: contextlib.ExitStack, is_wanted: Callable[[], bool]) -> Dict[str, Any]:
    """Open the files of the streams, and then empty those that are written to, when the process is wanted still.

    Another one may write to them by then, when an open has hung.
    """
    opened: Dict[str, IO[bytes]] = {}
    streams: Dict[str, Any] = {}
    for name, mode in _MODES.items():
        path = order.files.get(name)
        if not path:
            streams[name] = subprocess.DEVNULL
            continue
        if path not in opened or mode == os.O_RDONLY:
            opened[path] = stack.enter_context(_open(name, path, mode))
        streams[name] = opened[path]
    if not is_wanted():
        raise CannotStart("it was ended before it had started")
    for file in opened.values():
        if file.writable() and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.truncate(file.fileno(), 0)
    return streams


def _open(name: str, path: str, mode: int) -> IO[bytes]:
    try:
        return open(os.open(path, mode, 0o666), "rb" if mode == os.O_RDONLY else "wb")
    except OSError as error:
        raise _cannot(f"cannot open {name} {path!r}: {error.strerror}", error) from error


def _cannot(reason: str, error: OSError) -> CannotStart:
    blames = NODE if error.errno in _OF_THE_NODE else DISK if error.errno in _OF_THE_DISK else ""
    return CannotStart(reason, blames=blames, is_lack=error.errno in _LACKS)


_SETPGROUP, _SETSIGDEF, _SETSIGMASK = 0x02, 0x04, 0x08
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_OPAQUE = 1024  # bytes; more than any C library needs for one of its opaque structures
_STREAM_FLAGS = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

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
        for number, (name, mode) in enumerate(zip(files, _STREAM_FLAGS)):
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
