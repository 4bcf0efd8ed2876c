"""One job's process, from its description: what the manager starts here and an agent on its node."""

from __future__ import annotations

import contextlib
import subprocess
from typing import IO, Any, Callable, Dict, List, Mapping, Optional

from qcg.pilotjob.executor_api._manager.processes import Children

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells have them
_MODES = {"stdin": "rb", "stdout": "wb", "stderr": "wb"}
STREAMS = tuple(_MODES)


class CannotStart(Exception):
    """The job's process could not be started."""

    def __init__(self, reason: str, exit_code: int = NOT_EXECUTABLE) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


def spawn(
    children: Children,
    command: List[str],
    mark: str,
    on_exit: Callable[[int], None],
    *,
    cwd: str,
    env: Mapping[str, str],
    files: Mapping[str, Optional[str]],
) -> int:
    """Start `command` among `children` and return its process id.

    `files` are the paths of its streams; a stream that has none reads end of file, or writes to nowhere.

    Raises:
        CannotStart: a file cannot be opened, or the program not be started.
    """
    with contextlib.ExitStack() as opened:
        streams = _open_all(files, opened)
        try:
            return children.start(command, mark, on_exit, cwd=cwd, env=env, **streams)
        except FileNotFoundError as error:
            missing = "working directory" if error.filename == cwd else "program"
            raise CannotStart(f"cannot start: no {missing} {error.filename!r}", NOT_FOUND) from error
        except OSError as error:
            raise CannotStart(f"cannot start {command[0]!r}: {error.strerror}") from error


def _open_all(files: Mapping[str, Optional[str]], stack: contextlib.ExitStack) -> Dict[str, Any]:
    opened: Dict[str, IO[bytes]] = {}
    streams: Dict[str, Any] = {}
    for name, mode in _MODES.items():
        path = files.get(name)
        if not path:
            streams[name] = subprocess.DEVNULL
            continue
        if path not in opened or mode == "rb":
            opened[path] = stack.enter_context(_open(name, path, mode))
        streams[name] = opened[path]
    return streams


def _open(name: str, path: str, mode: str) -> IO[bytes]:
    try:
        return open(path, mode)
    except OSError as error:
        raise CannotStart(f"cannot open {name} {path!r}: {error.strerror}") from error
