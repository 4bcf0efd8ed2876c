"""The bar that shows how jobs fare: tqdm, the counts, and the thread of an executor that shows them.

::

    user's threads: submit, attach -> JobCounts.add -+
    dispatcher's thread: ends of jobs -> callback ---+-> twice a second: JobCounts.update -> tqdm -> standard error
                         answers of the manager -----+

Nobody waits for this thread but whoever waits for the executor's end, so a terminal that stands still delays no job.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import Counter, deque
from concurrent.futures import Future, wait
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Deque,
    Dict,
    Iterator,
    List,
    Optional,
    Protocol,
    Sequence,
    Set,
    Tuple,
    Type,
    TypeVar,
)

from qcg.pilotjob.executor_api._shared import protocol
from qcg.pilotjob.executor_api.errors import ExecutorClosed
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._client.requests import Question
    from qcg.pilotjob.executor_api.allocation import AllocationStatus

__all__ = ["JobCounts", "Progress", "bar_class", "not_succeeded", "outcome", "set_total"]

_shown: "weakref.WeakSet[Any]" = weakref.WeakSet()


def bar_class() -> Optional[Type[Any]]:
    """Return the class of tqdm's for bars on standard error, or in a notebook; None where neither can be seen.

    Raises:
        ImportError: tqdm is not installed.
    """
    in_notebook = _in_notebook()
    try:
        if in_notebook:
            from tqdm.auto import tqdm
        else:
            from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            "a progress bar needs tqdm; pip install 'qcg-pilotjob-executor-api[progress]'", name="tqdm"
        ) from error
    return _quiet(tqdm) if in_notebook or _is_terminal() else None


def set_total(bar: Any, total: int) -> None:
    """Set the total of a bar, now that it is known."""
    if bar.total == total:
        return
    bar.total = total
    if hasattr(bar, "container"):  # tqdm tells its widget only at the start
        bar.container.children[1].max = total


def _quiet(tqdm: Type[Any]) -> Type[Any]:
    class Bar(tqdm):  # type: ignore[misc]  # it is one of two
        monitor_interval = 0  # no thread of tqdm's, which would stay

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            _shown.add(self)

    return Bar


def _is_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it is closed
        return False


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # whoever runs in it has imported it
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _forget_in_child() -> None:
    for bar in list(_shown):
        bar.disable = True  # else it would show its last line when the child ends
    _shown.clear()


os.register_at_fork(after_in_child=_forget_in_child)


_T = TypeVar("_T")
_WORDS = {"FAILED": "failed", "OMITTED": "omitted", "CANCELED": "cancelled"}


class JobCounts:
    """Counts the jobs of futures. Any thread may `add`, which takes no lock; the rest is for one thread alone."""

    def __init__(self) -> None:
        self.since: Optional[float] = None
        """When the first future was added, as ``time.time()`` tells it."""
        self.total = 0
        self.ended = 0
        self._added: Deque[Tuple[QCGPJFuture, bool]] = deque()
        self._done: Deque[Future[Dict[str, str]]] = deque()
        self._names: Set[str] = set()
        self._states: Counter[str] = Counter()
        self._of_several: Set[Future[Dict[str, str]]] = set()

    def add(self, future: QCGPJFuture, *, attached: bool = False) -> None:
        """Count the jobs of `future`; when it is `attached`, only if they are not counted yet."""
        if self.since is None:
            self.since = time.time()
        self._added.append((future, attached))

    def update(self) -> None:
        """Take what has happened since the last time."""
        for future, attached in _taken(self._added):
            if attached and self._names.issuperset(future.ids):
                continue
            self._names.update(future.ids)
            self.total += len(future.ids)
            if len(future.ids) > 1:
                self._of_several.add(future)
            future.add_done_callback(self._done.append)
        for done in _taken(self._done):
            self._of_several.discard(done)
            if not _goes_on(done):
                self._states.update(_states_of(done))
        counts = self._counts()
        self.ended = sum(counts.values())

    @property
    def unfinished(self) -> int:
        """How many jobs have not ended."""
        return self.total - self.ended

    @property
    def text(self) -> str:
        """How many have not succeeded, like ``2 failed, 1 cancelled``; an empty string for none."""
        return not_succeeded(self._counts())

    def _counts(self) -> Counter[str]:
        counts = self._states.copy()
        for future in self._of_several:  # those of its jobs that have ended before the others
            counts.update(dict(future._states or ()).values())  # type: ignore[attr-defined]
        return counts


def not_succeeded(states: Counter[str]) -> str:
    """Return how many have not succeeded, in words."""
    return ", ".join(f"{states[state]} {word}" for state, word in _WORDS.items() if states[state])


def outcome(future: Future[Any]) -> str:
    """Return how a future has ended, as the state of a job; of several jobs it is the worst."""
    states = _states_of(future)
    return next((state for state in _WORDS if states[state]), "SUCCEED")


def _states_of(future: Future[Any]) -> Counter[str]:
    """Return the states in which the jobs of a future have ended; what was refused or lost has failed."""
    cancelled = Future.cancelled(future)
    if not isinstance(future, QCGPJFuture):
        failed = not cancelled and future.exception() is not None
        return Counter(["CANCELED" if cancelled else "FAILED" if failed else "SUCCEED"])
    states = dict(future._states or ())
    return Counter(states.get(name, "CANCELED" if cancelled else "FAILED") for name in future.ids)


def _goes_on(future: Future[Any]) -> bool:
    """Return whether the jobs of `future` go on without the executor, which has left them or was attached to them."""
    return not Future.cancelled(future) and isinstance(future.exception(), ExecutorClosed)


def _taken(queue: Deque[_T]) -> Iterator[_T]:
    while queue:
        yield queue.popleft()


_SECONDS = 0.5  # between two looks
_ANSWER_SECONDS = 0.1  # what comes later is for the next one


class Shown(Protocol):
    """Tells how the jobs of an executor fare."""

    @property
    def statuses(self) -> Sequence[AllocationStatus]:
        """Where the executor's allocations stand."""

    @property
    def is_only_client(self) -> bool:
        """Whether all jobs that the managers have are this executor's."""

    def has_ended_within(self, seconds: float) -> bool:
        """Wait for the executor's end; return whether it came."""

    def glance(self, message: bytes) -> List[Question]:
        """Ask each manager for what is of use only at once."""


class Progress:
    """Shows the jobs of an executor."""

    def __init__(self, executor: Shown, bar_class: Type[Any]) -> None:
        self._executor = executor
        self._bar_class = bar_class
        self.counts = JobCounts()
        # the thread's own
        self._bar: Any = None
        self._questions: List[Question] = []
        self._answers: List[Dict[str, Any]] = []
        self._thread = threading.Thread(target=self._run, name="qcgpj-progress")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the bar is closed; the dispatcher has to have ended."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # ---- the thread

    def _run(self) -> None:
        try:
            while not self._executor.has_ended_within(_SECONDS):
                self._show(self._where_it_stands)
            self._show(list)
            if self._bar is not None:
                self._bar.close()
        except (OSError, ValueError):  # the terminal has gone, or is closed
            if self._bar is not None:
                self._bar.disable = True

    def _show(self, more: Callable[[], List[str]]) -> None:
        counts = self.counts
        counts.update()
        if not counts.total:
            return
        if self._bar is None:
            self._bar = self._bar_class(total=counts.total, unit="job", dynamic_ncols=True, mininterval=0, miniters=0)
            self._bar.start_t = self._bar.last_print_t = counts.since
        set_total(self._bar, counts.total)
        texts = [counts.text, *more()]
        self._bar.set_postfix_str(", ".join(text for text in texts if text), refresh=False)
        if counts.ended > self._bar.n:
            self._bar.update(counts.ended - self._bar.n)
        else:  # an update by nothing would count as time in which nothing was to be done
            self._bar.refresh()

    def _where_it_stands(self) -> List[str]:
        """Return what runs, what waits and on how many cores; or where the allocation stands, before it runs."""
        unfinished = self.counts.unfinished
        if not unfinished:
            return []
        states = [status.state for status in self._executor.statuses]
        if states and "RUNNING" not in states:
            self._answers = []
            return [f"allocation {states[0].lower()}"]
        self._ask()
        if not self._answers:
            return []
        cores = f"{_sum(self._answers, 'UsedCores')}/{_sum(self._answers, 'UsableCores')} cores"
        if not self._executor.is_only_client:
            return [cores]  # what runs there may be another one's
        running = min(_sum(self._answers, "ExecutingJobs"), unfinished)
        return [_count(running, "running"), _count(unfinished - running, "queued"), cores]

    def _ask(self) -> None:
        """Ask the managers, unless they have not answered yet, and take their answers if they come soon."""
        if not self._questions:
            message = protocol.request("status", options={"allJobsFinished": True})
            self._questions = self._executor.glance(message)
        if wait([question.reply for question in self._questions], _ANSWER_SECONDS).not_done:
            return
        replies = [_data(question) for question in self._questions]
        self._questions = []
        self._answers = [data for data in replies if data is not None and "UsableCores" in data]


def _data(question: Question) -> Optional[Dict[str, Any]]:
    return question.reply.result().get("data") if question.reply.exception() is None else None


def _sum(answers: List[Dict[str, Any]], key: str) -> int:
    return sum(int(answer[key]) for answer in answers)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number else ""
