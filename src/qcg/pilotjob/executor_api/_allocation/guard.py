"""The guard: the process on the login node that asks for an allocation, watches it and ends it.

Its orders come as a line of JSON on standard input, and after that words of its client, a line each: ``renew``,
``goodbye`` (the manager was told to end), ``detach``. The end of standard input means that the client has gone. What it
sees goes to its client as lines of JSON::

    {"asked": id, "number": n}          the scheduler has taken it
    {"refused": why}                    it has not, or the allocation cannot serve; the guard ends
    {"queued": place, "expected": t,    it waits
     "reason": why}
    {"starting": host}                  the pilot runs
    {"waiting": {node: ready}}          as a manager's own process says it
    {"note": text}                      the same, for the user
    {"manager": description}            the manager takes requests
    {"lapsed": why}                     it has ended, and there will be another one when the client says ``renew``
    {"over": why}                       it has ended; the guard ends
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import shutil
import signal
import time
import traceback
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import psutil

from qcg.pilotjob.executor_api._allocation.refusals import in_our_words
from qcg.pilotjob.executor_api._allocation.scheduler import Scheduler, SubmitException
from qcg.pilotjob.executor_api._shared import python_process
from qcg.pilotjob.executor_api._shared.ownership import owner_of
from qcg.pilotjob.executor_api._shared.proc import STARTER
from qcg.pilotjob.executor_api._shared.run_files import PRESENCE, private, quoted, tail

__all__ = ["main"]

_LOOK_SECONDS = 0.1  # at the beginning, and before the manager is ready
_SLOWNESS = 20
_LONGEST_LOOK_SECONDS = 1.0  # what is looked at is in a file system that others use too
_QUEUE_SECONDS = 15.0  # between two questions for the place in the queue
_FIRST_LOOKS = {0: 0.0, 1: 2.0}  # at the very beginning a scheduler has not looked itself
_GOODBYE_SECONDS = 5.0  # for the manager to end by itself
_VERDICT_SECONDS = 60.0  # for the scheduler to say why the allocation has ended, beside what it takes to look
_KILL_SECONDS = 2.0
_BOOT = (
    python_process.PROTECT_IMPORTS + python_process.READ_ORDERS + "sys.path[:] = orders.pop('path') or sys.path; "
    "from qcg.pilotjob.executor_api._manager.pilot import main; main(orders)"
)


class _Refused(Exception):
    """The allocation cannot serve; the message says why, and what to do."""


class _ClientGone(Exception):
    """The client has ended, or wants the allocation no more."""


class _Detached(Exception):
    """The allocation goes on by itself."""


def main(orders: Dict[str, Any]) -> None:
    """Look after an allocation, and those that follow it, until all is over.

    `orders` holds ``directory`` (the run's), ``wanted`` (the fields of `Allocation`, with ``seconds`` for its
    walltime), ``pilot`` (what the pilot's orders have in common) and ``tell`` (a file descriptor).
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        # it ends with its client; what it starts must not inherit that a signal is ignored, as it would
        signal.signal(number, lambda *_: None)
    guard = _Guard(orders)
    try:
        guard.run()
    except _Refused as refusal:
        guard.tell(refused=str(refusal))
    except _ClientGone:
        guard.tell(over="it was given back")
    except _Detached:
        guard.tell(over="it was detached")
        os._exit(0)  # psij's threads would be waited for
    except BaseException as error:  # noqa: BLE001  # whatever it is: nobody else gives the allocation back
        traceback.print_exc()
        guard.tell(over=f"the process that looked after it failed ({error!r}), and gave it back")
    try:
        guard.give_back()
    finally:
        guard.clean_up()
    os._exit(0)


class _Guard:
    def __init__(self, orders: Dict[str, Any]) -> None:
        self._directory = Path(orders["directory"])
        self._wanted: Dict[str, Any] = orders["wanted"]
        self._pilot_orders: Dict[str, Any] = orders["pilot"]
        self._tell_fd: int = orders["tell"]
        self._number = 0
        self._file_number = len(list(self._directory.glob("pilot.*.jsonl")))  # of an interrupted run there are some
        self._pilot: Dict[str, Any] = {}
        self._words: List[str] = []
        self._unread = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(0, selectors.EVENT_READ)
        self._scheduler = Scheduler(self._wanted["scheduler"], self._directory / "psij", self._wanted["poll"])

    def tell(self, **news: Any) -> None:
        """Tell the client, if it is there."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._tell_fd, json.dumps(news).encode() + b"\n")

    def run(self) -> None:
        """Have one allocation after the other."""
        for left in range(self._wanted["renew"], -1, -1):
            self._ask()
            self._await_begin()
            self._await_manager()
            why = self._await_end()
            if left:
                self.tell(lapsed=why)
                self._await_word("renew")
        self.tell(over=why)

    # ---- one allocation

    def _ask(self) -> None:
        self._number += 1
        self._file_number += 1
        self._pilot = {}
        orders = self._directory / f"pilot.{self._file_number}.json"
        arguments = list(self._pilot_orders["arguments"])
        if self._number > 1 and "--resume" not in arguments:
            arguments += ["--resume", str(self._directory)]
        _write_private(orders, json.dumps({**self._pilot_orders, "arguments": arguments, "said": str(self._said)}))
        files = {"wd": self._directory.parent, "out": self._out}
        if self._wanted["setup"]:
            files["setup"] = self._directory / "setup.sh"
            _write_private(files["setup"], self._wanted["setup"] + "\n")
        command = [self._wanted["python"], "-c", _BOOT, str(orders), str(owner_of(orders))]
        try:
            number = self._scheduler.submit(command, self._wanted, files)
        except SubmitException as error:
            raise _Refused(in_our_words(str(error), self._wanted)) from error
        self.tell(asked=number, number=self._number)

    @property
    def _said(self) -> Path:
        return self._directory / f"pilot.{self._file_number}.jsonl"

    @property
    def _out(self) -> Path:
        return self._directory / f"pilot.{self._file_number}.out"

    def _await_begin(self) -> None:
        """Wait in the queue."""
        limit = self._wanted["queue_timeout"]
        deadline = time.monotonic() + limit if limit is not None else float("inf")
        looks, begin = 0, time.monotonic()
        while self._scheduler.waits and not _is_there(self._said, unknown=False):
            if time.monotonic() - begin > _FIRST_LOOKS.get(looks, looks * _QUEUE_SECONDS):
                looks += 1
                place, expected, why = self._scheduler.place_in_queue(self._wanted["queue"])
                self.tell(queued=place, expected=None if expected is None else expected.isoformat(), reason=why)
            if time.monotonic() > deadline:
                raise _Refused(
                    f"it was still in the queue after {limit:g} s (queue_timeout), and was taken back; ask for less, "
                    "for another queue, or wait longer"
                )
            self._listen(since=begin)

    def _await_manager(self) -> None:
        """Wait until the pilot has said that its manager is ready."""
        deadline = time.monotonic() + self._wanted["start_timeout"]
        for line in self._lines_of_pilot():
            if line is None:
                if self._scheduler.has_ended():
                    raise _Refused(self._why_not_begun())
                if time.monotonic() > deadline:
                    raise _Refused(self._why_silent())
                self._listen()
            elif "pilot" in line:
                self._pilot = line["pilot"]
                self.tell(starting=self._pilot["host"])
            elif "waiting" in line:
                self.tell(waiting=line["waiting"])
            elif "note" in line:
                self.tell(note=line["note"])
            elif "unusable" in line:
                raise _Refused(f"the manager cannot use allocation {self._scheduler.name}: {line['unusable']}")
            elif "refused" in line or "error" in line:
                why = line.get("refused") or line["error"]
                raise _Refused(f"the manager did not start there: {why}{self._tail()}\n  next: {self._advice(why)}")
            else:
                self.tell(manager=line)
                return

    def _lines_of_pilot(self) -> Iterator[Optional[Dict[str, Any]]]:
        """Yield what the pilot says, and None whenever it has said nothing more."""
        read, unread = 0, b""
        while True:
            with contextlib.suppress(OSError):  # not there yet, or not to be read just now; `start_timeout` ends it
                os.listdir(self._directory)  # a network file system looks anew then
                with self._said.open("rb") as file:
                    file.seek(read)
                    new = file.read()
                read += len(new)
                *lines, unread = (unread + new).split(b"\n")
                for line in lines:
                    yield json.loads(line)
            yield None

    def _await_end(self) -> str:
        """Return why the allocation, or the manager in it, has ended."""
        presence, begin = self._directory / PRESENCE, time.monotonic()
        while not self._scheduler.has_ended() and _is_there(presence, unknown=True):
            self._listen(since=begin)
        if not self._scheduler.has_ended():  # the manager has ended by itself; the scheduler may know why
            deadline = time.monotonic() + _VERDICT_SECONDS + self._wanted["poll"]
            next_look = 0.0
            while not self._scheduler.has_ended() and time.monotonic() < deadline:
                if time.monotonic() > next_look:
                    self._scheduler.look()
                    next_look = time.monotonic() + _LONGEST_LOOK_SECONDS
                self._listen()
        last_words = [line["ending"] for line in _lines(self._said) if "ending" in line]
        self.give_back()
        name = f"allocation {self._scheduler.name}"
        said = f"; its manager's last words: {last_words[-1]}" if last_words else ""
        return f"{name} on {self._pilot.get('host')} has ended: {self._scheduler.verdict}{said}"

    def _why_not_begun(self) -> str:
        said = tail(self._out, 15) or self._said_by_script()
        return (
            f"allocation {self._scheduler.name} ended before the manager was ready: {self._scheduler.verdict}"
            f"{quoted(said)}\n  next: {self._advice(said)}"
        )

    def _advice(self, said: str) -> str:
        """Return what to do about a manager that has not started, from what its process has said."""
        python = self._wanted["python"]
        if "ModuleNotFoundError" in said or "ImportError" in said:
            return (
                f"{python} on the node cannot import this package, or what it needs; install it there, or give python= "
                "or setup= (like 'module load' or 'source .../activate') to Allocation"
            )
        if "No such file" in said or "not found" in said:
            return (
                f"{python} is not on the node; give python= to Allocation, or setup= that brings one, or use an "
                "environment in a file system that the nodes share"
            )
        if not self._said.exists() and not said:
            return (
                f"nothing of it appeared in {self._directory}: see that the nodes share that file system, and give "
                "another wd= if they do not"
            )
        return f"read {self._out}"

    def _said_by_script(self) -> str:
        return "\n".join(tail(path, 15) for path in self._directory.glob(f"psij/*/{self._scheduler.name}.out"))

    def _why_silent(self) -> str:
        begun = f"the manager in allocation {self._scheduler.name} was not ready within "
        limit = f"{self._wanted['start_timeout']:g} s (start_timeout)"
        if self._said.exists():
            return f"{begun}{limit}{self._tail()}\n  next: read {self._directory / 'service.log'}"
        return (
            f"{begun}{limit}, and nothing of it appeared in {self._directory}\n  next: see that the nodes share that "
            "file system, and give another wd= if they do not"
        )

    def _tail(self) -> str:
        return quoted(tail(self._out, 15))

    # ---- the client

    def _listen(self, *, since: float = math.inf) -> None:
        """Wait a moment, in which the client may say something; a longer one when all has been the same `since`."""
        moment = (time.monotonic() - since) / _SLOWNESS
        if not self._selector.select(min(max(moment, _LOOK_SECONDS), _LONGEST_LOOK_SECONDS)):
            return
        read = os.read(0, 4096)
        *words, self._unread = (self._unread + read).split(b"\n")
        self._words += [word.decode() for word in words]
        if "detach" in self._words:
            raise _Detached
        if "goodbye" in self._words:
            self._await_farewell()
            raise _ClientGone
        if not read:
            raise _ClientGone

    def _await_word(self, word: str) -> None:
        while word not in self._words:
            self._listen()
        self._words.remove(word)

    def _await_farewell(self) -> None:
        """Wait until the manager, which was told to end, has gone; jobs may take as long as they like."""
        presence = self._directory / PRESENCE
        while _is_there(presence, unknown=True) and not self._scheduler.has_ended():
            if self._selector.select(_LOOK_SECONDS) and not os.read(0, 4096):
                return

    def give_back(self) -> None:
        """End the allocation."""
        if self._wanted["scheduler"] == "local":
            self._end_local_pilot()
        with contextlib.suppress(SubmitException, KeyError):  # it has ended meanwhile; psij's local one forgets it then
            self._scheduler.cancel()

    def clean_up(self) -> None:
        """Remove psij's files: all its allocations need the scripts among them."""
        shutil.rmtree(self._directory / "psij", ignore_errors=True)

    def _end_local_pilot(self) -> None:
        """Wait until the manager of a local allocation has ended: psij would kill it."""
        left = psutil.Process().children(recursive=True)
        os.killpg(0, signal.SIGTERM)  # it is in this process's group, and so is what it is forking just now
        for process in psutil.wait_procs(left, _KILL_SECONDS)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() != STARTER:  # it clears up behind its manager, and ends then
                    process.kill()


def _is_there(path: Path, *, unknown: bool) -> bool:
    """Return whether a file exists; `unknown` when a shared file system cannot tell at the moment."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return unknown
    return True


def _lines(path: Path) -> List[Dict[str, Any]]:
    with contextlib.suppress(OSError):
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    return []


def _write_private(path: Path, text: str) -> None:
    with open(path, "w", opener=private) as file:
        file.write(text)
