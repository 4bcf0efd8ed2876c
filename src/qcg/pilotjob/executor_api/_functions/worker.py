"""A worker: takes calls from the hub, one after the other, and answers each."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections import deque
from typing import Any, Deque, Dict, List, Sequence, Tuple

import zmq

from qcg.pilotjob.executor_api._functions import messages, pickling
from qcg.pilotjob.executor_api._functions.tracebacks import said, told

__all__ = ["main"]

_RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
_REACH_MILLISECONDS = 30_000
_HELD_SECONDS = 0.001
_LINGER_MILLISECONDS = 60_000  # in which the last answer has to be taken


def main(orders: Dict[str, Any], number: int) -> None:
    """Serve as the worker of that number until the hub says that it is enough.

    `orders` holds ``address``, ``key`` (the hub's, for an encrypted connection; empty for none), ``token`` (what shows
    that this is a worker of it), ``ranks`` (how many processes a worker has), ``shared`` (whether the hub can get at
    this process's memory) and ``notes`` (the beginning of the path where it notes what it has begun, empty when it gets
    one call at a time).
    """
    messages.use_cloudpickle()
    rank = _rank() if orders["ranks"] > 1 else 0
    notes = _opened(f"{orders['notes']}.{number}") if orders["notes"] else -1  # the hub may write there after HELLO
    context = zmq.Context()
    hello = {"worker": number, "rank": rank, "python": sys.version_info[:2]}
    hub = _connected(context, orders, messages.HELLO, hello)
    if not hub.poll(_REACH_MILLISECONDS):
        sys.exit(
            f"the program that this worker belongs to cannot be reached at {orders['address']} from "
            f"{os.uname().nodename}: is the port blocked, or its name unknown here?"
        )
    name = f"rank {rank} of {orders['ranks']} on node {os.uname().nodename}" if orders["ranks"] > 1 else ""
    worker = _Worker(hub, notes, shares_memory=orders["shared"], name=name)
    if orders["notes"]:
        control = _connected(context, orders, messages.CONTROL, hello)
        threading.Thread(target=worker.give_back, args=(control,), daemon=True).start()
    worker.serve()
    hub.close()


def _opened(path: str) -> int:
    """Return the file where a worker notes what it has begun: when the process dies, nobody else knows."""
    notes = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(notes, bytes(messages.HOLD + 1))
    return notes


def _connected(context: Any, orders: Dict[str, Any], what: bytes, hello: Dict[str, Any]) -> "zmq.Socket[bytes]":
    hub: "zmq.Socket[bytes]" = context.socket(zmq.DEALER)
    hub.setsockopt(zmq.LINGER, _LINGER_MILLISECONDS)
    if orders["key"]:
        hub.curve_publickey, hub.curve_secretkey = zmq.curve_keypair()
        hub.curve_serverkey = orders["key"].encode()
    hub.connect(orders["address"])
    hub.send_multipart([what, orders["token"].encode(), json.dumps(hello).encode()])
    return hub


class _Worker:
    """Makes calls in the main thread; another one gives back those that have not begun, when the hub asks for them."""

    def __init__(self, hub: "zmq.Socket[bytes]", notes: int, *, shares_memory: bool, name: str) -> None:
        """`notes` is the file for what has begun, -1 when there is none; `name` tells a rank of MPI from the others."""
        self._hub = hub
        self._name = name
        self._shares_memory = shares_memory
        self._sent: List[messages.Parcel] = []
        self._lock = threading.Lock()
        self._waiting: Deque[Any] = deque()
        self._notes = notes
        self._message = 0
        self._files = _file_behind(1), _file_behind(2)
        self._written = self._places()

    def serve(self) -> None:
        """Make calls until the hub says that it is enough."""
        while True:
            what, *frames = self._hub.recv_multipart(copy=False)
            self._sent.clear()  # the hub has taken all answers before it sends more
            if what.bytes == messages.END:
                return
            if what.bytes == messages.CALLS:
                self._message += 1
                calls = list(messages.cut(frames))
                with self._lock:
                    self._waiting.extend(calls)
                self._make_all(notes=len(calls) > 1)
                del frames, calls  # nothing of a call is kept for the next one

    def give_back(self, control: "zmq.Socket[bytes]") -> None:
        """Give back what has not begun, whenever the hub asks."""
        while True:
            if control.recv_multipart()[0] == messages.TAKE_BACK:
                with self._lock:
                    count = len(self._waiting)
                    self._waiting.clear()
                control.send_multipart([messages.TAKEN_BACK, str(count).encode()])

    def _make_all(self, *, notes: bool) -> None:
        begun = 0
        while True:
            with self._lock:
                if not self._waiting:
                    return
                call = self._waiting.popleft()
                begun += 1
                if notes and self._notes >= 0:
                    os.pwrite(self._notes, messages.BEGUN.pack(self._message, begun), 0)
            if notes:
                self._wait_while_held()
            self._make(call)

    def _wait_while_held(self) -> None:
        """Wait as long as the hub wants no other call to begin: it ends this process, perhaps, over the last one.

        What has begun is noted before. So either this sees that it is to wait, or the hub sees that the call has begun.
        """
        while self._notes >= 0 and os.pread(self._notes, 1, messages.HOLD) == b"\1":
            time.sleep(_HELD_SECONDS)

    def _make(self, call: Sequence["zmq.Frame"]) -> None:
        began = time.perf_counter()
        kind, words, parcel = _answer(call, shared=self._shares_memory, rank=self._name)
        seconds = time.perf_counter() - began
        for name in ("stdout", "stderr"):
            _flush(name)
        before, self._written = self._written, self._places()
        figures = messages.FIGURES.pack(seconds, before[0], self._written[0], before[1], self._written[1])
        self._hub.send_multipart([kind, figures, words, *parcel.frames], copy=False)
        self._sent.append(parcel)

    def _places(self) -> Tuple[int, int]:
        """Return how much standard output and error have so far, -1 for what is not the file that it was."""
        return _place_in(1, self._files[0]), _place_in(2, self._files[1])


def _answer(call: Sequence["zmq.Frame"], *, shared: bool, rank: str) -> Tuple[bytes, bytes, messages.Parcel]:
    stage = "arguments"
    try:
        *_, function, arguments, keywords = messages.unpacked(call)  # the first may be what changes the path
        stage = "call"
        result = function(*arguments, **keywords)
        stage = "result"
        return messages.DONE, b"", messages.packed(result, shared=shared)
    except BaseException as error:  # noqa: BLE001  # also SystemExit: the call has ended, not the worker
        words = json.dumps({"stage": stage, "rank": rank, **told(error, pickling.received_files)}).encode()
        try:
            return messages.RAISED, words, messages.packed(error, shared=shared)
        except BaseException:  # noqa: BLE001  # it cannot be pickled, in whatever way: the words have to do
            return messages.RAISED, words, messages.Parcel()


def _flush(name: str) -> None:
    """Flush a standard stream, or what a function has left in its place; the call has its answer even if that fails."""
    try:
        getattr(sys, name).flush()
    except (AttributeError, ValueError):
        return  # the function has closed it, or has put something else there
    except BaseException as error:  # noqa: BLE001  # a full disk, or the code of somebody's class
        with contextlib.suppress(OSError):  # then there is nowhere to say it
            os.write(2, f"sys.{name} could not be flushed: {said(repr, error)}\n".encode(errors="backslashreplace"))


def _rank() -> int:
    for name in _RANKS:
        if name in os.environ:
            return int(os.environ[name])
    raise SystemExit("which rank of its MPI job this is cannot be told: none of " + ", ".join(_RANKS) + " is set")


def _file_behind(descriptor: int) -> Tuple[int, int]:
    """Return what tells the open file of a descriptor from others, zeros when there is none."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _place_in(descriptor: int, file: Tuple[int, int]) -> int:
    """Return where writing to `file` by a descriptor goes on, -1 when that is another file now, or can only be written.

    A function may have closed or redirected the descriptor.
    """
    if _file_behind(descriptor) != file:
        return -1
    try:
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        return -1
