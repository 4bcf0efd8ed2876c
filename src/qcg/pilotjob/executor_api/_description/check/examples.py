"""Values for the placeholders that have none yet, each good in its place."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Tuple, Union

from qcg.pilotjob.executor_api._description.check.places import Path
from qcg.pilotjob.executor_api._description.quoted_values import ANY, NO_TEXT
from qcg.pilotjob.executor_api._description.template import MARK, Hole, Template, hole_in
from qcg.pilotjob.executor_api._shared.limits import MOST_ITERATIONS

__all__ = ["GOOD", "NO_NAME", "Open", "open_places", "stand_ins"]

_MANY = 10**9
NO_NAME = "x "
"""A text that no job can have as its name."""

GOOD: Dict[Union[str, int], Any] = {
    "args": [],
    "attributes": {},
    "dependencies": {},
    "after": [],
    "env": {},
    "exact": 1,
    "exec": "x",
    "execution": {"exec": "x"},
    "gpus": 1,
    "iteration": {"stop": 1},
    "login": True,
    "max": _MANY,
    "min": 1,
    "model": "default",
    "model_opts": {},
    "modules": [],
    "mpirun_args": [],
    "nodeCrs": {},
    "numCores": 1,
    "numNodes": 1,
    "params": {},
    "ranks": 1,
    "resources": {},
    "scheduler": {"name": "maximum-iters"},
    "script": "x",
    "srun_args": [],
    "start": 0,
    "stop": MOST_ITERATIONS,
    "values": ["x"],
    "wt": "1h",
}
"""By key, a value that is good whatever stands beside it."""

_CHOSEN = ("model", "wt")
"""Keys whose text is none of the user's own: a piece of it says nothing about the whole."""


class Open(NamedTuple):
    """A value that waits for its parameter, and what it is when the parameter says that there is none."""

    path: Path
    absent: Any  # None: the key drops out


def stand_ins(template: Template, job: Any, values: Mapping[str, Any]) -> Dict[int, Any]:
    """Return values for the placeholders in the description `job` that stand for a whole value.

    The others are texts, or parts of some, for which the placeholder's own name will do.
    """
    chosen = {}
    own = hole_in(job.get("name")) if isinstance(job, dict) else None
    for path, text in _texts(job, ()):
        number = hole_in(text)
        if number is None or template.holes[number].name in values:
            continue
        hole = template.holes[number]
        is_another = path[:2] == ("dependencies", "after") and (own is None or template.holes[own].name != hole.name)
        chosen[number] = NO_NAME if is_another and hole.quoted else _good_at(path, hole)
        if path == ("iteration", "stop") and isinstance(job["iteration"].get("start"), int):
            chosen[number] = job["iteration"]["start"] + 1
    return chosen


def _good_at(path: Path, hole: Hole) -> Any:
    if not path:
        good: Any = {"execution": GOOD["execution"]}
    elif path[:-1] == ("resources", "nodeCrs"):
        good = 1
    elif (path[:1] == ("attributes",) and len(path) > 1) or "env" in path[:-1]:
        good = hole.name  # keys there are the user's own
    else:
        good = GOOD.get(path[-1], hole.name)
    takes_text = hole.quoted and not hole.or_value
    return hole.name if takes_text and not isinstance(good, str) else good


def open_places(template: Template, job: Any, values: Mapping[str, Any]) -> Tuple[List[Open], List[Path]]:
    """Return the values that may be absent, and those of which too little is known to judge them."""
    may_be_absent, unknown = [], []
    for path, text in _texts(job, ()):
        names = {template.holes[number].name for number in _numbers(text)}
        waiting = names - values.keys()
        if not waiting or path in ((), ("name",)) or not all(map(_is_fixed, path)):
            continue
        if waiting == names and not MARK.sub("", text):
            may_be_absent.append(Open(path, None if _takes_no_text(path) else ""))
        elif path[-1] in _CHOSEN or path[-2:] == ("scheduler", "name"):
            unknown.append(path)
    return may_be_absent, unknown


def _is_fixed(step: Union[str, int]) -> bool:
    """Whether this is a key that is the same whatever the parameters are."""
    return isinstance(step, str) and not MARK.search(step)


def _takes_no_text(path: Path) -> bool:
    place: Any = NO_TEXT
    for step in path:
        place = place.get(ANY, place.get(step))
        if place is None:
            return False
    return True


def _texts(value: Any, path: Path) -> Iterator[Tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _texts(item, (*path, number))


def _numbers(text: str) -> List[int]:
    return [int(mark) for mark in MARK.findall(text) if mark.isdigit()]
