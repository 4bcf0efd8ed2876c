"""Keep what the user's threads leave for the dispatcher's thread. The picture is in dispatcher.py.

The user's threads add under one lock, so that nothing is added after the end. It is an RLock: a finalizer or a signal
handler may run in a thread that has it, and may then submit, ask or cancel. Such a handler may also wait for an answer.
So the dispatcher's thread takes what was added without the lock: each step of that is one operation of a deque or a
set, which CPython does as a whole. Only at the end does that thread need the lock.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from typing import Deque, Dict, List, Mapping, Optional, Sequence, Set, Tuple, Union

from qcg.pilotjob.executor_api._client.requests import Follow, Question, SubmittedJobs
from qcg.pilotjob.executor_api._shared.futures import copy_of_error
from qcg.pilotjob.executor_api._shared.rules import FREE_NAME
from qcg.pilotjob.executor_api._shared.wakeup import Alarm
from qcg.pilotjob.executor_api.errors import DuplicateJobName, ExecutorClosed

__all__ = ["Inbox", "Leaving"]


class Leaving(enum.IntEnum):
    """Names the ways in which the dispatcher leaves; a higher one overrides a lower one."""

    NOT = 0
    WHEN_DONE = 1
    WITHOUT_QUEUED = 2  # jobs that have not started are cancelled
    NOW = 3  # all jobs are cancelled


class Inbox:
    """Submissions and questions in the order in which they came, and the wish to leave. Any thread may use it."""

    def __init__(self) -> None:
        self.alarm = Alarm()
        self.leaving = Leaving.NOT
        self._lock = threading.RLock()
        self._items: Deque[Union[SubmittedJobs, Follow, Question]] = deque()
        self._names: Set[str] = set()
        self._removed: Dict[str, int] = {}  # which submissions were removed here: what has their names comes later
        self._broken: Optional[BaseException] = None
        self._closed = False
        self._abandoned = False
        self._unflushed = False
        self.detaching = False

    # ---- called by any thread

    def submit(self, unit: SubmittedJobs) -> None:
        """Queue jobs.

        Raises:
            ExecutorClosed: after shutdown or at the interpreter's exit.
            ManagerDied: the manager has gone.
            DuplicateJobName: one of the names was used before.
        """
        names = unit.future.ids
        with self._lock:
            self.refuse_when_leaving()
            if not self._names.isdisjoint(names) or len(names) != len(set(names)):
                self._refuse_twice(names)
            self._names.update(names)
            if self._removed:
                earlier = {name: self._removed[name] for name in names if name in self._removed}
                unit.future._are_submissions({name: number + 1 for name, number in earlier.items()})
            self._items.append(unit)
            self._unflushed = True
        self.alarm.set()

    def _refuse_twice(self, names: List[str]) -> None:
        twice = next(name for place, name in enumerate(names) if name in self._names or names.index(name) < place)
        raise DuplicateJobName(
            f"a job named {twice!r} was submitted before; give each job its own name, or, when it has ended, "
            f"{FREE_NAME}"
        )

    def put(self, item: Union[Follow, Question]) -> None:
        """Queue a question, or tell it that there will be no answer."""
        with self._lock:
            if self._broken is not None:
                item.failed(copy_of_error(self._broken))
            elif self._closed:
                item.failed(ExecutorClosed("the executor was shut down"))
            else:
                self._items.append(item)
        self.alarm.set()

    def refuse_when_leaving(self) -> None:
        """Raise what `submit` raises after the end."""
        if self._broken is not None:
            raise copy_of_error(self._broken)
        if self.leaving or self._abandoned or self.detaching:
            raise ExecutorClosed("cannot submit or attach after shutdown of the executor or the interpreter")

    def take_unflushed(self) -> bool:
        """Return whether something was submitted since this was asked last."""
        with self._lock:
            unflushed, self._unflushed = self._unflushed, False
        return unflushed

    def note_unflushed(self) -> None:
        """Take note that what was submitted may not have arrived yet."""
        with self._lock:
            self._unflushed = True

    def forget(self, names: List[str], removed: Optional[Mapping[str, int]] = None) -> None:
        """Free the names for other jobs; `removed` has the numbers of the submissions that were removed."""
        self._names.difference_update(names)
        self._removed.update(removed or {})

    def leave(self, how: Leaving) -> None:
        """Take no more jobs, and end as `how` says."""
        with self._lock:
            self.leaving = max(self.leaving, how)
        self.alarm.set()

    def detach(self) -> None:
        """Take no more jobs, and leave what there is to itself."""
        with self._lock:
            self.detaching = True
        self.alarm.set()

    @property
    def has_items(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._items)

    @property
    def is_done(self) -> bool:
        """Whether it is to leave, and nothing waits to be sent."""
        return bool(self.leaving) and not self._items  # in this order: after the one nothing comes to the others

    @property
    def has_units(self) -> bool:
        """Whether jobs wait to be sent."""
        return any(isinstance(item, SubmittedJobs) for item in self._items.copy())

    def abandon(self) -> None:
        """Leave when all jobs are done. Takes no lock: garbage is collected while somebody may hold it."""
        self._abandoned = True
        self.alarm.set()

    @property
    def is_locked_here(self) -> bool:
        """Whether the caller's thread is inside one of these functions: it is a finalizer, and must not wait."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # as Condition does

    def forget_in_child(self) -> None:
        """Close a forked child's copy; a thread that the child does not have may hold the lock."""
        self._lock = threading.RLock()
        self.alarm.close()

    # ---- called by the dispatcher's thread

    def take(self, most: int) -> Tuple[List[SubmittedJobs], Optional[Union[Follow, Question]]]:
        """Return what came first: units with about `most` jobs, or something else."""
        units: List[SubmittedJobs] = []
        count = 0
        if not self._items:
            return units, None  # what is put in now comes with an alarm
        while self._items and count < most:
            item = self._items[0]
            if isinstance(item, SubmittedJobs):
                units.append(item)
                count += len(item.future.ids)
            elif units:
                break
            self._items.popleft()
            if not isinstance(item, SubmittedJobs):
                return units, item
        return units, None

    def take_questions(self) -> List[Question]:
        """Return all questions; all else stays."""
        if not self._items:
            return []
        questions = [item for item in self._items.copy() if isinstance(item, Question)]
        for question in questions:
            self._items.remove(question)
        return questions

    def keep(self, question: Question) -> None:
        """Put back a question that cannot be answered yet, for the next time that the thread wakes up.

        There is no alarm: the thread would wake up at once, find no answer, and put the question back, for ever.
        """
        self._items.append(question)

    def has_unsent(self, name: str) -> bool:
        """Return whether a job waits to be sent."""
        return any(isinstance(item, SubmittedJobs) and name in item.future.ids for item in self._items.copy())

    def drop(self, names: Sequence[str]) -> bool:
        """Cancel jobs that wait to be sent, whole submissions of them; return whether those were all of `names`."""
        items = self._items.copy()
        units = [item for item in items if isinstance(item, SubmittedJobs) and set(item.future.ids) <= set(names)]
        if {name for unit in units for name in unit.future.ids} != set(names):
            return False
        for unit in units:
            self._items.remove(unit)
        for unit in units:
            for name in unit.future.ids:
                unit.future._job_ended(name, "CANCELED")
        return True

    def take_unsent(self) -> List[SubmittedJobs]:
        """Return all units; the questions stay."""
        with self._lock:
            # what a finalizer adds meanwhile must not be lost
            items, self._items = self._items, deque()
            self._items.extendleft(item for item in reversed(items) if not isinstance(item, SubmittedJobs))
        return [item for item in items if isinstance(item, SubmittedJobs)]

    def abandoned(self) -> bool:
        """Return whether `abandon` was called and nobody said how to leave."""
        return self._abandoned and not self.leaving

    def break_(self, error: BaseException) -> None:
        """Refuse everything with copies of `error` from now on."""
        self._broken = error

    def close(self) -> Tuple[List[Union[SubmittedJobs, Follow, Question]], BaseException]:
        """Take nothing more; return what is left, and why nobody will see to it."""
        with self._lock:
            self._closed = True
            left = list(self._items)
            self._items.clear()
            return left, self._broken or ExecutorClosed("the executor was shut down")
