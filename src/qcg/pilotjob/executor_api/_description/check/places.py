"""Where in a text each key and each value of what it describes stands."""

from __future__ import annotations

import ast
import warnings
from typing import Any, Dict, List, Tuple, Union

from qcg.pilotjob.executor_api._description.reading import Lines

__all__ = ["Path", "Places", "at"]

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
