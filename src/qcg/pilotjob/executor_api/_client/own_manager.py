"""The manager process of an executor, seen from the client: its start, its directories, its end.

The client keeps two pipes to it. The manager's standard input carries its orders and is then the lifeline: its end
tells the manager that the client has gone, however it went. The other one brings a line when the manager is ready, and
before it some on what it waits for when that takes long; its end tells the client that the manager has gone.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

from qcg.pilotjob.executor_api._client.options import value_of, working_directory
from qcg.pilotjob.executor_api._shared import python_process
from qcg.pilotjob.executor_api._shared.proc import STARTER, kill_jobs_of, lives
from qcg.pilotjob.executor_api._shared.run_files import Directories, make_directories, private, tail
from qcg.pilotjob.executor_api._shared.texts import end_text
from qcg.pilotjob.executor_api.errors import ManagerDied, ManagerStartError

__all__ = ["ManagerProcess", "PipedProcess", "limit_agents", "made_directories"]


class PipedProcess:
    """Holds such a process. Its standard input ends when this process does; what it says is read from `end_fd`.

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
        """Close the process's standard input, which tells it that nothing more is wanted."""
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


_ABORT_SECONDS = 1.5
_STARTER_SECONDS = 1.0
_MOST_NAMES = 8  # of nodes in one line


class ManagerProcess:
    """A manager process of our own. Belongs to the thread that started it, and then to the dispatcher's."""

    def __init__(self, arguments: Sequence[str], timeout: float, orders: Mapping[str, Any]) -> None:
        """Start the process; `await_ready` has to follow. `orders` are those that are no argument of the core's.

        Raises:
            ManagerStartError: it cannot be started.
            OSError: the working directory cannot be made.
        """
        python_process.interpreter()  # where there is none, no directory is made
        arguments = list(arguments)
        limit_agents(arguments, timeout)
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self.directories = made_directories(arguments)
        self._said_before = _size(self.directories.output)
        self._piped = PipedProcess(
            python_process.command("_manager.__main__", "qcgpj-manager", *arguments),
            {**orders, "arguments": arguments},
            "ready",
            self.directories.output,
            shows="--show-progress" in arguments,
        )
        self._sockets = ""  # the manager makes it, and tells when it is ready
        self._said = b""  # and not looked at yet
        self.pid = self._piped.pid
        self.description: Dict[str, Any] = {}

    @property
    def end_fd(self) -> int:
        """The pipe whose end is that of the process."""
        return self._piped.end_fd

    def await_ready(self) -> None:
        """Wait until the manager takes requests; then its `description` of itself is known.

        Raises:
            ManagerStartError: it ended before, or was not ready in time; then nothing of it is left.
        """
        try:
            description = self._first_answer()
            if "refused" in description:
                raise ManagerStartError(f"{self.directories.aux} cannot be resumed: {description['refused']}")
            if "unusable" in description:
                raise ManagerStartError(
                    "the manager process cannot use the Slurm allocation that this program runs in: "
                    f"{description['unusable']}\n  log:  {self.directories.log}"
                )
            if "error" in description:
                raise self._not_started(description["error"])
        except BaseException:
            self._abort()
            raise
        self._sockets = description["sockets"]
        self.description = description

    def _first_answer(self) -> Dict[str, Any]:
        import json

        for line in self._lines():
            answer: Dict[str, Any] = json.loads(line)
            if "waiting" in answer:
                _say(_waiting_for(answer["waiting"]))
            elif "note" in answer:
                _say(answer["note"])
            else:
                return answer
        raise AssertionError("no end of lines but an answer or an exception")

    def _lines(self) -> Iterator[bytes]:
        with selectors.DefaultSelector() as selector:
            selector.register(self.end_fd, selectors.EVENT_READ)
            while True:
                line, newline, rest = self._said.partition(b"\n")
                if newline:
                    self._said = rest
                    yield line
                    continue
                if not selector.select(max(0.0, self._deadline - time.monotonic())):
                    raise self._not_started(f"it was not ready within {self._timeout:g} s (start_timeout)")
                if not self.hear():
                    raise self._not_started("it ended")

    def hear(self) -> bool:
        """Read what the process says through `end_fd`; return False when it has ended."""
        said = os.read(self.end_fd, 65536)
        self._said += said
        return bool(said)

    @property
    def reason(self) -> str:
        """Why it has ended all jobs and itself, in its words: that of an end for which its client has not asked."""
        import json

        said = [json.loads(line) for line in self._said.split(b"\n")[:-1]]
        return next((str(words["ending"]) for words in said if "ending" in words), "")

    def _not_started(self, reason: str) -> ManagerStartError:
        said = tail(self.directories.output, 15, since=self._said_before)
        return ManagerStartError(
            f"the manager process did not start: {reason}\n"
            + "".join(f"  | {line}\n" for line in said.splitlines())
            + f"  log:  {self.directories.log}\n"
            + f"  next: read {self.directories.output}, which has all that was said"
        )

    def wait(self, timeout: float) -> bool:
        """Wait for the end of the process; return whether it came."""
        return self._piped.wait(timeout)

    def obituary(self) -> ManagerDied:
        """Return the exception that tells how the process ended, once it is collected."""
        code = self._piped.exit_code()
        ending = end_text(code)
        if self.reason:
            ending = f"ended because {self.reason}" if code >= 0 else f"{ending} while it ended because {self.reason}"
        return ManagerDied(
            f"the manager process {self.pid} {ending}; jobs that had not ended were ended with it\n"
            f"  log:  {self.directories.log}\n"
            f"  next: read its end; jobs that have ended are in {self.directories.report}; an executor with "
            f"resume={self.directories.aux!r} runs the others"
        )

    def farewell(self) -> None:
        """Do nothing: the end of a process that was told to end is noticed."""

    def _abort(self) -> None:
        """End a manager that is starting: it removes what it has made, when it is given the time."""
        self._piped.leave()
        if not self.wait(_ABORT_SECONDS):
            self._piped.kill()
        self.clean_up()

    def kill(self) -> None:
        """End the process and every job of it at once."""
        self._piped.kill()
        self.clean_up()

    def clean_up(self) -> None:
        """Collect the ended process, and remove what it could not: jobs that outlived it, sockets."""
        failed = self._piped.exit_code() != 0
        self.close_descriptors()
        if self._sockets and failed:
            self._await_starter()
            kill_jobs_of(self._sockets)
        if os.path.exists(self._sockets):
            _remove(self._sockets)

    def _await_starter(self) -> None:
        """Wait a moment for what the manager has left: it ends its jobs and itself; kill it if it does not."""
        deadline = time.monotonic() + _STARTER_SECONDS
        while lives(self.description["starter"], STARTER):
            time.sleep(0.002)
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.description["starter"], signal.SIGKILL)
                return

    def close_descriptors(self) -> None:
        """Close this process's ends of the pipes."""
        self._piped.close_descriptors()


def limit_agents(arguments: List[str], timeout: float) -> None:
    """Give the agents of an allocation less time to start than the manager, which then tells which are not ready."""
    if not value_of("--nl-init-timeout", arguments):
        timeout = min(timeout, 1e6)
        # a file system that delays the agents delays the manager, too, which starts them when it has started itself
        arguments += ["--nl-init-timeout", str(max(1, int(min(timeout - 1, 0.9 * timeout))))]


def made_directories(arguments: List[str]) -> Directories:
    """Make the manager's directory; an ``--id`` is appended to `arguments` when there is none."""
    name = value_of("--id", arguments)
    if not name:
        name = f"{os.uname().nodename}.{os.urandom(4).hex()}"
        arguments += ["--id", name]
    return make_directories(
        working_directory(value_of("--wd", arguments)),
        name,
        value_of("--report-file", arguments),
        resumed=bool(value_of("--resume", arguments)),
    )


def _waiting_for(ready: Mapping[str, bool]) -> str:
    missing = [name for name, is_ready in ready.items() if not is_ready]
    shown = ", ".join(missing[:_MOST_NAMES])
    more = f" and {len(missing) - _MOST_NAMES} more" if len(missing) > _MOST_NAMES else ""
    nodes = "1 node" if len(ready) == 1 else f"{len(ready)} nodes"
    return f"waiting for the agents of {nodes}: {len(ready) - len(missing)} ready, not yet {shown}{more}"


def _say(words: str) -> None:
    """Tell the user: here, since the manager's own standard error is a file."""
    with contextlib.suppress(OSError, ValueError):  # a standard error that is closed is no reason not to start
        if sys.stderr is not None:
            print(f"qcgpj: {words}", file=sys.stderr, flush=True)


def _size(path: str) -> int:
    with contextlib.suppress(FileNotFoundError):
        return os.path.getsize(path)
    return 0


def _remove(sockets: str) -> None:
    """Remove the directory of a manager that could not do so itself."""
    import shutil  # half a dozen modules, which need not delay the end of all others

    shutil.rmtree(sockets, ignore_errors=True)
