"""Several allocations at once: jobs wait here, and go where cores are free.

::

    submit -> Spread: ready, held (for jobs that it depends on) -> Dispatcher, GuardProcess -> allocation 1
                                                                -> Dispatcher, GuardProcess -> allocation 2 ...

Each allocation has a manager of its own, which knows nothing of the others. So what only makes sense over all of them
is done here: which jobs go where, dependencies between jobs in different places, and what becomes of the jobs of an
allocation that has ended.

Any thread may call; there is none of its own. Futures are resolved when the lock has been released, since whoever hears
of it may call again.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Deque, Dict, Iterator, List, Mapping, Optional, Sequence, Set

from qcg.pilotjob.executor_api._allocation.own_allocation import GuardProcess, OwnAllocation
from qcg.pilotjob.executor_api._client.answers import ExecutorSource
from qcg.pilotjob.executor_api._client.connection import Connection
from qcg.pilotjob.executor_api._client.dispatcher import Attach
from qcg.pilotjob.executor_api._client.inbox import Leaving
from qcg.pilotjob.executor_api._client.kinds import MadeClient, remote_client
from qcg.pilotjob.executor_api._client.links import Link
from qcg.pilotjob.executor_api._client.remote_dispatcher import AllocationDispatcher
from qcg.pilotjob.executor_api._shared.futures import copy_of_error
from qcg.pilotjob.executor_api._shared.overriding import override
from qcg.pilotjob.executor_api._shared.protocol import started_in
from qcg.pilotjob.executor_api.errors import DuplicateJobName, ExecutorClosed, InvalidOption, JobUnknown, QCGPJError
from qcg.pilotjob.executor_api.jobs import JobInfo
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

__all__ = ["Item", "Spread", "SpreadSource"]

_AHEAD = 2  # how many times its cores an allocation is given at a time: what ends early is followed at once


@dataclass(eq=False)
class Item:
    """The jobs of one submission, which stay together."""

    future: QCGPJFuture
    jobs: List[Any]
    member: Optional[_Member] = None
    waiters: List[Item] = field(default_factory=list)  # that have to be looked at when it is placed or has ended

    @property
    def weight(self) -> int:
        """How many cores it can use."""
        return sum(_cores_of(job) for job in self.jobs)


@dataclass(eq=False)
class _Member:
    dispatcher: AllocationDispatcher
    guard: GuardProcess
    load: int = 0
    is_broken: bool = False
    returned: List[Item] = field(default_factory=list)

    @property
    def has_room(self) -> bool:
        """Whether it can be given more."""
        manager = self.guard.manager
        return not self.is_broken and manager is not None and self.load < _AHEAD * manager["capacity"]["cores"]


class Spread:
    """Stands where a `Dispatcher` does, for several allocations."""

    def __init__(self, guards: Sequence[GuardProcess], *, rerun: bool) -> None:
        self._rerun = rerun
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._items: Dict[str, Item] = {}
        self._ready: Deque[Item] = deque()
        self._held: Dict[Item, None] = {}
        self._to_do: List[Callable[[], None]] = []
        self._leaving = Leaving.NOT
        self._is_abandoned = False
        self._is_over = False  # all jobs were given to allocations, which end one by one
        self._broken: Optional[BaseException] = None
        self._members: List[_Member] = []
        with self._lock:  # the thread of a dispatcher may have to tell at once that its allocation has ended
            for guard in guards:
                guard.on_change = lambda _: self._deal()
                dispatcher = AllocationDispatcher(OwnAllocation(guard), MadeClient(remote_client), guard, self)
                self._members.append(_Member(dispatcher.start(), guard))

    # ---- as a dispatcher's

    @property
    def link(self) -> Link:
        """The link to one of the allocations: they are alike."""
        return self._members[0].dispatcher.link

    @property
    def statuses(self) -> List[Any]:
        """Where the allocations stand."""
        return [member.guard.status for member in self._members]

    @property
    def dispatchers(self) -> List[AllocationDispatcher]:
        """Those of the allocations."""
        return [member.dispatcher for member in self._members]

    def submit(self, future: QCGPJFuture, jobs: Sequence[Any]) -> None:
        """Queue jobs.

        Raises:
            ExecutorClosed: after shutdown, or in a forked child.
            AllocationEnded: all allocations have ended.
            DuplicateJobName: one of the names was used before.
        """
        self.refuse_in_child()
        item = Item(future, list(jobs))
        with self._lock:
            if self._broken is not None:
                raise copy_of_error(self._broken)
            if self._leaving:
                raise ExecutorClosed("cannot submit after shutdown of the executor or the interpreter")
            for place, name in enumerate(future.ids):
                if name in self._items or name in future.ids[:place]:
                    raise DuplicateJobName(f"a job named {name!r} was submitted before; give each job its own name")
            self._items.update(dict.fromkeys(future.ids, item))
            self._look_at(item)
        future.add_done_callback(lambda _: self._has_ended(item))
        self._deal()

    def follow(self, future: QCGPJFuture) -> Any:
        """Refuse: the futures of all jobs that there are were given by `submit`.

        Raises:
            JobUnknown: always.
        """
        raise JobUnknown(f"attach() is for one allocation; {', '.join(future.ids)}: keep the future that submit() gave")

    def refuse_in_child(self) -> None:
        """Raise ExecutorClosed in a forked child."""
        self._members[0].dispatcher.refuse_in_child()

    @property
    def is_current_thread(self) -> bool:
        """Whether the caller runs in the thread of a dispatcher; it must not wait there."""
        return any(member.dispatcher.is_current_thread for member in self._members)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more goes on."""
        return all(member.dispatcher.has_ended for member in self._members)

    def leave(self, how: Leaving) -> None:
        """Take no more jobs, and end as `how` says."""
        with self._lock:
            self._leaving = max(self._leaving, how)
            if how >= Leaving.WITHOUT_QUEUED:
                for item in [*self._ready, *self._held]:
                    self._end_jobs(item, item.jobs, "CANCELED")
                self._ready.clear()
                self._held.clear()
        self._deal()

    def abandon(self) -> None:
        """Leave when all jobs are done, in the thread of a dispatcher: whose garbage this is may hold the lock."""
        self._is_abandoned = True
        for member in self._members:
            member.dispatcher.wake()

    def leave_if_abandoned(self) -> None:
        """Leave when all jobs are done, if nobody has the executor any more; called by the dispatchers."""
        if self._is_abandoned and not self._leaving:
            self.leave(Leaving.WHEN_DONE)

    def join(self, timeout: Optional[float] = None) -> bool:
        """Wait for the end; return whether it came."""
        return sum(member.dispatcher.join(timeout) for member in self._members) == len(self._members)

    def core_client(self, attach: Attach) -> Any:  # noqa: ARG002  # a dispatcher's has it
        """Refuse: there is no one manager to be asked.

        Raises:
            InvalidOption: always.
        """
        raise InvalidOption("qcgpj_manager is for one allocation; with count= there are several managers")

    def detach(self) -> str:
        """Refuse: what waits here would be lost.

        Raises:
            InvalidOption: always.
        """
        raise InvalidOption("detach() is for one allocation: with count= jobs are handed out by this program")

    # ---- for the source of the futures

    @property
    def any_dispatcher(self) -> AllocationDispatcher:
        """One of the dispatchers, to be asked where a thread may wait."""
        return self._members[0].dispatcher

    def item_of(self, name: str) -> Item:
        """Return what a job was submitted with."""
        return self._items[name.partition(":")[0]]

    def take_out(self, future: QCGPJFuture) -> bool:
        """Cancel jobs that wait here; return whether they did."""
        with self._lock:
            item = self._items[future.ids[0]]
            if item.member is not None:
                return False
            self._held.pop(item, None)
            if item in self._ready:
                self._ready.remove(item)
            self._end_jobs(item, item.jobs, "CANCELED")
        self._deal()
        return True

    # ---- for the dispatchers

    @property
    def wants_more(self) -> bool:
        """Whether jobs wait for cores."""
        return bool(self._ready)

    def salvage(self, dispatcher: AllocationDispatcher, futures: Sequence[QCGPJFuture], error: BaseException) -> None:
        """Take back the unfinished jobs of an allocation that has ended, or fail those that are not to run again."""
        with self._lock:
            member = next(member for member in self._members if member.dispatcher is dispatcher)
            member.is_broken, member.load = True, 0
            started: Set[str] = set() if self._rerun else started_in(member.guard.directories.aux)
            for future in reversed(futures):
                item = self._items[future.ids[0]]
                if self._is_over:  # the others take no more jobs
                    self._break_later(item, error)
                    continue
                item.jobs = [job for job in item.jobs if job["name"] in future._unfinished()]
                item.member = None
                if started.isdisjoint(future.ids):
                    self._look_at(item, first=True)
                else:
                    self._break_later(item, error)
            for item in member.returned:
                self._look_at(item, first=True)
            if all(one.is_broken for one in self._members):
                self._broken = error
                for item in [*self._ready, *self._held]:
                    self._break_later(item, error)
                self._ready.clear()
                self._held.clear()
        self._deal()

    # ---- with the lock

    def _look_at(self, item: Item, *, first: bool = False) -> None:
        """Make jobs ready, hold them, or give them to the allocation of the jobs that they depend on."""
        self._held.pop(item, None)
        self._settle_dependencies(item)
        unfinished = list(self._depended_on(item))
        places = {other.member for other in unfinished}
        if not item.jobs:
            return
        if not unfinished:
            (self._ready.appendleft if first else self._ready.append)(item)
        elif len(places) == 1 and None not in places:
            self._give(item, places.pop())
        else:
            self._held[item] = None
            for other in unfinished:
                other.waiters.append(item)

    def _settle_dependencies(self, item: Item) -> None:
        """Forget dependencies on what has succeeded; what depends on anything else that has ended is omitted."""
        names = {job["name"] for job in item.jobs}
        changed = True
        while changed:
            changed = False
            for job in list(item.jobs):
                after = job.get("dependencies", {}).get("after", [])
                states = {name: "" if name.partition(":")[0] in names else self._state_of(name) for name in after}
                if any(state not in ("", "SUCCEED") for state in states.values()):
                    item.jobs.remove(job)
                    names.discard(job["name"])
                    self._end_jobs(item, [job], "OMITTED")
                    changed = True
                elif "SUCCEED" in states.values():
                    left = [name for name in after if states[name] != "SUCCEED"]
                    place = item.jobs.index(job)
                    item.jobs[place] = {**job, "dependencies": {**job["dependencies"], "after": left}}

    def _state_of(self, name: str) -> str:
        """Return the state in which a job or iteration has ended; an empty string when it has not, or is unknown."""
        base, colon, _ = name.partition(":")
        item = self._items.get(base)
        if item is None:
            return ""
        is_done = item.future.done()  # asked first: the states are there when it is
        state = (item.future._states or {}).get(base, "LOST" if is_done else "")
        if state in ("", "SUCCEED") or not colon or item.member is None:
            return state
        return item.member.dispatcher.link.recorded_state(name) or state

    def _depended_on(self, item: Item) -> Iterator[Item]:
        """Yield whose ends it waits for: what has ended is in no job's list any more."""
        for job in item.jobs:
            for name in job.get("dependencies", {}).get("after", []):
                other = self._items.get(name.partition(":")[0])
                if other is not None and other is not item:
                    yield other

    def _give(self, item: Item, member: Optional[_Member]) -> None:
        assert member is not None
        try:
            # with the lock: what depends on these jobs must come there after them
            member.dispatcher.submit(item.future, item.jobs)
        except QCGPJError:  # it has ended just now, and will be told here in a moment
            member.is_broken = True
            member.returned.append(item)
            return
        item.member = member
        member.load += item.weight
        self._look_at_waiters(item)

    def _look_at_waiters(self, item: Item) -> None:
        waiters, item.waiters = item.waiters, []
        for waiter in waiters:
            if waiter in self._held:
                self._look_at(waiter)

    def _end_jobs(self, item: Item, jobs: Sequence[Any], state: str) -> None:
        for name in [job["name"] for job in jobs]:
            self._to_do.append(lambda name=name: item.future._job_ended(name, state))  # type: ignore[misc]

    def _break_later(self, item: Item, error: BaseException) -> None:
        self._to_do.append(lambda: item.future._break(copy_of_error(error)))

    # ---- without it

    def _has_ended(self, item: Item) -> None:
        with self._lock:
            if item.member is not None and not item.member.is_broken:
                item.member.load -= item.weight
            self._look_at_waiters(item)
        self._deal()

    def _deal(self) -> None:
        """Give jobs to allocations that have room, then do what was put off until the lock is released."""
        with self._lock:
            while self._ready:
                free = [member for member in self._members if member.has_room]
                if not free:
                    break
                self._give(self._ready.popleft(), min(free, key=lambda member: member.load))
            to_do, self._to_do = self._to_do, []
            if self._leaving and not self._ready and not self._held:
                self._is_over = True
                to_do += [lambda member=member: member.dispatcher.leave(self._leaving) for member in self._members]  # type: ignore[misc]
        for what in to_do:
            what()


def _cores_of(job: Any) -> int:
    resources = job.get("resources", {})
    cores, nodes = (_most(resources.get(key)) for key in ("numCores", "numNodes"))
    iterations = job.get("iteration", {})
    count = len(iterations.get("values", ())) or iterations.get("stop", 1) - iterations.get("start", 0)
    return max(1, cores) * max(1, nodes) * max(1, count)


def _most(size: Any) -> int:
    return size if isinstance(size, int) else int((size or {}).get("exact") or (size or {}).get("max") or 1)


def connect_several(guards: Sequence[GuardProcess], *, rerun: bool) -> Connection:
    """Connect an executor to several allocations, when the scheduler has taken all that is asked for.

    With `rerun` the jobs of an allocation that has ended run again in another one.

    Raises:
        AllocationFailed: the scheduler refuses one of them; then all are given back.
    """
    try:
        for guard in guards:
            guard.await_ready()
        spread = Spread(guards, rerun=rerun)
    except BaseException:
        for guard in guards:
            guard.kill()
        raise
    return Connection(spread, partial(SpreadSource, spread))


class SpreadSource(ExecutorSource):
    """Answers for futures whose jobs may be anywhere."""

    def __init__(self, spread: Spread, manager: Callable[[], Any]) -> None:
        self._spread = spread
        self._manager = manager

    @override
    def await_end(self, future: QCGPJFuture, timeout: Any) -> None:
        self._source(future.ids[0]).await_end(future, timeout)

    @override
    def cancel(self, future: QCGPJFuture) -> bool:
        return (self._spread.take_out(future) and future.cancelled()) or self._source(future.ids[0]).cancel(future)

    @override
    def cancel_some(self, names: Sequence[str]) -> Dict[str, str]:
        return self._source(names[0]).cancel_some(names)

    @override
    def states(self, names: Sequence[str]) -> Dict[str, str]:
        waiting = dict.fromkeys(self._waiting(names), "QUEUED")
        return waiting or self._source(names[0]).states(names)

    @override
    def infos(self, names: Sequence[str], ended: bool, submissions: Mapping[str, int]) -> Dict[str, JobInfo]:
        waiting: Dict[str, JobInfo] = {
            name: {"jobName": name, "status": "QUEUED", "runtime": {}, "history": ""} for name in self._waiting(names)
        }
        return waiting or self._source(names[0]).infos(names, ended, submissions)

    def _waiting(self, names: Sequence[str]) -> List[str]:
        return [] if self._spread.item_of(names[0]).member is not None else list(names)

    def _source(self, name: str) -> ExecutorSource:
        member = self._spread.item_of(name).member
        dispatcher = member.dispatcher if member is not None else self._spread.any_dispatcher
        return ExecutorSource(dispatcher, self._manager)
