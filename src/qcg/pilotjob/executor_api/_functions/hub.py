"""The hub: one thread that gives calls to workers, and resolves their futures.

Any thread may leave a call among those that wait, or a task in the inbox; the rest belongs to the hub's thread, except
what the lock of the calls that wait protects: who has which call, so that a call can be cancelled from any thread.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from functools import partial
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

import zmq

from qcg.pilotjob.executor_api._functions import messages
from qcg.pilotjob.executor_api._functions.calls import Call, Needs, Waiting, Worker, hello_in, resolve, resolve_raised
from qcg.pilotjob.executor_api._functions.future import FunctionFuture
from qcg.pilotjob.executor_api._functions.rendezvous import Rendezvous
from qcg.pilotjob.executor_api._functions.tracebacks import said
from qcg.pilotjob.executor_api._functions.workers import WorkerSet
from qcg.pilotjob.executor_api._shared.futures import ResolvingThread, may_wait
from qcg.pilotjob.executor_api._shared.wakeup import Alarm
from qcg.pilotjob.executor_api.call_errors import BrokenCall
from qcg.pilotjob.executor_api.errors import ExecutorClosed

__all__ = ["Hub"]

_logger = logging.getLogger(__name__)

_MOST_TOGETHER = 32  # calls that are sent in one
_TOGETHER_SECONDS = 0.005  # that they may take, if they take as long as others have


class Hub:
    """Makes calls. Any thread may use it."""

    def __init__(
        self, submit: Callable[[Dict[str, Any]], Any], make_place: Callable[[], Rendezvous], needs: Needs
    ) -> None:
        """`submit` submits the description of a job and returns its future."""
        self._submit = submit
        self._make_place = make_place
        self._needs = needs
        self._waiting = Waiting()
        self._inbox: Deque[Callable[[], None]] = deque()
        self._thread: Optional[threading.Thread] = None
        self._owner: Any = None  # the executor, as long as the thread runs: calls of a dropped pool need its workers
        self._is_over = False
        self._when_ended: List[Callable[[], None]] = []
        self._pid = os.getpid()
        self._alarm: Optional[Alarm] = None
        # of the thread
        self._at: Dict[bytes, Tuple[Worker, int]] = {}
        self._usual_seconds = 1.0  # of the latest calls

    # ---- for all threads

    def make(self, call: Call, owner: Any) -> None:
        """Make a call, when a worker has time for it; until all calls are made, keep `owner`.

        Raises:
            ExecutorClosed: the pool is shut down.
            BrokenCall: the pool has failed.
            RuntimeError: the pool has no thread yet, and none can be started now.
        """
        if os.getpid() != self._pid:
            raise ExecutorClosed(f"this pool belongs to process {self._pid}; a forked child needs one of its own")
        with self._waiting.lock:
            if self._thread is None and not self._waiting.closed:
                self._start(owner)
            self._waiting.put(call)
        self._wake()

    def close(self, *, cancel_pending: bool = False) -> None:
        """Take no more calls, and end when those that there are have been made."""
        self._waiting.close()
        if cancel_pending:
            self._do(self._cancel_pending)
        self._wake()

    def abort(self) -> None:
        """Take no more calls, and cancel all; their workers are for the executor to end."""
        self._waiting.close()
        self._do(self._cancel_all)

    def join(self) -> None:
        """Wait for the end, except in a callback, which would hold it up."""
        thread = self._thread
        if thread is not None and may_wait():
            thread.join()

    def when_ended(self, what: Callable[[], None]) -> None:
        """Do something when the thread has ended or, if there is none, at once."""
        with self._waiting.lock:
            if self._thread is not None and not self._is_over:
                self._when_ended.append(what)
                return
        what()

    def others_wait(self, name: str) -> None:
        """Give cores back, perhaps, to a job that has waited longest for some."""
        if self._thread is not None and not self._is_over:
            self._do(lambda: self._worker_set.others_wait(name))

    def forget_in_child(self) -> None:
        """Be closed in a forked child, which has not the thread, nor whoever may hold the lock."""
        self._waiting = Waiting()
        self._waiting.close()
        self._thread = None
        if self._alarm is not None:
            self._alarm.close()

    @property
    def most(self) -> int:
        """How many workers there may be."""
        return self._needs.most

    @property
    def has_ended(self) -> bool:
        """Whether it is closed and nothing is left to do."""
        return self._waiting.closed and (self._thread is None or self._is_over)

    def cancel_running(self, future: FunctionFuture) -> bool:
        """Cancel a call that a worker makes, and end that worker; return whether it came in time.

        The worker may have begun the next call when its answer is not here yet: then it is too late.
        """
        if self._thread is None:
            return False
        with self._waiting.lock:
            workers = self._worker_set.workers.values()
            busy = [worker for worker in workers if worker.calls and worker.calls[0].future is future]
            if not busy or busy[0].calls[0].is_over or not self._worker_set.holds_at_first(busy[0]):
                return False
            self._waiting.claim(busy[0].calls[0])
            busy[0].is_ending = True
        future._end_running()
        self._waiting.forget(busy[0].calls[0])
        busy[0].job.cancel()
        return True

    def _start(self, owner: Any) -> None:
        self._place = self._make_place()
        self._worker_set = WorkerSet(
            self._place,
            self._needs,
            self._waiting,
            submit=self._submit,
            on_end=lambda worker: self._do(partial(self._has_ended, worker)),
        )
        self._alarm = Alarm()
        thread = ResolvingThread(target=self._run, args=(self._alarm,), name="qcgpj-functions", daemon=True)
        try:
            self._thread, self._owner = thread, owner
            thread.start()
        except BaseException:  # there are too many threads, or the interpreter shuts down
            self._thread = self._owner = None
            self._place.close()
            self._alarm.close()
            raise

    def _do(self, what: Callable[[], None]) -> None:
        if self._thread is not None:
            self._inbox.append(what)
            self._wake()

    def _wake(self) -> None:
        if self._alarm is not None:
            self._alarm.set()

    # ---- the thread

    def _run(self, alarm: Alarm) -> None:
        try:
            self._serve(alarm)
        except BaseException as error:  # noqa: BLE001  # whatever it is, nobody may wait for ever
            if self._pid == os.getpid():
                self._break(error)
        if self._pid == os.getpid():  # what there is belongs to the parent of a child that was forked in a callback
            try:
                self._place.close()
            finally:
                alarm.close()
                self._end()

    def _end(self) -> None:
        with self._waiting.lock:
            self._is_over = True
            to_do, self._when_ended = self._when_ended, []
        self._owner = None
        for what in to_do:
            what()

    def _serve(self, alarm: Alarm) -> None:
        poller = zmq.Poller()
        poller.register(self._place.socket, zmq.POLLIN)
        poller.register(alarm.fileno(), zmq.POLLIN)
        while not self._is_done():
            if alarm.fileno() in dict(poller.poll(self._worker_set.patience)):
                alarm.clear()
            self._round()

    def _round(self) -> None:
        self._receive()
        while self._inbox:
            self._inbox.popleft()()
        self._assign()
        self._worker_set.look_at_clock()  # after calls were given: a worker that is there for one is not idle
        self._worker_set.start()

    def _is_done(self) -> bool:
        with self._waiting.lock:
            return self._waiting.closed and not self._waiting and not self._inbox and not self._worker_set.workers

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
        worker = self._worker_set.workers.get(hello.get("worker", 0))
        if worker is None:
            return  # whoever this is, or a worker that was given up
        if message[0] == messages.CONTROL:
            worker.control = sender
            self._at[sender] = worker, -1
            self._worker_set.look_again(worker)
        elif self._worker_set.greet(worker, sender, hello["rank"], hello["python"]):
            self._at[sender] = worker, hello["rank"]

    def _assign(self) -> None:
        while self._worker_set.idle and self._waiting:
            with self._waiting.lock:  # a call that runs is always somebody's, so that it can be cancelled
                calls = self._waiting.take(self._most_together())
                if calls:
                    self._worker_set.give(calls)
        if self._waiting.closed and not self._waiting:
            for worker in list(self._worker_set.idle.values()):
                self._worker_set.end(worker)

    def _most_together(self) -> int:
        """Return how many calls a worker gets: one, or several when calls are short and there are many."""
        if not self._place.takes_several:
            return 1
        share = len(self._waiting) // (2 * len(self._worker_set.workers))
        return max(1, min(_MOST_TOGETHER, share, int(_TOGETHER_SECONDS / max(self._usual_seconds, 1e-6))))

    def _heard(self, worker: Worker, rank: int, message: List["zmq.Frame"]) -> None:
        what = message[0].bytes
        if what == messages.RAISED and self._needs.ranks > 1:
            self._rank_has_raised(worker, message)
        elif what in (messages.DONE, messages.RAISED):
            worker.answers[rank] = (what, message[1].bytes, message[2:])
            if len(worker.answers) == self._needs.ranks:
                self._answered(worker)
        elif what == messages.TAKEN_BACK:
            worker.is_asked = False
            count = int(message[1].bytes)
            worker.sent -= count
            self._waiting.take_back(worker, count)
            self._worker_set.has_given_back(worker)

    def _answered(self, worker: Worker) -> None:
        answers, worker.answers = worker.answers, {}
        seconds, *streams = messages.FIGURES.unpack(answers[0][1])
        with self._waiting.lock:
            call = worker.calls.popleft()
        self._usual_seconds = max(seconds, 0.9 * self._usual_seconds)
        if not self._needs.fresh:
            self._worker_set.go_on(worker)  # it makes the next one already, however long callbacks of this one take
        if self._waiting.claim(call):
            call.future._streams = (worker.paths, streams)
            resolve(call.future, answers, all_ranks=self._needs.all_ranks)
            self._waiting.forget(call)
        if self._needs.fresh:
            self._worker_set.go_on(worker)  # to its end, and with it goes the memory that the value was in

    def _rank_has_raised(self, worker: Worker, message: List["zmq.Frame"]) -> None:
        """Give the call the exception of the first rank that raises, and end the worker.

        The other ranks may wait in MPI for that one, without end. Of a second one that raises nothing is told.
        """
        with self._waiting.lock:
            call = worker.calls.popleft() if worker.calls and not worker.is_ending else None
            worker.is_ending = True
        if call is None:
            return
        worker.answers.clear()
        if self._waiting.claim(call):
            call.future._streams = (worker.paths, messages.FIGURES.unpack(message[1].bytes)[1:])
            resolve_raised(call.future, message[2:])
        worker.job.cancel()

    def _has_ended(self, worker: Worker) -> None:
        self._receive()  # what it has said before comes first
        for sender in (*worker.ranks.values(), worker.control):
            self._at.pop(sender, None)
        self._worker_set.has_ended(worker)

    def _cancel_pending(self) -> None:
        """Cancel the calls but those for which a worker is there, or its job runs already."""
        self._worker_set.start()
        self._waiting.cancel_all_but(self._worker_set.dismiss_spare())

    def _cancel_all(self) -> None:
        self._waiting.cancel_all_but(0)
        self._worker_set.cancel()

    def _break(self, error: BaseException) -> None:
        """Give all futures their end: there is no thread any more that could."""
        _logger.critical("a pool of functions has failed, with all of its calls", exc_info=error)
        broken = BrokenCall(f"the pool has failed with all of its calls: {type(error).__name__}: {said(str, error)}")
        broken.__cause__ = error
        self._waiting.break_(broken)
        self._worker_set.abandon()
