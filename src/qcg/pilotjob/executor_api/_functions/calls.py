"""What the hub knows of: what a pool was asked for, its calls, its workers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Deque, Dict, Optional, Tuple

from qcg.pilotjob.executor_api._functions import messages
from qcg.pilotjob.executor_api._functions.future import FunctionFuture

__all__ = ["Call", "Needs", "Worker"]


@dataclass(frozen=True)
class Needs:
    """What a pool was asked for.

    Attributes:
        job: what every worker's description has beside its name and command; its execution is completed.
        python: the interpreter.
        most: how many workers there may be.
        ranks: how many processes a worker has.
        fresh: whether a worker serves one call only.
        idle_seconds: after which a worker that has nothing to do gives its cores back.
        retries: how often a call is made again whose worker has died.
        seconds: how long a call may take.
        all_ranks: whether the values of all ranks come back, or that of the first one.
    """

    job: Dict[str, Any]
    python: str
    most: int
    ranks: int
    fresh: bool
    idle_seconds: float
    retries: int
    seconds: Optional[float]
    all_ranks: bool


class Call:
    """One call: its pickle and its future."""

    __slots__ = ("died", "future", "is_over", "parcel")

    def __init__(self, parcel: messages.Parcel, future: FunctionFuture) -> None:
        self.parcel = parcel
        self.future = future
        self.died = 0  # how many workers have, over it
        self.is_over = False  # its future has an end, or is about to get one


@dataclass
class Worker:
    """A job that makes calls."""

    number: int
    job: Any = None
    ranks: Dict[int, bytes] = field(default_factory=dict)
    control: bytes = b""
    answers: Dict[int, Any] = field(default_factory=dict)
    calls: Deque[Call] = field(default_factory=deque)  # the first of them is being made
    messages: int = 0  # with calls
    sent: int = 0  # calls in the last of those
    paths: Tuple[str, str] = ("", "")
    is_ending: bool = False
    is_asked: bool = False  # for calls that have not begun
    serves_since: float = 0.0
    gives_way: bool = False  # to another job, when its call has ended
    look_at: Optional[float] = None  # when what has not begun is to be asked for
    end_at: Optional[float] = None  # when what it does, or does not, has to be over

    def __hash__(self) -> int:
        return self.number
