"""A process of ours beside the user's: it gets its orders, and is connected with us by two pipes."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import Any, Dict, List, Tuple

from qcg.pilotjob.executor_api._shared import python_process
from qcg.pilotjob.executor_api._shared.run_files import private

__all__ = ["Companion"]


class Companion:
    """That process. What it reads from its standard input ends when we do; what it says is read from `end_fd`.

    Attributes:
        pid: its process id.
        end_fd: a pipe whose end is that of the process.
    """

    def __init__(
        self, command: List[str], orders: Dict[str, Any], key: str, output: str, *, shows: bool = False
    ) -> None:
        """Start it; its `orders` get the descriptor for what it has to say as `key`.

        What it prints goes to the file `output`, except that it `shows` what goes to standard output.
        """
        read_end, write_end = _pipe()
        try:
            self._process = self._spawn(command, write_end, output, shows)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self.end_fd = read_end
        self.pid = self._process.pid
        import json  # while the process starts

        self.write(json.dumps(python_process.with_path({**orders, key: write_end})).encode())

    @staticmethod
    def _spawn(command: List[str], write_end: int, output: str, shows: bool) -> "subprocess.Popen[bytes]":
        with open(output, "ab", opener=private) as file:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=None if shows else file,
                stderr=file,
                pass_fds=[write_end],
                start_new_session=True,
                bufsize=0,
            )

    def write(self, line: bytes) -> None:
        """Write a line to it; when it has ended, its pipe tells why."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(line + b"\n")

    def leave(self) -> None:
        """Let it know that we want nothing more."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def kill(self) -> None:
        """Kill the process, and nothing else."""
        self._process.kill()

    def wait(self, timeout: float) -> bool:
        """Wait for its end; return whether it came."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def exit_code(self) -> int:
        """Wait for its end, and return its exit code, negative for a signal's number."""
        return self._process.wait()

    def close_descriptors(self) -> None:
        """Close this process's ends of the pipes."""
        if self.end_fd >= 0:
            end_fd, self.end_fd = self.end_fd, -1  # a child that is forked meanwhile must not close it again
            os.close(end_fd)
        self.leave()


def _pipe() -> Tuple[int, int]:
    """Return a pipe whose descriptors are not 0 to 2, also in a program that has closed some of those.

    In the process that is started those numbers are its standard streams, in place of what was inherited.
    """
    read_end, write_end = os.pipe()
    if min(read_end, write_end) > 2:
        return read_end, write_end
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    try:
        above = fcntl(read_end, F_DUPFD_CLOEXEC, 3)
        try:
            return above, fcntl(write_end, F_DUPFD_CLOEXEC, 3)
        except BaseException:
            os.close(above)
            raise
    finally:
        os.close(read_end)
        os.close(write_end)
