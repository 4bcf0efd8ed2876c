"""The starter: a process beside the manager, or an agent, that starts the jobs' processes and waits for their ends.

::

    manager (or agent)                 starter, forked from it before anything else is there
    ------------------                 --------------------------------------------------------------------
    StarterLink ---- orders ---------> main thread -- _orders --> threads, one for each process that runs:
                                              |                   start, tell, wait, tell ...
                                              +---- _ready -----> ... and start what is ready for the same cores
                <--- what became of them --------------------------+

A start keeps its thread waiting for half a millisecond, and for much longer where a file system is slow; here that
keeps nobody else waiting, least of all the manager, whose Python would have to share one lock with these threads. And
between the end of a short job and the start of the next one no core has to wait until the manager has done its books:
what is ready (see `ahead`) starts at once.

What it starts are its children until one of both ends: then they are the manager's, which is a subreaper. When the
manager has gone without a word, the starter kills what it has started, and removes the manager's sockets.

To the starter: ``(SOCKETS, directory)``, which is removed when the manager has gone, and by which whoever takes up the
run finds what both have left (see `earlier`); ``(RUN, number, kind, *order)``;
``(READY, number, kind, *order)``, which waits for a process of the same kind to end, or for ``(NOW, number)``;
``(TAKE_BACK, 0)`` asks for all that is ready, and after ``(KEEP, number)`` nothing starts on the cores of that one;
``(GIVE_UP, number)`` ends a start that has not returned.
From it: ``(STARTED, number, pid, when)`` or ``(FAILED, number, reason, exit code, what it blames, next)``, and
``(ENDED, number, exit code, is something left, when, next)``; `next` is the number of what is started on the same
cores, or 0. ``(TAKEN_BACK, numbers)`` are not started any more, ``(WAITS, number)`` will be when there is room again
for a process.

A start may hang, in opening a file or in looking for one. Then the thread hangs, or a child of it that is no program
yet. The child can be killed; of the thread nobody waits for the return, and whatever it then finds to do, it does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import marshal
import os
import queue
import select
import shutil
import signal
import socket
import struct
import threading
import time
from collections import deque
from typing import Any, Deque, Dict, Iterator, Mapping, Optional, Set, Tuple

from qcg.pilotjob.executor_api._processes.spawning import NODE, NOT_EXECUTABLE, CannotStart, Order, Spawner
from qcg.pilotjob.executor_api._shared import times
from qcg.pilotjob.executor_api._shared.proc import (
    STARTER,
    kill_children,
    kill_children_of_thread,
    kill_jobs_of,
    mark_starter,
)

__all__ = ["Frames", "fork_starter"]

SOCKETS, RUN, READY, NOW, TAKE_BACK, KEEP = "sockets", "run", "ready", "now", "take back", "keep"
GIVE_UP = "give up"
STARTED, FAILED, ENDED, TAKEN_BACK, WAITS = "started", "failed", "ended", "taken back", "waits"
_PR_SET_NAME, _PR_GET_NAME = 15, 16
_LONGEST_START = 5.0  # seconds for one that is killed within its start, which a file system may hold up
_GIVE_UP_SECONDS = 1.0  # for one that is killed because it was given up
_LOOK_SECONDS = 0.005
_LACK_SECONDS = 60.0  # in which no start succeeds, for lack of processes, memory or descriptors
_AGAIN_SECONDS = 0.05  # between one try and the next, while there is a lack
_STACK_BYTES = 256 * 1024  # of a thread, of which there is one a running process
_LENGTH = struct.Struct("=I")

_logger = logging.getLogger(__name__)
_Task = Tuple[int, int, Order]  # its number, its kind, and what is to be started


def fork_starter(environment: Mapping[str, str], *, umask: int) -> Tuple[int, socket.socket]:
    """Fork the starter, and return its process id and the connection to it. No thread may run yet.

    `environment` is what the orders' environments differ from, `umask` that of what is started.
    """
    ours, theirs = socket.socketpair()
    pid = _fork_as(STARTER.encode())
    if pid:
        theirs.close()
        return pid, ours
    try:
        os.umask(umask)
        os.setsid()  # whoever kills the manager's group does not reach it
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # it ends with the manager; its jobs do not inherit a handler
        _close_all_but(theirs.fileno())
        gc.freeze()
        gc.enable()
        threading.stack_size(_STACK_BYTES)
        _Starter(theirs, environment).run()
    except BaseException:
        _logger.exception("the process that starts jobs fails")
    finally:
        os._exit(1)


def _fork_as(name: bytes) -> int:
    """Fork a child that has its name from the beginning: whoever looks at it knows it."""
    prctl = ctypes.CDLL(None).prctl
    ours = ctypes.create_string_buffer(16)
    prctl(_PR_GET_NAME, ours, 0, 0, 0)
    prctl(_PR_SET_NAME, name, 0, 0, 0)
    pid = os.fork()
    if pid:
        prctl(_PR_SET_NAME, ours, 0, 0, 0)
    return pid


class Frames:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._unread = b""

    @staticmethod
    def frame(message: Tuple[Any, ...]) -> bytes:
        """Return what a message is on the stream."""
        text = marshal.dumps(message)
        return _LENGTH.pack(len(text)) + text

    def messages(self, read: bytes) -> Iterator[Tuple[Any, ...]]:
        """Yield the messages that `read` completes."""
        unread, begin = self._unread + read, 0
        while len(unread) - begin >= _LENGTH.size:
            end = begin + _LENGTH.size + _LENGTH.unpack_from(unread, begin)[0]
            if end > len(unread):
                break
            yield marshal.loads(unread[begin + _LENGTH.size : end])
            begin = end
        self._unread = unread[begin:]


class _Starter:
    def __init__(self, connection: socket.socket, environment: Mapping[str, str]) -> None:
        self._connection = connection
        self._spawner = Spawner(environment)
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)  # notified when there may be room again for a process
        self._free = 0  # threads that wait for a task, less the tasks; below 0 threads are missing
        self._orders: "queue.SimpleQueue[_Task]" = queue.SimpleQueue()
        self._ready: Deque[_Task] = deque()
        self._running: Dict[int, int] = {}  # the numbers of what runs or is about to, with process ids, or 0
        self._starting: Dict[int, int] = {}  # the numbers of what is started just now, with the threads that do it
        self._given_up: Dict[int, float] = {}  # the numbers of starts that are not wanted any more, and since when
        self._gives_up = False  # whether a thread sees to those
        self._kept: Set[int] = set()
        self._last_success = time.monotonic()
        self._alone = False
        self._sockets = ""

    def run(self) -> None:
        """Serve until the manager has gone."""
        frames = Frames()
        with contextlib.suppress(ConnectionResetError):
            while True:
                self._add_threads()
                if self._free < 0 and not select.select([self._connection], [], [], _AGAIN_SECONDS)[0]:
                    continue
                read = self._connection.recv(65536)
                if not read:
                    break
                for message in frames.messages(read):
                    self._handle(*message)
        self._end_all()

    # ---- the main thread

    def _handle(self, what: str, number: Any, kind: int = 0, *order: Any) -> None:
        if what == SOCKETS:
            self._sockets = number
            mark_starter(number)
        elif what in (RUN, READY):
            task = (number, kind, Order(*order))
            if what == RUN:
                self._put(task)
            else:
                with self._lock:
                    self._ready.append(task)
        elif what == NOW:
            with self._lock:
                ready = self._take(number=number)
            if ready is not None:
                self._put(ready)
        elif what == KEEP:
            with self._lock:
                self._kept.update({number} & self._running.keys())
        elif what == GIVE_UP:
            self._give_up(number)
        else:
            with self._lock:
                self._tell(TAKEN_BACK, [task[0] for task in self._ready])
                self._ready.clear()

    def _put(self, task: _Task) -> None:
        with self._lock:
            self._running[task[0]] = 0
            self._free -= 1
        self._orders.put(task)
        self._add_threads()
        with self._lock:
            if self._free < 0 and self._running.get(task[0]) == 0:
                self._tell(WAITS, task[0])

    def _add_threads(self) -> None:
        """Start the threads that are missing, as far as that is possible; the tasks wait for what is missing then."""
        while self._free < 0:
            try:
                threading.Thread(target=self._work, daemon=True).start()
            except (RuntimeError, MemoryError) as error:
                self._fail_what_waits(error)
                return
            with self._lock:
                self._free += 1

    def _fail_what_waits(self, error: BaseException) -> None:
        """Fail what has no thread, when there has been no room for one for too long."""
        with self._lock:
            while self._free < 0 and time.monotonic() > self._last_success + _LACK_SECONDS:
                with contextlib.suppress(queue.Empty):
                    number = self._orders.get_nowait()[0]
                    self._forget(number, f"cannot start: {error}", blames=NODE)
                self._free += 1

    def _take(self, *, number: int = 0, kind: int = 0) -> Optional[_Task]:
        """Return what is ready and has that number, or is the first of that kind. The lock is held."""
        for task in self._ready:
            if number in (task[0], 0) and kind in (task[1], 0):
                self._ready.remove(task)
                return task
        return None

    def _end_all(self) -> None:
        with self._lock:
            self._alone = True
            self._ready.clear()
            running = [pid for pid in self._running.values() if pid]
        for pid in running:
            _kill_group(pid)
        self._kill_what_is_started_just_now()
        if self._sockets:
            kill_jobs_of(self._sockets)
            shutil.rmtree(self._sockets, ignore_errors=True)  # the client may be removing it too
        os._exit(0)

    def _kill_what_is_started_just_now(self) -> None:
        """Kill what nobody knows yet: it has neither a group nor an environment of its own before it is a program."""
        deadline = time.monotonic() + _LONGEST_START
        while time.monotonic() < deadline:
            with self._lock:
                is_starting = bool(self._starting)
            kill_children()
            if not is_starting:
                return
            time.sleep(0.001)

    # ---- starts that are not wanted any more

    def _give_up(self, number: int) -> None:
        with self._lock:
            if self._running.get(number) != 0:
                return  # it has started, or ended
            self._given_up[number] = time.monotonic()
            self._room.notify_all()
            if self._gives_up:
                return
            self._gives_up = True
        try:
            threading.Thread(target=self._kill_what_was_given_up, daemon=True).start()
        except (RuntimeError, MemoryError):
            self._kill_what_was_given_up()

    def _kill_what_was_given_up(self) -> None:
        """Kill the children that hang in their start; tell that it failed where that does not end it."""
        while True:
            with self._lock:
                for number, since in list(self._given_up.items()):
                    thread = self._starting.get(number)
                    if thread is not None:
                        kill_children_of_thread(thread)
                    if thread is None or time.monotonic() > since + _GIVE_UP_SECONDS:
                        self._forget(number, "it was ended before it had started")
                if not self._given_up:
                    self._gives_up = False
                    return
            time.sleep(_LOOK_SECONDS)

    def _forget(self, number: int, why: str, *, blames: str = "") -> None:
        """Tell that a start has failed, whatever comes of it. The lock is held."""
        self._given_up.pop(number, None)
        if self._running.pop(number, None) is not None:
            self._kept.discard(number)
            self._tell(FAILED, number, why, NOT_EXECUTABLE, blames, 0)

    def _is_wanted(self, number: int) -> bool:
        return not self._alone and number in self._running and number not in self._given_up

    # ---- the other threads

    def _work(self) -> None:
        try:
            while True:
                self._follow(self._orders.get())
        except BaseException:
            _logger.exception("a process can no longer be followed")
            os._exit(1)  # the manager is told by that

    def _follow(self, task: Optional[_Task]) -> None:
        """Start a process and wait for its end, and go on with the next one of its kind."""
        while task is not None:
            number, kind, order = task
            pid, failure = self._start(number, order)
            if failure is not None:
                task = self._go_on(number, kind, FAILED, str(failure), failure.exit_code, failure.blames)
                continue
            self._has_started(number, pid)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            ended = times.seconds()
            left = _lives(pid)
            task = self._go_on(number, 0 if left else kind, ENDED, code, left, ended)

    def _start(self, number: int, order: Order) -> Tuple[int, Optional[CannotStart]]:
        has_told = False
        while True:
            with self._lock:
                if not self._is_wanted(number):
                    return 0, CannotStart("it was ended before it had started")
                self._starting[number] = threading.get_native_id()
            try:
                pid = self._spawner.spawn(order, lambda: self._is_wanted(number))
            except CannotStart as error:
                failure = error
            except Exception as error:
                _logger.exception("%s was not started", order.command[0])
                failure = CannotStart(f"cannot start {order.command[0]!r}: {error}")
            else:
                self._last_success = time.monotonic()
                return pid, None
            finally:
                with self._lock:
                    del self._starting[number]
            if not failure.is_lack or time.monotonic() > self._last_success + _LACK_SECONDS:
                return 0, failure
            with self._lock:
                if not has_told:
                    self._tell(WAITS, number)
                    has_told = True
                if self._is_wanted(number):
                    self._room.wait(_AGAIN_SECONDS)

    def _has_started(self, number: int, pid: int) -> None:
        with self._lock:
            is_known = number in self._running
            if is_known:
                self._given_up.pop(number, None)
                self._running[number] = pid
                self._tell(STARTED, number, pid, times.seconds())
        if self._alone or not is_known:
            _kill_group(pid)

    def _go_on(self, number: int, kind: int, what: str, *how: Any) -> Optional[_Task]:
        """Return what is started next, and tell of it together with what has ended: it cannot be taken back then."""
        with self._lock:
            self._room.notify_all()
            self._given_up.pop(number, None)
            if self._running.pop(number, None) is None:  # it was told of before that it failed
                self._free += 1
                return None
            task = self._take(kind=kind) if kind and number not in self._kept else None
            self._kept.discard(number)
            if task is None:
                self._free += 1
            else:
                self._running[task[0]] = 0
            self._tell(what, number, *how, task[0] if task is not None else 0)
        return task

    def _tell(self, *news: Any) -> None:
        """Tell the manager. The lock is held."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the main thread is told too
            self._connection.sendall(Frames.frame(news))


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _close_all_but(kept: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != kept:
            with contextlib.suppress(OSError):  # that of the list itself
                os.close(int(name))
