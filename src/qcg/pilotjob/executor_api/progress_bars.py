"""A bar for futures; that of an executor is ``QCGPJExecutor(progress=True)``."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future, as_completed
from typing import Any, Iterable, Iterator, Optional, Set, Type, TypeVar

from qcg.pilotjob.executor_api._client.progress import bar_class, not_succeeded, outcome

__all__ = ["progress"]

F = TypeVar("F", bound="Future[Any]")


def progress(futures: Iterable[F], *, timeout: Optional[float] = None, desc: Optional[str] = None) -> Iterator[F]:
    """Yield futures as they are done, like ``concurrent.futures.as_completed``, beside a bar that counts them.

    The bar, by tqdm, is on standard error when that is a terminal, or in the notebook. It tells how many have failed
    (raised, or a job that did not succeed) or were cancelled. It is closed at the end, or when the iteration is left.

    Args:
        futures: of any executor of ``concurrent.futures``; each is yielded once.
        timeout: seconds from the first step on within which all have to be done.
        desc: what stands before the bar.

    Raises:
        ImportError: tqdm is not installed; it comes with the extra ``progress``.
        TimeoutError: (``concurrent.futures.TimeoutError``) while iterating, at the end of `timeout`.
    """
    return _yielded(set(futures), timeout, desc, bar_class())


def _yielded(futures: Set[F], timeout: Optional[float], desc: Optional[str], bars: Optional[Type[Any]]) -> Iterator[F]:
    done: Iterator[Any] = as_completed(futures, timeout)  # which are those that were given
    if bars is None:
        yield from done
        return
    states: Counter[str] = Counter()
    with bars(total=len(futures), unit="job", desc=desc, dynamic_ncols=True) as bar:
        for future in done:
            states[outcome(future)] += 1
            bar.set_postfix_str(not_succeeded(states), refresh=False)
            bar.update()
            yield future
