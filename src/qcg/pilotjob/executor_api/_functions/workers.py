"""The workers of a hub: how they come, what they are given, and how they go. All of it belongs to the hub's thread.

A worker that has served for a while gives way when a job waits that nothing else lets in: it ends after its call. As
long as that job has not begun, the pool starts no worker in its place; after that it does, and that worker is the next
one to start, so a pool loses its cores to one job at a time, however many wait. A job that has not begun though the
pool gave way waits for more than the pool has: it is not given way to again.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Callable, Dict, Iterable, List, Optional

from qcg.pilotjob.executor_api._functions import messages
from qcg.pilotjob.executor_api._functions.calls import Call, Needs, Waiting, Worker, death_of
from qcg.pilotjob.executor_api._functions.rendezvous import Rendezvous
from qcg.pilotjob.executor_api._shared.protocol import RETURNS
from qcg.pilotjob.executor_api.call_errors import CallTimeout, WorkerDied
from qcg.pilotjob.executor_api.errors import QCGPJError

__all__ = ["Turns", "WorkerSet"]

_TURN_SECONDS = 1.0  # that a worker serves at least, and that another job waits before one gives way to it
_SILENCE_SECONDS = 0.5  # after which nobody waits any more: the manager tells ten times a second
_HOLD_SECONDS = 3.0  # in which what was given way to has to begin


class Turns:
    """Holds what a pool knows of other jobs, for the pool's thread."""

    def __init__(self, ours: str) -> None:
        """`ours` is how the names of the pool's workers begin."""
        self._ours = f"{ours}."
        self._other = ""
        self._heard_at = -_SILENCE_SECONDS
        self._since = 0.0  # it waits, or somebody gave way to it
        self._held_until = 0.0
        self._returning = 0

    def is_ours(self, name: str) -> bool:
        """Return whether a job is a worker of this pool."""
        return name.startswith(self._ours)

    def hear(self, name: str, workers: Iterable[Worker]) -> None:
        """Take the news that `name` has waited longest of all; have one of the workers give way, if that is due."""
        now = self._heard_at = time.monotonic()
        if name != self._other:
            self._other, self._since, self._held_until = name, now, 0.0
            for worker in workers:
                worker.gives_way = False
        if now - self._since < _TURN_SECONDS or 0.0 < self._held_until < now:
            return
        serving = [worker for worker in workers if worker.calls and not worker.is_ending and not worker.gives_way]
        long_enough = [worker for worker in serving if now - worker.serves_since >= _TURN_SECONDS]
        if long_enough:
            min(long_enough, key=lambda worker: worker.serves_since).gives_way = True
            self._since = now

    def is_over(self, worker: Worker) -> bool:
        """Return whether a worker has to end now that its call has, and hold back the one that follows it."""
        if not worker.gives_way or not self._is_waited_for:
            worker.gives_way = False
            return False
        self._held_until = time.monotonic() + _HOLD_SECONDS
        self._returning += 1
        return True

    def another_is_next(self) -> bool:
        """Return whether the pool must not start workers now: a worker has given way to a job that has not begun."""
        return self._is_waited_for and time.monotonic() < self._held_until

    @property
    def start_at(self) -> Optional[float]:
        """The moment from which on the pool may start workers again, None when it may now."""
        return min(self._held_until, self._heard_at + _SILENCE_SECONDS) if self.another_is_next() else None

    def attributes(self) -> Optional[Dict[str, Any]]:
        """Return the attributes of the next worker's job: whether it follows one that has given way."""
        if not self._returning:
            return None
        self._returning -= 1
        return {RETURNS: self._ours}

    @property
    def _is_waited_for(self) -> bool:
        return time.monotonic() - self._heard_at < _SILENCE_SECONDS


_logger = logging.getLogger(__name__)

_LOST = WorkerDied(
    "the process that made the call was lost with its node or its allocation; its job was started again, the call only "
    "with retries="
)
_END_SECONDS = 5.0  # for a worker to end by itself
_LONGEST_SECONDS = 86_400.0  # poll() takes no more than 2**31 milliseconds
_PATIENCE_SECONDS = 0.05  # after which calls that have not begun are asked back


class WorkerSet:
    """The workers that there are; each is a job of the executor.

    Attributes:
        workers: by their numbers, changed with the lock of the calls that wait, so that any thread may look.
        idle: those that have nothing to do.
    """

    def __init__(
        self,
        place: Rendezvous,
        needs: Needs,
        waiting: Waiting,
        submit: Callable[[Dict[str, Any]], Any],
        on_end: Callable[[Worker], None],
    ) -> None:
        """`submit` submits the description of a job and returns its future; `on_end` is called, in any thread."""
        self._place = place
        self._needs = needs
        self._waiting = waiting
        self._submit = submit
        self._on_end = on_end
        self.workers: Dict[int, Worker] = {}
        self.idle: Dict[int, Worker] = {}
        self._last_number = 0
        self._has_served = False
        self._unusable: Optional[BaseException] = None
        self._turns = Turns(place.name)

    # ---- how they come

    def start(self) -> None:
        """Start as many as there are calls for."""
        busy = sum(bool(worker.calls) for worker in self.workers.values())
        ending = sum(worker.is_ending for worker in self.workers.values())
        wanted = min(self._needs.most, busy + len(self._waiting)) - (len(self.workers) - ending)
        if self._turns.another_is_next():
            return
        for _ in range(wanted):
            if self._unusable is not None:
                self._give_up(self._unusable)
                return
            self._start_one()

    def _start_one(self) -> None:
        self._last_number += 1
        worker = Worker(self._last_number)
        described = self._place.job(worker.number, self._needs.python)
        execution = {**self._needs.job.get("execution", {}), **described["execution"]}
        worker.paths = execution["stdout"], execution["stderr"]
        try:
            attributes = self._turns.attributes()
            worker.job = self._submit(
                {**self._needs.job, **described, "execution": execution, "attributes": attributes}
            )
        except QCGPJError as error:
            self._give_up(error)
            return
        with self._waiting.lock:
            self.workers[worker.number] = worker
        worker.job.add_done_callback(lambda _: self._on_end(worker))

    def greet(self, worker: Worker, sender: bytes, rank: int, python: List[int]) -> bool:
        """Welcome a rank of a worker; return whether it can serve."""
        if python != list(sys.version_info[:2]):
            theirs, ours = (".".join(map(str, version)) for version in (python, sys.version_info[:2]))
            self._give_up(
                WorkerDied(
                    f"workers run Python {theirs} and this program {ours}, so functions cannot go from one to the "
                    f"other; give python= or venv= with Python {ours}, or run this program with {theirs}"
                )
            )
            worker.job.cancel()
            return False
        if rank in worker.ranks:
            self._has_come_again(worker)
        worker.ranks[rank] = sender
        self._place.send(sender, messages.WELCOME)
        if len(worker.ranks) == self._needs.ranks:
            self._has_served, worker.serves_since = True, time.monotonic()
            self._rest(worker)
        return True

    def _has_come_again(self, worker: Worker) -> None:
        """Answer for the calls of a worker whose job was lost and started again."""
        self.idle.pop(worker.number, None)
        worker.ranks.clear()
        worker.answers.clear()
        worker.control, worker.is_asked, worker.messages = b"", False, 0
        self._has_died(worker, _LOST)
        worker.calls.clear()

    # ---- what they are given

    def give(self, calls: List[Call]) -> None:
        """Give calls to one that is idle."""
        _, worker = self.idle.popitem()
        with self._waiting.lock:
            worker.calls.extend(calls)
        worker.messages += 1
        worker.sent = len(calls)
        self._begin(worker)
        frames = messages.joined([call.parcel.frames for call in calls])
        for sender in worker.ranks.values():
            self._place.send(sender, messages.CALLS, *frames)

    def go_on(self, worker: Worker) -> None:
        """Go on with a worker that has answered."""
        if worker.is_ending:
            return
        if worker.calls:
            self._begin(worker)
        elif self._needs.fresh or self._turns.is_over(worker):
            self.end(worker)
        else:
            self._rest(worker)

    def _begin(self, worker: Worker) -> None:
        now = time.monotonic()
        worker.end_at = None if self._needs.seconds is None else now + self._needs.seconds
        worker.look_at = now + _PATIENCE_SECONDS if len(worker.calls) > 1 else None

    def _rest(self, worker: Worker) -> None:
        worker.end_at, worker.look_at = time.monotonic() + self._needs.idle_seconds, None
        self.idle[worker.number] = worker

    # ---- how they go

    def end(self, worker: Worker) -> None:
        """Tell the worker to end by itself: it has nothing to do."""
        self.idle.pop(worker.number, None)
        worker.is_ending = True
        worker.end_at = time.monotonic() + _END_SECONDS
        for sender in worker.ranks.values():
            self._place.send(sender, messages.END)

    def has_ended(self, worker: Worker) -> None:
        """Answer for the calls of a worker whose job has ended."""
        self.idle.pop(worker.number, None)
        with self._waiting.lock:
            del self.workers[worker.number]
        if worker.calls:
            died = "the process that made the call ended before it had answered"
            self._has_died(worker, death_of(worker, died))
        elif not worker.is_ending and not worker.ranks:
            self._never_served(worker)

    def _has_died(self, worker: Worker, error: BaseException) -> None:
        """Fail the call that was being made, and those before it of which the answer was lost with the worker."""
        begun = 1
        if worker.sent > 1:
            message, begun_of_all = self._place.begun(worker.number)
            begun = begun_of_all - (worker.sent - len(worker.calls)) if message == worker.messages else 0
        self._waiting.take_back(worker, len(worker.calls) - begun)
        for call in worker.calls:
            # of a worker that we have ended, over one of its calls, the others had no part in it
            call.died += not worker.is_ending
            if worker.is_ending or call.died <= self._needs.retries:
                self._waiting.again(call)
            else:
                self._waiting.end(call, error)

    def _never_served(self, worker: Worker) -> None:
        error = death_of(worker, "the process that should have made the call ended before it could")
        # where no worker has ever served, none will do better; the calls of a later moment may
        self._waiting.fail(error, 1 if self._has_served else None)

    def _give_up(self, error: BaseException) -> None:
        """Fail all calls, those to come too: no worker can serve."""
        self._unusable = error
        self._waiting.fail(error)

    # ---- their clocks

    @property
    def patience(self) -> Optional[int]:
        """Milliseconds until one of them has to be looked at, None when that is not so; for poll(), so not too many."""
        times = [moment for worker in self.workers.values() for moment in (worker.end_at, worker.look_at)]
        times.append(self._turns.start_at)
        ends = [moment for moment in times if moment is not None]
        seconds = min(min(ends) - time.monotonic(), _LONGEST_SECONDS) if ends else None
        return None if seconds is None else max(0, int(1000 * seconds) + 1)

    def look_at_clock(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        for worker in list(self.workers.values()):
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
                self.end(worker)

    def has_given_back(self, worker: Worker) -> None:
        """Go on with a worker that has given back what had not begun: perhaps all, perhaps before it had its calls."""
        if worker.calls:
            self.look_again(worker)
        else:
            self.go_on(worker)

    def look_again(self, worker: Worker) -> None:
        """Ask later for what has not begun, of a worker that could not be asked, or knew of nothing."""
        if worker.look_at is None and len(worker.calls) > 1:
            worker.look_at = time.monotonic() + _PATIENCE_SECONDS

    def _ask_back(self, worker: Worker) -> None:
        """Ask for the calls that have not begun: the one before them takes long."""
        if worker.control and not worker.is_asked:
            worker.is_asked = True
            self._place.send(worker.control, messages.TAKE_BACK)

    def holds_at_first(self, worker: Worker) -> bool:
        """Return whether a worker that is ended now has begun nothing behind its first call, nor will."""
        if worker.sent <= 1:
            return True
        return self._place.holds_at(worker.number, worker.messages, worker.sent - len(worker.calls) + 1)

    def others_wait(self, name: str) -> None:
        """Give cores back for a job that has waited longest: those of idle workers at once, of others in their turn."""
        if self._turns.is_ours(name):
            self._dismiss(self.workers.get(int(name.rpartition(".")[2])))
        elif self._waiting:
            self._turns.hear(name, self.workers.values())
        else:
            for worker in list(self.idle.values()):
                self.end(worker)

    def _dismiss(self, worker: Optional[Worker]) -> None:
        """End a worker that waits for cores, when there is no call for it: jobs behind it could have them."""
        if worker is not None and not worker.ranks and not worker.is_ending and not self._waiting:
            worker.is_ending = True
            worker.job.cancel()

    def _time_is_over(self, worker: Worker) -> None:
        if not self.holds_at_first(worker):
            return  # the call has just ended, and its answer will be here
        worker.is_ending = True
        self._waiting.end(
            worker.calls[0],
            CallTimeout(f"the call has not ended within its walltime of {self._needs.seconds:g} s, and was ended"),
        )
        worker.job.cancel()

    # ---- at the end

    def dismiss_spare(self) -> int:
        """End those that are not there yet; return how many are or will be, with nothing to do."""
        kept = len(self.idle)
        for worker in list(self.workers.values()):
            if worker.calls or worker.is_ending or worker.number in self.idle:
                continue
            if "EXECUTING" in worker.job.status().values():
                kept += 1
            else:
                worker.is_ending = True
                worker.job.cancel()
        return kept

    def cancel(self) -> None:
        """Cancel what they do, and end them."""
        for worker in list(self.workers.values()):
            for call in filter(self._waiting.claim, list(worker.calls)[::-1]):
                call.future._end_running()
                self._waiting.forget(call)
            worker.is_ending = True
            worker.job.cancel()

    def abandon(self) -> None:
        """Cancel the jobs of all workers: there is nobody any more who could tell them to end."""
        for worker in list(self.workers.values()):
            worker.is_ending = True
            try:
                worker.job.cancel()
            except Exception:  # the others have to be cancelled too
                _logger.exception("worker %d of a pool of functions cannot be cancelled", worker.number)
