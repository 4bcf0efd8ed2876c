"""The guard process and the allocation behind it, seen from the client: what stands where a manager process does."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import zmq

from qcg.pilotjob.executor_api._allocation.request import wanted
from qcg.pilotjob.executor_api._client.connection import Connection
from qcg.pilotjob.executor_api._client.ended_jobs import Report
from qcg.pilotjob.executor_api._client.kinds import MadeClient, connect_dispatcher, remote_client
from qcg.pilotjob.executor_api._client.links import UNKNOWN, OwnLink, Wire
from qcg.pilotjob.executor_api._client.options import value_of
from qcg.pilotjob.executor_api._client.own_manager import PipedProcess, limit_agents, made_directories
from qcg.pilotjob.executor_api._client.remote_channel import RemoteChannel
from qcg.pilotjob.executor_api._client.remote_dispatcher import AllocationDispatcher
from qcg.pilotjob.executor_api._shared import python_process
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.ownership import read_owned
from qcg.pilotjob.executor_api._shared.protocol import SUBMISSION
from qcg.pilotjob.executor_api._shared.run_files import (
    CANCELS,
    HANDOVER,
    KEYS,
    PRESENCE,
    Directories,
    private,
    quoted,
    tail,
)
from qcg.pilotjob.executor_api._shared.texts import end_text
from qcg.pilotjob.executor_api._shared.wakeup import Alarm
from qcg.pilotjob.executor_api.allocation import Allocation, AllocationStatus
from qcg.pilotjob.executor_api.errors import AllocationEnded, AllocationFailed, InvalidOption, ManagerDied
from qcg.pilotjob.executor_api.jobs import Capacity

__all__ = ["GuardProcess", "start_guards"]


_GUARD_SECONDS = 60.0  # for the guard's first word, which is the scheduler's
_ASKED_EXCLUSIVELY = ("pbs", "pbs_classic")  # psij asks these for one CPU of a node that nobody else gets
_END_SECONDS = 30.0  # for the guard to give the allocation back


class GuardProcess:
    """An allocation that is ours. Belongs to the thread that makes it, and then to the dispatcher's.

    Attributes:
        status: where the allocation stands; any thread may look.
        manager: the description of the manager that takes requests, None when there is none.
        has_lapsed: whether the next allocation is asked for when it is needed.
        reason: nothing; `obituary` tells it.
    """

    reason = ""

    def __init__(
        self, allocation: Allocation, asked_for: Dict[str, Any], arguments: Sequence[str], orders: Mapping[str, Any]
    ) -> None:
        """Start the guard; `await_ready` has to follow. `asked_for` is what is `wanted`, `arguments` the manager's.

        Raises:
            OSError: the working directory cannot be made.
        """
        self._allocation = allocation
        arguments = list(arguments)
        self.directories: Directories = made_directories(arguments)
        if asked_for["scheduler"] != "slurm" and allocation.cores_per_node is not None:
            arguments += ["--nodes", str(allocation.cores_per_node), "--envschema", "common"]
        limit_agents(arguments, allocation.start_timeout)
        keys = _make_keys(Path(self.directories.aux, KEYS))
        self.keys: Dict[str, Any] = keys["client"]
        self._keys_of_manager: Dict[str, Any] = keys["manager"]
        self.status = AllocationStatus()
        self.manager: Optional[Dict[str, Any]] = None
        self.has_lapsed = False
        self._last_sockets = ""  # of the latest manager
        self.on_change: Callable[[AllocationStatus], None] = lambda _: None
        self.reach_seconds = allocation.start_timeout
        self._unread = b""
        self._notes: List[str] = []
        self._why = ""
        self._refusal = ""
        self._seconds = asked_for["seconds"]
        self._spawn(asked_for, arguments, orders)

    def _spawn(self, asked_for: Dict[str, Any], arguments: Sequence[str], orders: Mapping[str, Any]) -> None:
        pilot = {
            **orders,
            "arguments": arguments,
            "exclusive": self._allocation.cores_per_node is None and asked_for["scheduler"] in _ASKED_EXCLUSIVELY,
            "rerun": self._allocation.rerun,
            "remote": {
                "keys": self._keys_of_manager,
                "silence": self._allocation.silence,
                "idle": self._allocation.idle,
            },
        }
        if self._allocation.python is None:
            pilot = python_process.with_path(pilot)
        else:
            pilot["path"] = None
        self._piped = PipedProcess(
            python_process.command("_allocation.guard", "qcgpj-guard", self.directories.aux),
            {"directory": self.directories.aux, "wanted": asked_for, "pilot": pilot},
            "tell",
            self.directories.output,
        )
        self.pid = self._piped.pid

    @property
    def end_fd(self) -> int:
        """The pipe whose end is that of the guard."""
        return self._piped.end_fd

    def await_ready(self) -> None:
        """Wait until the scheduler has taken or refused what is asked for.

        Raises:
            AllocationFailed: it was refused, or the guard does not run; then nothing of it is left.
        """
        deadline = time.monotonic() + _GUARD_SECONDS
        try:
            while self.status.state == "ASKED":
                if not zmq.zmq_poll([(self.end_fd, zmq.POLLIN)], max(0, int(1000 * (deadline - time.monotonic())))):
                    raise AllocationFailed(f"the scheduler was asked, and has not answered for {_GUARD_SECONDS:g} s")
                if not self.hear():
                    raise self.obituary()
            if self.status.state == "ENDED":
                raise self.obituary()
        except BaseException:
            self.kill()
            raise

    def expected_capacity(self, unknown: int) -> Capacity:
        """Return what jobs can have as far as that is known before there is a manager."""
        per_node = self._allocation.cores_per_node
        return Capacity(self._allocation.nodes, unknown if per_node is None else self._allocation.nodes * per_node)

    @property
    def description(self) -> Dict[str, Any]:
        """What the manager says of itself."""
        return self.manager or {}

    # ---- what the guard says

    def hear(self) -> bool:
        """Read what the guard says; return False when it has ended."""
        read = os.read(self.end_fd, 65536)
        *lines, self._unread = (self._unread + read).split(b"\n")
        for line in lines:
            self._heard(**json.loads(line))
        return bool(read)

    def _heard(self, **news: Any) -> None:
        changes: Dict[str, Any] = {}
        if "asked" in news:
            changes = {"state": "QUEUED", "id": news["asked"], "number": news["number"], "until": None, "message": ""}
        elif "queued" in news:
            expected = news["expected"]
            moment = expected and datetime.fromisoformat(expected)
            changes = {"position": news["queued"], "expected": moment, "message": news["reason"]}
        elif "starting" in news:
            until = datetime.now().astimezone() + timedelta(seconds=self._seconds)
            changes = {"state": "STARTING", "position": None, "expected": None, "until": until, "message": ""}
            self._notes = []
        elif "waiting" in news:
            changes = {"message": f"waiting for {sum(not ready for ready in news['waiting'].values())} nodes"}
        elif "note" in news:
            self._notes.append(news["note"])
            if sys.stderr is not None:
                print(f"qcgpj: {news['note']}", file=sys.stderr, flush=True)
        elif "manager" in news:
            self.manager = news["manager"]
            self._last_sockets = self.manager["sockets"]
            capacity = news["manager"]["capacity"]
            changes = {"state": "RUNNING", "nodes": capacity["nodes"], "cores": capacity["cores"]}
            changes["message"] = "; ".join(self._notes)
        elif "lapsed" in news:
            self.manager, self.has_lapsed, self._why = None, True, news["lapsed"]
            changes = {"state": "LAPSED", "nodes": None, "cores": None, "message": news["lapsed"]}
        elif "over" in news or "refused" in news:
            self._why, self._refusal = news.get("over", ""), news.get("refused", "")
            changes = {"state": "ENDED", "nodes": None, "cores": None, "message": self._why or self._refusal}
        self.status = replace(self.status, **changes)
        self.on_change(self.status)

    def heard(self) -> None:
        """Do nothing: the guard tells when the allocation ends."""

    def look(self) -> None:
        """Do nothing: the guard tells."""

    # ---- what the dispatcher does with a manager process

    def endpoint(self, what: str, host: str) -> str:
        """Return the address of the manager's ``requests`` or ``events``."""
        assert self.manager is not None
        port = self.manager["remote"][what]
        if self._allocation.tunnel is not None:
            host, port = self._allocation.tunnel(host, port)
        return f"tcp://{host}:{port}"

    def say(self, word: str) -> None:
        """Tell the guard, if it still listens."""
        self._piped.write(word.encode())

    def renew(self) -> None:
        """Ask for the next allocation."""
        self.has_lapsed = False
        self.say("renew")

    def farewell(self) -> None:
        """Tell the guard that the manager was told to end."""
        self.say("goodbye")

    def detach(self, jobs: Optional[Sequence[str]] = None) -> None:
        """Leave the allocation to itself, and `jobs` to its manager when that is not there yet."""
        if jobs is not None:
            path = Path(self.directories.aux, HANDOVER)
            with open(f"{path}.new", "w", opener=private) as file:
                json.dump([json.loads(f"[{several}]") for several in jobs], file)
            os.replace(f"{path}.new", path)
        self.say("detach")
        self.status = replace(self.status, state="DETACHED")

    @property
    def runs_nothing(self) -> bool:
        """Whether an allocation has ended and the next one has no manager yet, so that none of the jobs runs.

        A manager says that it is there before it looks at the files of the run.
        """
        if self.manager is not None:
            return False
        try:
            found = json.loads(read_owned(Path(self.directories.aux, PRESENCE)))
        except FileNotFoundError:
            return True
        except ValueError:  # it is being written
            return False
        return bool(found["sockets"] == self._last_sockets)

    def cancel(self, jobs: Mapping[str, int]) -> None:
        """Put on record, for the next manager, that jobs are cancelled; `jobs` has the numbers of their submissions.

        Raises:
            OSError: it cannot be written.
        """
        tasks = [{"task": name, **({} if number == 1 else {SUBMISSION: number})} for name, number in jobs.items()]
        with open(Path(self.directories.aux, CANCELS), "a", opener=private) as file:
            file.write("".join(f"{json.dumps(task)}\n" for task in tasks))

    def wait(self, timeout: float) -> bool:
        """Wait for the end of the guard; return whether it came."""
        return self._piped.wait(timeout)

    def obituary(self) -> ManagerDied:
        """Return the exception that tells how all ended, once the guard is collected."""
        code = self._piped.exit_code()
        if self._refusal:
            return AllocationFailed(self._refusal)
        why = f"{self._why}; jobs that had not ended were ended with it"
        if not self._why:
            why = (
                f"the process that looked after it {end_text(code)}; jobs that had not ended go on there for "
                f"{self._allocation.silence:g} s, and are ended then{quoted(tail(self.directories.output, 15))}"
            )
        return AllocationEnded(
            f"{why}\n"
            f"  log:  {self.directories.log}\n"
            f"  next: jobs that have ended are in {self.directories.report}; an executor with allocation= and "
            f"resume={self.directories.aux!r} runs the others; renew= goes on by itself"
        )

    def kill(self) -> None:
        """Give the allocation back."""
        self.clean_up()

    def clean_up(self) -> None:
        """Collect the guard, which gives the allocation back if it has not."""
        self._piped.leave()
        if not self.wait(_END_SECONDS):
            self._piped.kill()
            self.wait(_END_SECONDS)
        self.close_descriptors()

    def close_descriptors(self) -> None:
        """Close this process's ends of the pipes."""
        self._piped.close_descriptors()


class OwnAllocation(OwnLink):
    """The link to the manager that there will be in an allocation of this executor."""

    is_remote = True

    def __init__(self, guard: GuardProcess) -> None:
        report = Report(Path(guard.directories.report), interrupted=False)
        super().__init__(guard, guard.expected_capacity(UNKNOWN), report)
        self.guard = guard

    @override
    def channel(self, alarm: Alarm) -> Wire:
        return RemoteChannel(self.guard, alarm)


def connect_own_allocation(guard: GuardProcess) -> Connection:
    """Connect an executor to its allocation, when the scheduler has taken what is asked for.

    Raises:
        AllocationFailed: the scheduler refuses it.
    """
    guard.await_ready()
    return connect_dispatcher(AllocationDispatcher(OwnAllocation(guard), MadeClient(remote_client), guard))


def start_guards(allocation: Allocation, arguments: Sequence[str], orders: Mapping[str, Any]) -> List[GuardProcess]:
    """Return a guard for each allocation that is asked for.

    Raises:
        InvalidOption: the allocation has no meaning.
        ImportError: psij-python is not installed.
        OSError: the working directory cannot be made.
    """
    asked_for = wanted(allocation)
    count = asked_for["count"]
    directory = value_of("--wd", arguments)
    if re.search(r"[\s'\"$`\\]", directory):
        raise InvalidOption(f"wd is {directory!r}; for an allocation it has to be a path without blanks and quotes")
    if count > 1 and value_of("--resume", arguments):
        raise InvalidOption("resume= takes up one run, and count= makes several; leave count out")
    if count > 1 and value_of("--id", arguments):
        raise InvalidOption("--id stands beside count=; each allocation has a run with an id of its own")
    return [GuardProcess(allocation, asked_for, arguments, orders) for _ in range(count)]


def _make_keys(path: Path) -> Dict[str, Any]:
    """Make the keys of both sides, and keep them where only the user can read them; a resumed run has them."""
    if path.exists():
        return dict(json.loads(read_owned(path)))
    (public, secret), (client_public, client_secret) = zmq.curve_keypair(), zmq.curve_keypair()
    keys = {
        "manager": {"public": public.decode(), "secret": secret.decode(), "client": client_public.decode()},
        "client": {"public": client_public.decode(), "secret": client_secret.decode(), "manager": public.decode()},
    }
    with open(path, "x", opener=private) as file:
        json.dump(keys, file)
    return keys
