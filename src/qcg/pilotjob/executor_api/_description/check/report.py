"""A template's text -> what is wrong with it, in the order of the text, and the parameters that it takes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

from qcg.pilotjob.executor_api._description.check.examples import Path, Places, at, open_places, stand_ins
from qcg.pilotjob.executor_api._description.check.refusals import sure_problems
from qcg.pilotjob.executor_api._description.reading import parsed, place_of
from qcg.pilotjob.executor_api._description.rendering import drafted
from qcg.pilotjob.executor_api._description.template import (
    MARK,
    VARIABLES,
    Template,
    compiled,
    cut,
    even,
    hole_in,
    with_values,
    without_schema,
)
from qcg.pilotjob.executor_api._description.validation import refuse_cycles
from qcg.pilotjob.executor_api._shared.rules import circle_in
from qcg.pilotjob.executor_api.errors import InvalidJob, TemplateError

__all__ = ["Finding", "Readable", "Report", "checked", "offset_of", "read"]

_MOST = 100
_STUMBLE = re.compile(r"""\\u....|\\.|\$\{[^{}"'\n]*\}?|\$\w*|\$""")


class Readable:
    """A template that was read.

    Attributes:
        template: the template.
        text: a literal with everything at the place that it has in the user's text.
    """

    def __init__(self, template: Template, text: str) -> None:
        self.template = template
        self.text = text


def read(text: str) -> Tuple[Optional[Readable], List[TemplateError]]:
    """Return the template, if it can be read at all, and what is wrong with its text."""
    text, problems = _mended(without_schema(text), cut)
    try:
        literal = even(text, cut(text))
        parsed(literal)
    except TemplateError as error:
        # behind a placeholder that is none the syntax is often wrong for that reason alone
        return None, problems or [error]
    text, more = _mended(text, compiled)
    try:
        return Readable(with_values(compiled(text)), literal), problems + more
    except TemplateError as error:  # it has no place: a variable of the manager among the defaults
        return None, [*problems, *more, error]


def _mended(text: str, step: Callable[[str], Template]) -> Tuple[str, List[TemplateError]]:
    """Do `step` until nothing stops it; what does is blotted out, so that all behind it keeps its place."""
    problems: List[TemplateError] = []
    while len(problems) < _MOST:
        try:
            step(text)
        except TemplateError as error:
            offset = offset_of(text, error)
            stumble = _STUMBLE.match(text, offset)
            if error.line is None or stumble is None:
                return text, problems
            problems.append(error)
            text = text[:offset] + "_" * len(stumble.group()) + text[stumble.end() :]
        else:
            break
    return text, problems


def offset_of(text: str, error: TemplateError) -> int:
    """Return where in `text` the place of an error is; 0 when it has none."""
    lines = text.split("\n")
    return sum(len(line) + 1 for line in lines[: (error.line or 1) - 1]) + (error.column or 1) - 1


_NONE: Tuple[Any, ...] = (None, "", [], {})  # defaults that mean that there is nothing


@dataclass(frozen=True, order=True)
class Finding:
    """Something that is wrong, and its place in the text, from 1."""

    line: int
    column: int
    problem: str


@dataclass(frozen=True)
class Report:
    """Holds what is known of a template.

    Attributes:
        findings: all that is wrong, in the order of the text.
        required: parameters that have to be given.
        defaults: parameters with a default in the text.
        waits_for: jobs that must be submitted before.
    """

    findings: List[Finding]
    required: List[str] = field(default_factory=list)
    defaults: Dict[str, Any] = field(default_factory=dict)
    waits_for: List[str] = field(default_factory=list)


def checked(text: str) -> Report:
    """Return what is wrong in `text` whatever its parameters will be, and the parameters."""
    readable, errors = read(text)
    found = [(offset_of(text, error), error.problem) for error in errors]
    if readable is None:
        return Report(_findings(text, found))
    check = _Check(readable)
    found += check.problems()
    return Report(_findings(text, found), check.required, dict(readable.template.defaults), check.waits_for)


def _findings(text: str, found: List[Tuple[int, str]]) -> List[Finding]:
    return sorted({Finding(*place_of(text, offset), problem) for offset, problem in found})


class _Check:
    """The check of one text that was read."""

    def __init__(self, readable: Readable) -> None:
        self._template: Template = readable.template
        self._places = Places(readable.text)
        self._values = {name: value for name, value in self._template.defaults.items() if value not in _NONE}
        self._jobs = list(_jobs_of(self._template.structure))
        self.waits_for: List[str] = []

    @property
    def required(self) -> List[str]:
        """The parameters without a default; the manager's variables are none."""
        names = (hole.name for hole in self._template.holes if not (hole.braced and hole.name in VARIABLES))
        return [name for name in dict.fromkeys(names) if name not in self._template.defaults]

    def problems(self) -> Iterator[Tuple[int, str]]:
        """Yield all problems with their offsets."""
        for key, place in self._places.twice:
            yield place, f"the key {key!r} stands here a second time, and only the last one counts; leave one out"
        yield from self._of_defaults()
        chosen: Dict[int, Any] = {}
        for _, job in self._jobs:
            chosen.update(stand_ins(self._template, job, self._values))
        holes = self._template.holes
        try:
            drafts = drafted(self._template, self._values, lambda number: chosen.get(number, holes[number].name))
        except TemplateError as error:
            yield self._places.value(()), error.problem
            return
        for job, draft in zip(self._jobs, drafts):
            yield from self._of_job(job, draft)
        yield from self._of_names()
        yield from self._of_circle()

    def _of_defaults(self) -> Iterator[Tuple[int, str]]:
        for name, value in self._template.defaults.items():
            if name not in self._template.names:
                place = self._places.key(("defaults", name))
                yield (
                    place,
                    f"the default of {name!r} is for no placeholder; write ${{{name}}} somewhere, or leave it out",
                )
            elif isinstance(value, str) and not all(hole.quoted for hole in self._template.holes if hole.name == name):
                try:
                    parsed(value)
                except TemplateError:
                    self._values.pop(name, None)
                    place = self._places.value(("defaults", name))
                    yield (
                        place,
                        (
                            f"the default of {name!r} is the text {value!r} where no text can be; "
                            "write a number, a list or a dictionary"
                        ),
                    )

    def _of_job(self, job: Tuple[Path, Any], draft: Dict[str, Any]) -> Iterator[Tuple[int, str]]:
        base, written = job
        may_be_absent, unknown = open_places(self._template, written, self._values)
        for problem in sure_problems(draft, may_be_absent, unknown):
            around = at(written, problem.path)
            if problem.key is not None and isinstance(around, dict) and problem.key not in around:
                continue  # the key is a placeholder's
            if isinstance(problem.key, str) and not problem.key.strip("_"):
                continue  # blotted out, and told of
            yield self._place(base, written, problem), self._said(written, draft, problem)

    def _place(self, base: Path, written: Any, problem: InvalidJob) -> int:
        if problem.key is not None:
            return self._places.key((*base, *problem.path, problem.key))
        default = self._default(at(written, problem.path))
        return self._places.value(("defaults", default) if default else (*base, *problem.path))

    def _default(self, text: Any) -> Optional[str]:
        """Return the name of the default that is the value of the whole `text`."""
        number = hole_in(text)
        if number is None:
            return None
        name = self._template.holes[number].name
        return name if name in self._values else None

    def _said(self, written: Any, draft: Any, problem: InvalidJob) -> str:
        place = ": ".join(f"[{step}]" if isinstance(step, int) else step for step in problem.path) or "the job"
        text = at(written, problem.path)
        said = problem.problem
        if isinstance(text, str) and MARK.search(text) and self._default(text) is None:
            said = said.replace(repr(at(draft, problem.path)), repr(self._as_written(text)))
        return f"{place} {said}"

    def _as_written(self, text: str) -> str:
        holes = self._template.holes

        def placeholder(mark: Any) -> str:
            what = mark.group(1)
            return what if what == "$" else f"${{{holes[int(what)].name if what.isdigit() else what}}}"

        return MARK.sub(placeholder, text)

    def _of_names(self) -> Iterator[Tuple[int, str]]:
        before: Set[str] = set()
        for base, job in self._jobs:
            name = job.get("name") if isinstance(job, dict) else None
            written = self._as_written(name) if isinstance(name, str) else ""
            if written in before:
                place = self._places.value((*base, "name"))
                yield place, f"name is {written!r}, as that of another job here; write one that no other job has"
            before.update([written] if written else [])
        self.waits_for = [
            name for name in dict.fromkeys(_after(job for _, job in self._jobs)) if name.partition(":")[0] not in before
        ]

    def _of_circle(self) -> Iterator[Tuple[int, str]]:
        after = {
            self._as_written(job["name"]): [
                self._as_written(name) for name in _names(at(job, ("dependencies", "after")))
            ]
            for _, job in self._jobs
            if isinstance(job, dict) and isinstance(job.get("name"), str)
        }
        circle = circle_in(after)
        if not circle or len(circle) < 2:
            return  # a job that waits for itself is told of already
        first = next(number for number, (_, job) in enumerate(self._jobs) if self._as_written(job["name"]) in circle)
        try:
            refuse_cycles([{"name": name, "dependencies": {"after": after[name]}, "execution": {}} for name in circle])
        except InvalidJob as error:
            place = self._places.value((*self._jobs[first][0], "dependencies", "after"))
            yield place, error.problem


def _jobs_of(structure: Any) -> Iterator[Tuple[Path, Any]]:
    """Yield the descriptions with their paths."""
    base: Path = ()
    if isinstance(structure, dict) and "request" in structure:
        base, structure = ("jobs",), structure.get("jobs")
    if isinstance(structure, (list, tuple)):
        yield from (((*base, number), job) for number, job in enumerate(structure))
    else:
        yield base, structure


def _after(jobs: Any) -> Iterator[str]:
    """Yield the names without placeholders that jobs wait for."""
    for job in jobs:
        for name in _names(at(job, ("dependencies", "after"))):
            if not MARK.search(name):
                yield name


def _names(after: Any) -> List[str]:
    names = [after] if isinstance(after, str) else after
    return [name for name in names if isinstance(name, str)] if isinstance(names, (list, tuple)) else []
