"""The bar of an executor: a thread that shows how its jobs fare, until the dispatcher has ended.

::

    user's threads: submit, attach --> Tally.add --+
    dispatcher's thread: ends of jobs -> callback -+-> twice a second: Tally.update -> tqdm -> standard error
                         answers of the manager ---+

Nobody waits for this thread but whoever waits for the executor's end, so a terminal that stands still delays no job.
"""

from __future__ import annotations

import threading
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Type

from qcg.pilotjob.executor_api._client.bars import set_total
from qcg.pilotjob.executor_api._client.tally import Tally
from qcg.pilotjob.executor_api._shared import protocol

if TYPE_CHECKING:
    from qcg.pilotjob.executor_api._client.connection import Connection
    from qcg.pilotjob.executor_api._client.requests import Question

__all__ = ["Progress"]

_SECONDS = 0.5  # between two looks
_ANSWER_SECONDS = 0.1  # what comes later is for the next one


class Progress:
    """Shows the jobs of a connection."""

    def __init__(self, connection: Connection, bar_class: Type[Any]) -> None:
        self._connection = connection
        self._bar_class = bar_class
        self.tally = Tally()
        # the thread's own
        self._bar: Any = None
        self._questions: List[Question] = []
        self._answers: List[Dict[str, Any]] = []
        self._thread = threading.Thread(target=self._run, name="qcgpj-progress")
        self._thread.start()

    def join(self) -> None:
        """Wait until the bar is closed; the dispatcher has to have ended."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # ---- the thread

    def _run(self) -> None:
        try:
            while not self._connection.dispatcher.join(_SECONDS):
                self._show(self._where_it_stands)
            self._show(list)
            if self._bar is not None:
                self._bar.close()
        except (OSError, ValueError):  # the terminal has gone, or is closed
            if self._bar is not None:
                self._bar.disable = True

    def _show(self, more: Callable[[], List[str]]) -> None:
        tally = self.tally
        tally.update()
        if not tally.total:
            return
        if self._bar is None:
            self._bar = self._bar_class(total=tally.total, unit="job", dynamic_ncols=True, mininterval=0, miniters=0)
            self._bar.start_t = self._bar.last_print_t = tally.since
        set_total(self._bar, tally.total)
        texts = [tally.text, *more()]
        self._bar.set_postfix_str(", ".join(text for text in texts if text), refresh=False)
        if tally.ended > self._bar.n:
            self._bar.update(tally.ended - self._bar.n)
        else:  # an update by nothing would count as time in which nothing was to be done
            self._bar.refresh()

    def _where_it_stands(self) -> List[str]:
        """Return what runs, what waits and on how many cores; or where the allocation stands, before it runs."""
        unfinished = self.tally.unfinished
        if not unfinished:
            return []
        states = [status.state for status in self._connection.allocations()]
        if states and "RUNNING" not in states:
            self._answers = []
            return [f"allocation {states[0].lower()}"]
        self._ask()
        if not self._answers:
            return []
        cores = f"{_sum(self._answers, 'UsedCores')}/{_sum(self._answers, 'UsableCores')} cores"
        if not self._connection.is_only_client:
            return [cores]  # what runs there may be another one's
        running = min(_sum(self._answers, "ExecutingJobs"), unfinished)
        return [_count(running, "running"), _count(unfinished - running, "queued"), cores]

    def _ask(self) -> None:
        """Ask the managers, unless they have not answered yet, and take their answers if they come soon."""
        if not self._questions:
            message = protocol.request("status", options={"allJobsFinished": True})
            self._questions = [dispatcher.glance(message) for dispatcher in self._connection.dispatchers]
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
