"""A template and rows of parameters, as jobs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any, Dict, Iterator, Sequence, Set

import qcg.pilotjob.executor_api as api
from qcg.pilotjob.executor_api._command.program import TEMPLATES
from qcg.pilotjob.executor_api._command.submitted import Submitted, digest
from qcg.pilotjob.executor_api._description.rendering import encoded, rendered, unused
from qcg.pilotjob.executor_api._description.validation import validated
from qcg.pilotjob.executor_api.errors import InvalidOption, JobUnknown, MissingParameter
from qcg.pilotjob.executor_api.qcgpj_executor import QCGPJExecutor
from qcg.pilotjob.executor_api.qcgpj_future import QCGPJFuture
from qcg.pilotjob.executor_api.templates.qcgpj_template import read

__all__ = ["Study"]

_REMARK = "_"


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
            name = _given_name(row, number) or _name(naming, row, number)
            if name in self.rows:
                raise InvalidOption(f"two jobs would be named {name!r}; give --name with parameters that differ")
            self.rows[name] = {**row, "name": name}

    def refuse_unused(self, names: Sequence[str]) -> None:
        """Refuse parameters that neither the template nor the jobs' names are made with, except remarks.

        Raises:
            InvalidOption: there are such.
        """
        surplus = [name for name in names if not name.startswith(_REMARK) and not _occurs(name, self._naming)]
        problem = unused(read(self._template)[0], surplus)
        if problem:
            raise InvalidOption(
                f"a column, --set or --grid: {problem}; use it in --name, or begin its name with {_REMARK!r} when it "
                "is for the results only"
            )

    def refuse_equal_names(self) -> None:
        """Refuse rows that give jobs of the same name; see `descriptions` for what else is refused.

        Raises:
            InvalidOption: there are such.
        """
        seen: Set[str] = set()
        for job in self.descriptions():
            if job["name"] in seen:
                raise InvalidOption(
                    f"two jobs would be named {job['name']!r}; let the template's name have ${{name}}, which differs"
                )
            seen.add(job["name"])

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

    @property
    def digest(self) -> str:
        """What tells the template from another one."""
        text, defaults = read(self._template)
        return digest(text, defaults)

    def submit(self, executor: QCGPJExecutor, submitted: Submitted) -> Iterator[QCGPJFuture]:
        """Submit one after the other; each is yielded before the next one is, and `submitted` has it."""
        for row in self.rows.values():
            yield self._submit_one(executor, row, submitted)

    def _submit_one(self, executor: QCGPJExecutor, row: Dict[str, Any], submitted: Submitted) -> QCGPJFuture:
        submitted.add(row, self.digest)  # before the manager has it: of a job of the run the parameters are known
        future = executor.submit(self._template, row)
        submitted.add_names(row["name"], future.ids)
        return future

    def resume(self, executor: QCGPJExecutor, submitted: Submitted, *, retry_failed: bool) -> Iterator[QCGPJFuture]:
        """Do as `submit`, but follow the jobs that an earlier run knows; failed ones again, when that is asked."""
        for row in self.rows.values():
            yield self._resume_one(executor, row, submitted, retry_failed=retry_failed)

    def _resume_one(
        self, executor: QCGPJExecutor, row: Dict[str, Any], submitted: Submitted, *, retry_failed: bool
    ) -> QCGPJFuture:
        names = submitted.jobs_of(row["name"])
        try:
            future = executor.attach(*names)
        except JobUnknown:
            return self._submit_one(executor, row, submitted)
        if not retry_failed or not future.done() or set(future.status().values()) <= {"SUCCEED"}:
            return future
        executor.qcgpj_manager.remove(names)
        again = executor.submit(self._template, row)
        again.status()  # the manager has it: until then the run has the job with its earlier parameters
        submitted.add(row, self.digest)
        submitted.add_names(row["name"], again.ids)
        return again


def _template(given: str) -> Any:
    if given in TEMPLATES:
        return getattr(api, given)
    if not Path(given).is_file():
        raise InvalidOption(f"{given!r} is no file and none of the templates {', '.join(TEMPLATES)}")
    return api.JSONTemplate(given)


def _given_name(row: Dict[str, Any], number: int) -> str:
    name = row.get("name", "")
    if name is None or name == "":
        return ""
    if not isinstance(name, str):
        raise InvalidOption(f"row {number + 1}: the name is {name!r}; give text")
    return name


def _occurs(name: str, naming: str) -> bool:
    return name == "name" or re.search(rf"(?<!\$)\$(\{{{name}\}}|{name}\b)", naming) is not None


def _name(naming: str, row: Dict[str, Any], number: int) -> str:
    try:
        return Template(naming).substitute({"n": number, **row})
    except (KeyError, ValueError) as error:
        raise InvalidOption(
            f"--name {naming!r}: {error} is no parameter; they are {', '.join({'n': 0, **row})}"
        ) from error
