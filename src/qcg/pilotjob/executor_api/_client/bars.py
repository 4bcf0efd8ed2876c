"""tqdm, as it is used here: where a bar can be seen, and by nobody else than who has made it."""

from __future__ import annotations

import os
import sys
import weakref
from typing import Any, Optional, Type

__all__ = ["bar_class", "set_total"]

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
    """Let there be `total` to do, now that it is known."""
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
