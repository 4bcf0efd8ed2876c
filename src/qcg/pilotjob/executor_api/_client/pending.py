"""The futures that wait for the ends of jobs, by the jobs' names."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Dict, Iterator, List, Optional, Set, Tuple, Union

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

__all__ = ["Pending"]


class Pending:
    """Who waits for which job. A job has one future of the submit() that brought it, and any number of attached ones.

    Iterates over the jobs' names. Belongs to the dispatcher's thread.
    """

    def __init__(self) -> None:
        # most jobs have one future, and it stands there by itself: a tuple for each would be one more thing to collect
        self._futures: Dict[str, Union[QCGPJFuture, Tuple[QCGPJFuture, ...]]] = {}
        self._attached: Set[QCGPJFuture] = set()

    def __bool__(self) -> bool:
        return bool(self._futures)

    def __iter__(self) -> Iterator[str]:
        return iter(self._futures)

    def __contains__(self, name: str) -> bool:
        return name in self._futures

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: QCGPJFuture, *, attached: bool = False) -> None:
        """Let `future` wait for its jobs."""
        for name in future.ids:
            others = self._waiting_for(name)
            self._futures[name] = (*others, future) if others else future
        if attached:
            self._attached.add(future)

    def pop(self, name: str, submission: Optional[int] = None) -> Tuple[QCGPJFuture, ...]:
        """Return the futures that wait for a job, which do so no more; those of later submissions go on waiting."""
        found = self._futures.pop(name, ())
        futures = found if isinstance(found, tuple) else (found,)
        if submission is not None:
            later = tuple(future for future in futures if future._submission(name) > submission)
            if later:
                self._futures[name] = later
                futures = tuple(future for future in futures if future not in later)
        if self._attached:
            self._attached.difference_update(future for future in futures if not self._waits_for_more(future))
        return futures

    def remove(self, future: QCGPJFuture) -> None:
        """Let `future` wait for nothing."""
        for name in future.ids:
            left = tuple(other for other in self._waiting_for(name) if other is not future)
            if left:
                self._futures[name] = left
            else:
                self._futures.pop(name, None)
        self._attached.discard(future)

    def next_in_turn(self, most: int) -> List[str]:
        """Return names of jobs that were returned longest ago, or never."""
        names = list(itertools.islice(self._futures, most))
        for name in names:
            self._futures[name] = self._futures.pop(name)  # to the end
        return names

    def futures(self) -> List[QCGPJFuture]:
        """Return each future once."""
        return list(dict.fromkeys(future for name in self._futures for future in self._waiting_for(name)))

    def submission(self, name: str) -> int:
        """Return which submission of its name a job is that is waited for: the latest one."""
        return max((future._submission(name) for future in self._waiting_for(name)), default=1)

    def is_ours(self, name: str) -> bool:
        """Return whether a job is waited for that was submitted here, not only attached to."""
        return any(future not in self._attached for future in self._waiting_for(name))

    def attached(self) -> List[QCGPJFuture]:
        """Return the attached futures."""
        return list(self._attached)

    def _waiting_for(self, name: str) -> Tuple[QCGPJFuture, ...]:
        found = self._futures.get(name, ())
        return found if isinstance(found, tuple) else (found,)

    def _waits_for_more(self, future: QCGPJFuture) -> bool:
        return any(future in self._waiting_for(name) for name in future.ids)
