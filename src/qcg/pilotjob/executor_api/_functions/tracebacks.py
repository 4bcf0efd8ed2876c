"""Tracebacks of calls: `told` in the worker that made the call, `shown` in the process that submitted it.

Of code that was sent by value only the sender is sure to have the source: the worker may be on another node and in
another directory, and what was typed into a notebook is in no file. So the worker's text has marks in the place of such
lines, and comes with a list of what they stand for; `shown` replaces them by the lines.
"""

from __future__ import annotations

import os
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Callable, Container, Dict, List, Tuple

if TYPE_CHECKING:
    from traceback import FrameSummary

__all__ = ["said", "shown", "told"]

_POSITIONS = ("end_lineno", "colno", "end_colno")  # from Python 3.11 on, for the ^^^^ below a line
_MARKED_LINE = r"^(.*)    ([0-9a-f]{16})-(\d+)\n"  # the same for all: it takes longer to compile than to use
_Place = Tuple[Any, ...]


def said(how: Callable[[Any], str], value: Any) -> str:
    """Return what str or repr says of a value, or that it cannot, when the value's class raises."""
    try:
        return how(value)
    except BaseException as error:  # noqa: BLE001  # it is the code of somebody's class
        return f"<{type(value).__name__} whose {how.__name__}() raises {type(error).__name__}>"


def told(error: BaseException, sent_files: Container[str]) -> Dict[str, Any]:
    """Return what can always be told of an exception, for `shown`; JSON can take it.

    Lines of the files in `sent_files` are left for `shown` to put there.
    """
    mark = os.urandom(8).hex()  # another one each time, so that nothing in the text can be taken for it
    places: Dict[_Place, int] = {}
    try:
        text = _text_with_marks(error, sent_files, mark, places)
    except BaseException as problem:  # noqa: BLE001  # traceback asks the exception for this and that: somebody's code
        text = f"{type(error).__name__}: {said(str, error)}\n(no traceback: {said(repr, problem)})\n"
    return {
        "type": type(error).__name__,
        "text": said(str, error),
        "traceback": text,
        "mark": mark,
        "places": list(places),
    }


def shown(words: Dict[str, Any]) -> str:
    """Return the traceback that `told` has told of, with the lines of the source as this process knows them."""
    texts: Dict[int, List[str]] = {}

    def put(found: "re.Match[str]") -> str:
        margin, mark, number = found[1], found[2], int(found[3])  # in an exception group there is a margin
        if mark != words["mark"]:
            return found[0]
        if number not in texts:
            texts[number] = _source_lines(*words["places"][number])
        return "".join(f"{margin}{line}\n" for line in texts[number])

    return re.sub(_MARKED_LINE, put, words["traceback"], flags=re.MULTILINE)


def _text_with_marks(error: BaseException, sent_files: Container[str], mark: str, places: Dict[_Place, int]) -> str:
    from traceback import FrameSummary, TracebackException

    whole = TracebackException(type(error), error, error.__traceback__, lookup_lines=False)
    summaries = [whole]
    while summaries:
        summary = summaries.pop()
        summaries.extend(filter(None, (summary.__cause__, summary.__context__, *_members(summary))))
        for index, frame in enumerate(summary.stack):
            if frame.filename in sent_files and frame.lineno is not None:
                number = places.setdefault(_place_of(frame), len(places))
                summary.stack[index] = FrameSummary(frame.filename, frame.lineno, frame.name, line=f"{mark}-{number}")
    return "".join(whole.format())


def _members(summary: Any) -> Any:
    return getattr(summary, "exceptions", None) or ()  # those of an exception group, from Python 3.11 on


def _place_of(frame: "FrameSummary") -> _Place:
    positions = tuple(getattr(frame, name) for name in _POSITIONS if hasattr(frame, name))
    code = getattr(frame, "_code", None)  # where Python keeps the lines of -c and of its prompt by the code, 3.13.1 on
    key = () if code is None else (code.co_qualname, code.co_firstlineno)
    return frame.filename, frame.lineno, positions, key, _line_here(frame)


def _line_here(frame: "FrameSummary") -> str:
    """Return the line as this process can read it, should the sender have no such file any more."""
    if not os.path.isabs(frame.filename):
        return ""  # a relative name, or one like <string>, may mean something else here
    try:
        return frame.line or ""
    except Exception:  # noqa: BLE001  # it is not in Python, for which Python 3.9 raises; the sender says so then
        return ""


def _source_lines(file: str, number: int, positions: List[Any], key: List[Any], theirs: str) -> List[str]:
    """Return a line of source as a traceback has it, perhaps more lines below it; none when nobody knows it."""
    try:
        return _formatted(file, number, dict(zip(_POSITIONS, positions)), key, theirs)
    except Exception as error:  # noqa: BLE001  # what there is by that name may be anything, and not in Python
        return [f"    (the line cannot be shown: {said(repr, error)})"]


def _formatted(file: str, number: int, positions: Dict[str, Any], key: List[Any], theirs: str) -> List[str]:
    import linecache
    from traceback import FrameSummary, StackSummary

    linecache.checkcache(file)
    frame = FrameSummary(file, number, "", **positions)
    if not frame.line:
        # of a line that the worker has read it is not known where in it the columns are: it came without its margin
        typed = _typed(file, number, positions, key)
        frame = FrameSummary(file, number, "", line=typed or theirs, **(positions if typed else {}))
    frame.filename = ""  # it may have more than one line
    return StackSummary.from_list([frame]).format()[0].split("\n")[1:-1]


def _typed(file: str, number: int, positions: Dict[str, Any], key: List[Any]) -> str:
    """Return the lines of what was given by ``-c`` or typed at Python's prompt, which it keeps by the code."""
    import linecache

    lines_of = getattr(linecache, "_getlines_from_code", None)
    if lines_of is None or not key:
        return ""
    lines = lines_of(SimpleNamespace(co_filename=file, co_qualname=key[0], co_firstlineno=key[1]))
    return "".join(line.rstrip() + "\n" for line in lines[number - 1 : positions["end_lineno"]])
