"""A template and rows of parameters, as jobs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any, Dict, Iterator, Sequence

import qcg.pilotjob.executor_api as api
from qcg.pilotjob.executor_api._command.ready_made import TEMPLATES
from qcg.pilotjob.executor_api.errors import InvalidOption, JobUnknown, MissingParameter
from qcg.pilotjob.executor_api.qcgpj_executor import QCGPJExecutor
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture
from qcg.pilotjob.executor_api.rendering import encoded, rendered, unused
from qcg.pilotjob.executor_api.templates.qcgpj_template import read
from qcg.pilotjob.executor_api.validation import validated

__all__ = ["Study"]


class Study:
    """The jobs of a study; each row of parameters has a ``name``.

    Attributes:
        rows: the parameters, by the job's name.
    """

    def __init__(self, template: str, rows: Sequence[Dict[str, Any]], naming: str) -> None:
        """Read `template`, a file or one of `TEMPLATES`; a row without a name gets one by `naming`.

        Raises:
            InvalidOption: there is no such template, or two rows have one name.
        """
        self._template = _template(template)
        self._naming = naming
        self.rows: Dict[str, Dict[str, Any]] = {}
        for number, row in enumerate(rows):
            name = row.get("name") or _name(naming, row, number)
            if name in self.rows:
                raise InvalidOption(f"two jobs would be named {name!r}; give --name with parameters that differ")
            self.rows[name] = {**row, "name": name}

    def refuse_unused(self, names: Sequence[str]) -> None:
        """Refuse parameters that neither the template nor the jobs' names are made with.

        Raises:
            InvalidOption: there are such.
        """
        surplus = unused(read(self._template)[0], [name for name in names if not _occurs(name, self._naming)])
        if surplus:
            raise InvalidOption(f"--set or --grid: {surplus}, or use it in --name")

    def descriptions(self) -> Iterator[Dict[str, Any]]:
        """Yield the jobs as the manager would get them.

        Raises:
            InvalidOption: a parameter is missing.
            TemplateError, InvalidJob: one of them cannot be made.
        """
        text, defaults = read(self._template)
        for name, row in self.rows.items():
            try:
                jobs = rendered(text, row, defaults)
            except MissingParameter as error:
                raise InvalidOption(
                    f"job {name!r}: the placeholder {error.name!r} has no value; there are {', '.join(row)}: "
                    "give a column of that name, --set or --grid"
                ) from error
            for job in jobs:
                yield json.loads(encoded(validated(job, None)))

    def submit(self, executor: QCGPJExecutor) -> Iterator[QCGPJFuture]:
        """Submit one after the other; each is yielded before the next one is."""
        for row in self.rows.values():
            yield executor.submit(self._template, row)

    def resume(self, executor: QCGPJExecutor, *, retry_failed: bool) -> Iterator[QCGPJFuture]:
        """Do as `submit`, but follow the jobs that an earlier run knows; failed ones again, when that is asked."""
        for row in self.rows.values():
            yield self._resume_one(executor, row, retry_failed)

    def _resume_one(self, executor: QCGPJExecutor, row: Dict[str, Any], retry_failed: bool) -> QCGPJFuture:
        try:
            future = executor.attach(row["name"])
        except JobUnknown:
            return executor.submit(self._template, row)
        if not retry_failed or not future.done() or set(future.status().values()) <= {"SUCCEED"}:
            return future
        executor.qcgpj_manager.remove([row["name"]])
        return executor.submit(self._template, row)


def _template(given: str) -> Any:
    if given in TEMPLATES:
        return getattr(api, given)
    if not Path(given).is_file():
        raise InvalidOption(f"{given!r} is no file and none of the templates {', '.join(TEMPLATES)}")
    return api.JSONTemplate(given)


def _occurs(name: str, naming: str) -> bool:
    return name == "name" or re.search(rf"(?<!\$)\$(\{{{name}\}}|{name}\b)", naming) is not None


def _name(naming: str, row: Dict[str, Any], number: int) -> str:
    try:
        return Template(naming).substitute({"n": number, **row})
    except (KeyError, ValueError) as error:
        raise InvalidOption(
            f"--name {naming!r}: {error} is no parameter; they are {', '.join({'n': 0, **row})}"
        ) from error
