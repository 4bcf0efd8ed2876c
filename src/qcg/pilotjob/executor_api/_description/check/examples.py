"""Values for the placeholders that have none yet, each good in its place."""

from __future__ import annotations

import ast
import warnings
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Tuple, Union

from qcg.pilotjob.executor_api._description.reading import Lines
from qcg.pilotjob.executor_api._description.template import ANY, MARK, NO_TEXT, Hole, Template, hole_in
from qcg.pilotjob.executor_api._shared.rules import MOST_ITERATIONS

__all__ = ["GOOD", "NO_NAME", "Open", "Path", "Places", "at", "open_places", "stand_ins"]

Path = Tuple[Union[str, int], ...]


def at(value: Any, path: Path, absent: Any = None) -> Any:
    """Return what is at `path` in `value`; `absent` when nothing is."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return absent
    return value


class Places:
    """The places in a JSON or Python literal, as offsets.

    Attributes:
        twice: the keys that a dictionary has had before, with their places.
    """

    def __init__(self, text: str) -> None:
        self.twice: List[Tuple[str, int]] = []
        self._keys: Dict[Path, int] = {}
        begin = len(text) - len(text.lstrip())
        self._values: Dict[Path, int] = {(): begin}
        self._begin = begin
        self._lines = Lines(text.strip())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that JSON has and Python has not
            try:
                tree = ast.parse(text.strip(), mode="eval")
            except (SyntaxError, ValueError, MemoryError, RecursionError):
                return  # nested deeper than Python can read
        self._visit(tree.body, ())

    def _visit(self, node: ast.expr, path: Path) -> None:
        self._values[path] = self._begin + self._lines.offset_of(node)
        if isinstance(node, (ast.List, ast.Tuple)):
            for number, item in enumerate(node.elts):
                self._visit(item, (*path, number))
        elif isinstance(node, ast.Dict):
            for key, item in zip(node.keys, node.values):
                self._visit_item(key, item, path)

    def _visit_item(self, key: Any, item: ast.expr, path: Path) -> None:
        if not isinstance(key, ast.Constant) or not isinstance(key.value, (str, int)):
            return
        below = (*path, key.value)
        place = self._begin + self._lines.offset_of(key)
        if below in self._keys:
            self.twice.append((str(key.value), place))
            self._forget(below)
        self._keys[below] = place
        self._visit(item, below)

    def _forget(self, path: Path) -> None:
        """Forget what is below `path`: only what comes last counts."""
        for known in (self._keys, self._values):
            for below in [below for below in known if below[: len(path)] == path]:
                del known[below]

    def key(self, path: Path) -> int:
        """Return where the last key of `path` stands; without one of its own, where the value above it does."""
        return self._keys[path] if path in self._keys else self.value(path[:-1])

    def value(self, path: Path) -> int:
        """Return where a value stands; without a place of its own, where the one above it does."""
        while path not in self._values:
            path = path[:-1]
        return self._values[path]


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
    """Return whether this is a key that is the same whatever the parameters are."""
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
