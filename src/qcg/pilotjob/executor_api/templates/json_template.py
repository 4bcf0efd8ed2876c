"""A template read from a file."""

from __future__ import annotations

import os
from typing import Any, Dict, Tuple, Union

from qcg.pilotjob.executor_api.templates.qcgpj_template import QCGPJTemplate

__all__ = ["JSONTemplate"]


class JSONTemplate(QCGPJTemplate):
    """The description in a file, with ``${placeholders}``; a ``defaults`` dictionary at its top gives defaults.

    The file is read once, here. Keyword arguments are defaults too, and beat those in the file.

    Raises:
        OSError: the file cannot be read.
        TemplateError: (a ``ValueError``) its text is no description of a job, whatever the parameters; the message
            has file, line and column.
    """

    def __init__(self, path: Union[str, "os.PathLike[str]"], **defaults: Any) -> None:
        from pathlib import Path  # half a dozen modules, which need not delay the start of those who have no file

        from qcg.pilotjob.executor_api._description.rendering import text_of_template

        self.path = Path(path)
        self._text = text_of_template(self.path)
        self._defaults = defaults

    def template(self) -> Tuple[str, Dict[str, Any]]:  # type: ignore[override]  # an object's template, not a class's
        """Return the file's text and the defaults that were given for it."""
        return self._text, self._defaults

    def __repr__(self) -> str:
        return f"JSONTemplate({str(self.path)!r})"
