"""Find what validation refuses in a description: all of it, and only what no parameter can mend."""

from __future__ import annotations

import copy
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from qcg.pilotjob.executor_api._description.check.examples import GOOD, NO_NAME, Open, Path, at
from qcg.pilotjob.executor_api._description.validation import validated
from qcg.pilotjob.executor_api.errors import InvalidJob

__all__ = ["sure_problems"]

_Place = Tuple[Path, Optional[str]]
_ABSENT = object()
_MOST = 1000  # problems of one job that are looked for
_MOST_PLACES = 50  # that may be absent one by one


def sure_problems(job: Any, may_be_absent: Sequence[Open], unknown: Iterable[Path]) -> List[InvalidJob]:
    """Return what is wrong with `job`, in which placeholders have stand-ins, for every choice of its parameters.

    A choice says of each value in `may_be_absent` whether it is there: all are, none is, all but one, one alone.
    """
    job = copy.deepcopy(job)
    for path in unknown:
        _put(job, path, None)
    found: Dict[_Place, InvalidJob] = {}
    rounds = []
    for absent in _choices(may_be_absent):
        chosen = copy.deepcopy(job)
        for place in absent:
            _put(chosen, place.path, place.absent)
        problems: Dict[_Place, InvalidJob] = {}
        for problem in _problems(copy.deepcopy(chosen)):
            problems.setdefault((problem.path, problem.key), problem)  # later ones may come from the mending
        rounds.append((chosen, problems))
        found = {**problems, **found}
    return [
        problem
        for place, problem in found.items()
        if all(place in problems for chosen, problems in rounds if at(chosen, problem.path, _ABSENT) is not _ABSENT)
    ]


def _choices(places: Sequence[Open]) -> List[Sequence[Open]]:
    """Return the lists of what is absent."""
    some: List[Sequence[Open]] = [[], places] if places else [[]]
    if 1 < len(places) <= _MOST_PLACES:
        for place in places:
            some += [[place], [other for other in places if other is not place]]
    return some


def _problems(job: Any) -> List[InvalidJob]:
    """Return all that validation refuses: what it stops at is mended, so that it goes on."""
    problems: List[InvalidJob] = []
    while len(problems) < _MOST:
        try:
            validated(job, None)
        except InvalidJob as problem:
            if problems and _same(problem, problems[-1]):
                break  # it cannot be mended
            problems.append(problem)
            _mend(job, problem)
        else:
            break
    return problems


def _same(one: InvalidJob, other: InvalidJob) -> bool:
    return (one.path, one.key, one.problem) == (other.path, other.key, other.problem)


def _mend(job: Any, problem: InvalidJob) -> None:
    if problem.key is not None:
        _put(job, (*problem.path, problem.key), None)
    elif not problem.path:
        _put(job, ("execution",), GOOD["execution"])
    elif problem.path == ("execution",) and isinstance(job["execution"], dict):
        job["execution"]["exec"] = GOOD["exec"]  # it had neither this nor a script
    elif isinstance(problem.path[-1], int):
        _put(job, problem.path, NO_NAME)
    else:
        _put(job, problem.path, copy.deepcopy(GOOD.get(problem.path[-1])))


def _put(job: Any, path: Path, value: Any) -> None:
    """Put `value` at `path`; None takes away what is there."""
    for step in path[:-1]:
        job = job[step]
    if value is not None:
        job[path[-1]] = value
    elif path[-1] in job:
        del job[path[-1]]
