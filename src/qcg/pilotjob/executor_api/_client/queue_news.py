"""Tells those that have cores to give back that a job waits for some. The manager's end is _manager/queue_news.py."""

from __future__ import annotations

import threading
import weakref
from typing import List, Protocol

__all__ = ["Listener", "Listeners", "News"]


class Listener(Protocol):
    """Has cores to give back."""

    def others_wait(self, name: str) -> None:
        """Take the news that the job, or the iteration of one, called `name` has waited longest. It must not wait."""


class News(Protocol):
    """The part of a channel by which the manager says who waits."""

    def listen(self) -> None:
        """Take the news of jobs that wait for cores from now on."""

    def longest_waiting(self) -> str:
        """Return which job has waited longest, when there was such news; otherwise an empty string."""


class Listeners:
    """Holds weak references to those that are told. Any thread may add one; the rest is the dispatcher's thread's."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._references: List["weakref.ref[Listener]"] = []
        self._listens = False

    def add(self, listener: Listener) -> None:
        """Tell `listener` too, as long as somebody else keeps it."""
        with self._lock:
            there = [reference for reference in self._references if reference() is not None]
            self._references = [*there, weakref.ref(listener)]

    def hear(self, news: News) -> None:
        """Subscribe when the first listener has come, and tell all of them what has come."""
        if not self._references:
            return
        if not self._listens:
            self._listens = True
            news.listen()
        name = news.longest_waiting()
        for reference in self._references if name else ():
            listener = reference()
            if listener is not None:
                listener.others_wait(name)
