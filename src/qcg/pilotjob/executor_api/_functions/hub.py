"""The hub: one thread that sends calls to workers, and resolves their futures.

Any thread may leave a call or an end in `_inbox`; the rest belongs to the hub's thread, except what `_lock` protects:
which call is where, so that a call can be cancelled from any thread, and whether new ones are taken.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

import zmq

from qcg.pilotjob.executor_api._functions import messages
from qcg.pilotjob.executor_api._functions.answers import death_of, hello_in, resolve
from qcg.pilotjob.executor_api._functions.calls import Call, Needs, Worker
from qcg.pilotjob.executor_api._functions.future import FunctionFuture
from qcg.pilotjob.executor_api._functions.place import Place
from qcg.pilotjob.executor_api.call_errors import CallTimeout, WorkerDied
from qcg.pilotjob.executor_api.errors import ExecutorClosed, QCGPJError

__all__ = ["Hub"]

_END_SECONDS = 5.0  # for a worker to end by itself
_MOST_TOGETHER = 32  # calls that are sent in one
_TOGETHER_SECONDS = 0.005  # that they may take, if they take as long as others have
_PATIENCE_SECONDS = 0.05  # after which those that have not begun are asked back


class Hub:
    """Makes calls. Any thread may use it."""

    def __init__(self, submit: Callable[[Dict[str, Any]], Any], make_place: Callable[[], Place], needs: Needs) -> None:
        """`submit` submits the description of a job and returns its future."""
        self._submit = submit
        self._make_place = make_place
        self._needs = needs
        self._lock = threading.RLock()  # a pool may be collected, and so closed, wherever garbage is looked for
        self._calls: Deque[Call] = deque()
        self._inbox: Deque[Callable[[], None]] = deque()
        self._closed = False
        self._thread: Optional[threading.Thread] = None
        self._pid = os.getpid()
        self._wake_read, self._wake_write = -1, -1
        self._is_awake = False
        self._has_news = False
        self.on_end: Callable[[], None] = lambda: None
        # of the thread
        self._workers: Dict[int, Worker] = {}
        self._idle: Dict[int, Worker] = {}
        self._at: Dict[bytes, Tuple[Worker, int]] = {}
        self._last_number = 0
        self._has_served = False
        self._usual_seconds = 1.0  # of the latest calls
        self._unusable: Optional[BaseException] = None

    # ---- for all threads

    def make(self, call: Call) -> None:
        """Make a call, when a worker has time for it.

        Raises:
            ExecutorClosed: the pool is shut down.
        """
        if os.getpid() != self._pid:
            raise ExecutorClosed(f"this pool belongs to process {self._pid}; a forked child needs one of its own")
        with self._lock:
            if self._closed:
                raise ExecutorClosed("cannot schedule new futures after shutdown of the pool or of its executor")
            if self._thread is None:
                self._start()
            self._calls.append(call)
        self._wake()

    def close(self, *, cancel_pending: bool = False) -> None:
        """Take no more calls, and end when those that there are have been made."""
        if os.getpid() != self._pid:
            return  # a thread that the child does not have may hold the lock
        with self._lock:
            self._closed = True
        if cancel_pending and self._thread is not None:
            self._do(self._cancel_pending)
        else:
            self._wake()

    def abort(self) -> None:
        """Take no more calls, and cancel all; their workers are for the executor to end."""
        self.close()
        if self._thread is not None:
            self._do(self._cancel_all)

    def join(self) -> None:
        """Wait for the end."""
        thread = self._thread if os.getpid() == self._pid else None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    @property
    def most(self) -> int:
        """How many workers there may be."""
        return self._needs.most

    @property
    def has_ended(self) -> bool:
        """Whether it is closed and nothing is left to do."""
        return self._closed and (self._thread is None or not self._thread.is_alive())

    def cancel_running(self, future: FunctionFuture) -> bool:
        """Cancel a call that a worker has, and end that worker; return whether it came in time."""
        with self._lock:
            busy = [worker for worker in self._workers.values() if worker.calls and worker.calls[0].future is future]
            busy = [worker for worker in busy if self._claims(worker.calls[0])]
            for worker in busy:
                worker.is_ending = True
        for worker in busy:
            future._end_running()
            worker.job.cancel()
        return bool(busy)

    def _claims(self, call: Call) -> bool:
        """Whether it is for the caller to give the call's future its end: for the first that asks."""
        with self._lock:
            is_first, call.is_over = not call.is_over, True
        return is_first

    def _start(self) -> None:
        self._place = self._make_place()
        self._wake_read, self._wake_write = os.pipe()
        for descriptor in (self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
        self._thread = threading.Thread(target=self._run, name="qcgpj-functions", daemon=True)
        self._thread.start()

    def _do(self, what: Callable[[], None]) -> None:
        self._inbox.append(what)
        self._wake()

    def _wake(self) -> None:
        self._has_news = True
        if self._is_awake:
            return
        with self._lock, contextlib.suppress(BlockingIOError):  # it has been woken often enough
            if self._wake_write >= 0:
                os.write(self._wake_write, b"\0")

    # ---- the thread

    def _run(self) -> None:
        self._poller = zmq.Poller()
        self._poller.register(self._place.socket, zmq.POLLIN)
        self._poller.register(self._wake_read, zmq.POLLIN)
        try:
            while not self._is_done():
                self._round()
        except BaseException as error:
            self._break(error)
            raise
        finally:
            self._place.close()
            with self._lock:
                wake = (self._wake_read, self._wake_write)
                self._wake_read = self._wake_write = -1
            for descriptor in wake:
                os.close(descriptor)
            self.on_end()

    def _round(self) -> None:
        self._is_awake = False
        ready = dict(self._poller.poll(0 if self._has_news else self._patience()))
        self._is_awake = True
        self._has_news = False
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
        self._receive()
        while self._inbox:
            self._inbox.popleft()()
        self._look_at_clock()
        self._assign()
        self._start_workers()

    def _is_done(self) -> bool:
        with self._lock:
            return self._closed and not self._calls and not self._inbox and not self._workers

    def _patience(self) -> Optional[int]:
        times = [moment for worker in self._workers.values() for moment in (worker.end_at, worker.look_at)]
        ends = [moment for moment in times if moment is not None]
        return max(0, int(1000 * (min(ends) - time.monotonic())) + 1) if ends else None

    def _receive(self) -> None:
        while True:
            try:
                from_whom, *message = self._place.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            sender = from_whom.bytes
            if sender in self._at:
                self._heard(*self._at[sender], message)
            else:
                self._greet(sender, [frame.bytes for frame in message])

    def _greet(self, sender: bytes, message: List[bytes]) -> None:
        hello = hello_in(message, self._place.token)
        worker = self._workers.get(hello.get("worker", 0))
        if worker is None:
            return  # whoever this is, or a worker that was given up
        if message[0] == messages.CONTROL:
            worker.control = sender
            self._at[sender] = worker, -1
            return
        if hello["python"] != list(sys.version_info[:2]):
            theirs, ours = (".".join(map(str, version)) for version in (hello["python"], sys.version_info[:2]))
            self._give_up(
                WorkerDied(
                    f"workers run Python {theirs} and this program {ours}, so functions cannot go from one to the "
                    f"other; give python= or venv= with Python {ours}, or run this program with {theirs}"
                )
            )
            worker.job.cancel()
            return
        self._at[sender] = worker, hello["rank"]
        worker.ranks[hello["rank"]] = sender
        self._send(sender, messages.WELCOME)
        if len(worker.ranks) == self._needs.ranks:
            self._has_served = True
            self._rest(worker)

    def _rest(self, worker: Worker) -> None:
        worker.end_at, worker.look_at = time.monotonic() + self._needs.idle_seconds, None
        self._idle[worker.number] = worker

    def _assign(self) -> None:
        while self._idle and self._calls:
            calls = self._next_calls()
            if not calls:
                break
            _, worker = self._idle.popitem()
            with self._lock:
                worker.calls.extend(calls)
            worker.messages += 1
            worker.sent = len(calls)
            self._begins(worker)
            frames = messages.joined([call.parcel.frames for call in calls])
            for sender in worker.ranks.values():
                self._send(sender, messages.CALLS, *frames)
        if self._closed and not self._calls:
            for worker in list(self._idle.values()):
                self._end(worker)

    def _next_calls(self) -> List[Call]:
        """Return the next calls for a worker: one, or several when calls are short and there are many."""
        most = 1
        if self._place.takes_several:
            share = len(self._calls) // (2 * len(self._workers))
            most = max(1, min(_MOST_TOGETHER, share, int(_TOGETHER_SECONDS / max(self._usual_seconds, 1e-6))))
        calls: List[Call] = []
        with self._lock:
            while self._calls and len(calls) < most:
                call = self._calls.popleft()
                if call.died or call.future.set_running_or_notify_cancel():
                    calls.append(call)
        return calls

    def _begins(self, worker: Worker) -> None:
        """The first of a worker's calls begins."""
        now = time.monotonic()
        worker.end_at = None if self._needs.seconds is None else now + self._needs.seconds
        worker.look_at = now + _PATIENCE_SECONDS if len(worker.calls) > 1 else None

    def _heard(self, worker: Worker, rank: int, message: List["zmq.Frame"]) -> None:
        what = message[0].bytes
        if what in (messages.DONE, messages.RAISED):
            worker.answers[rank] = (what, message[1].bytes, message[2:])
            if len(worker.answers) == self._needs.ranks:
                self._answered(worker)
        elif what == messages.TAKEN_BACK:
            worker.is_asked = False
            count = int(message[1].bytes)
            worker.sent -= count
            self._call_again(worker, count)

    def _answered(self, worker: Worker) -> None:
        answers, worker.answers = worker.answers, {}
        seconds, *streams = messages.FIGURES.unpack(answers[0][1])
        with self._lock:
            call = worker.calls.popleft()
        self._usual_seconds = max(seconds, 0.9 * self._usual_seconds)
        if worker.is_ending:
            pass
        elif worker.calls:
            self._begins(worker)
        elif self._needs.fresh:
            self._end(worker)
        else:
            self._rest(worker)
        if self._claims(call):
            call.future._streams = (worker.paths, streams)
            resolve(call.future, answers, all_ranks=self._needs.all_ranks)

    def _call_again(self, worker: Worker, count: int) -> None:
        """Let others make the last calls of a worker, which have not begun."""
        with self._lock:
            for _ in range(count):
                call = worker.calls.pop()
                call.future._begins_anew()
                self._calls.appendleft(call)

    # ---- workers

    def _start_workers(self) -> None:
        busy = sum(bool(worker.calls) for worker in self._workers.values())
        ending = sum(worker.is_ending for worker in self._workers.values())
        wanted = min(self._needs.most, busy + len(self._calls)) - (len(self._workers) - ending)
        for _ in range(wanted):
            if self._unusable is not None:
                self._give_up(self._unusable)
                return
            self._start_worker()

    def _start_worker(self) -> None:
        self._last_number += 1
        worker = Worker(self._last_number)
        described = self._place.job(worker.number, self._needs.python)
        execution = {**self._needs.job.get("execution", {}), **described["execution"]}
        worker.paths = execution["stdout"], execution["stderr"]
        try:
            worker.job = self._submit({**self._needs.job, **described, "execution": execution})
        except QCGPJError as error:
            self._give_up(error)
            return
        with self._lock:
            self._workers[worker.number] = worker
        worker.job.add_done_callback(lambda _: self._do(lambda: self._has_ended(worker)))

    def _end(self, worker: Worker) -> None:
        """Let it end when it has nothing to do."""
        self._idle.pop(worker.number, None)
        worker.is_ending = True
        worker.end_at = time.monotonic() + _END_SECONDS
        for sender in worker.ranks.values():
            self._send(sender, messages.END)

    def _has_ended(self, worker: Worker) -> None:
        self._receive()  # what it has said before comes first
        self._idle.pop(worker.number, None)
        for sender in (*worker.ranks.values(), worker.control):
            self._at.pop(sender, None)
        with self._lock:
            del self._workers[worker.number]
        if worker.calls:
            self._has_died(worker)
        elif not worker.is_ending and not worker.ranks:
            self._never_served(worker)

    def _has_died(self, worker: Worker) -> None:
        """Fail the call that was being made, and those before it of which the answer was lost with the worker."""
        begun = 1
        if worker.sent > 1:
            message, begun_of_all = self._place.begun(worker.number)
            begun = begun_of_all - (worker.sent - len(worker.calls)) if message == worker.messages else 0
        self._call_again(worker, len(worker.calls) - begun)
        for call in worker.calls:
            call.died += 1
            if call.is_over:
                continue  # it was cancelled, or took too long
            if call.died <= self._needs.retries and not self._closed:
                with self._lock:
                    self._calls.appendleft(call)
            elif self._claims(call):
                call.future.set_exception(
                    death_of(worker, "the process that made the call ended before it had answered")
                )

    def _never_served(self, worker: Worker) -> None:
        error = death_of(worker, "the process that should have made the call ended before it could")
        if not self._has_served:
            self._give_up(error)
            self._unusable = None  # the next call may fare better
            return
        with self._lock:
            call = self._calls.popleft() if self._calls else None
        if call is not None and (call.died or call.future.set_running_or_notify_cancel()):
            call.future.set_exception(error)

    def _give_up(self, error: BaseException) -> None:
        """Fail all calls: no worker can serve."""
        self._unusable = error
        with self._lock:
            calls = list(self._calls)
            self._calls.clear()
        for call in calls:
            if call.died or call.future.set_running_or_notify_cancel():
                own = copy.copy(error)  # who raises it adds to its traceback
                own.__cause__ = error.__cause__
                call.future.set_exception(own)

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers.values()):
            if worker.look_at is not None and now >= worker.look_at:
                worker.look_at = None
                self._ask_back(worker)
            if worker.end_at is None or now < worker.end_at:
                continue
            worker.end_at = None
            if worker.is_ending:
                worker.job.cancel()
            elif worker.calls:
                self._time_is_over(worker)
            else:
                self._end(worker)

    def _time_is_over(self, worker: Worker) -> None:
        worker.is_ending = True
        call = worker.calls[0]
        if self._claims(call):
            call.future.set_exception(
                CallTimeout(f"the call has not ended within its walltime of {self._needs.seconds:g} s, and was ended")
            )
        worker.job.cancel()

    def _ask_back(self, worker: Worker) -> None:
        """Ask for the calls that have not begun: the one before them takes long."""
        if worker.control and not worker.is_asked:
            worker.is_asked = True
            self._send(worker.control, messages.TAKE_BACK)

    def _cancel_pending(self) -> None:
        """Cancel the calls but those for which a worker is there, or its job runs already."""
        self._start_workers()
        kept = len(self._idle)
        for worker in list(self._workers.values()):
            if worker.calls or worker.is_ending or worker.number in self._idle:
                continue
            if "EXECUTING" in worker.job.status().values():
                kept += 1
            else:
                worker.is_ending = True
                worker.job.cancel()
        self._cancel_calls(kept)

    def _cancel_calls(self, kept: int) -> None:
        with self._lock:
            cancelled = list(self._calls)[kept:]
        for call in cancelled:
            call.future.cancel()

    def _cancel_all(self) -> None:
        self._cancel_calls(0)
        for worker in list(self._workers.values()):
            for call in filter(self._claims, list(worker.calls)[::-1]):
                call.future._end_running()
            worker.is_ending = True
            worker.job.cancel()

    def _break(self, error: BaseException) -> None:
        with self._lock:
            self._closed = True
            calls = [*self._calls, *(call for worker in self._workers.values() for call in worker.calls)]
            self._calls.clear()
        for call in calls:
            with contextlib.suppress(Exception):
                call.future.set_exception(error)

    def _send(self, receiver: bytes, *frames: Any) -> None:
        self._place.socket.send_multipart([receiver, *frames], copy=False)
