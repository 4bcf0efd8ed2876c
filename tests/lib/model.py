"""A model of jobs: the states that each may have, how often it may run, and what has to be before it.

A `Model` is told what is submitted, cancelled and killed; it judges the states that users see and, at the end, the
lines that the jobs wrote when they began and ended. It knows nothing of how all this is done.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence, Set, Tuple

SUCCEED, FAILED, OMITTED, CANCELED = ENDED = ("SUCCEED", "FAILED", "OMITTED", "CANCELED")
SCRIPT = """
exec 9> lock.$1.$2; flock -n 9 || echo "twice $1.$2" >> ran
echo "begin $1.$2" >> ran; sleep $3; echo "end $1.$2" >> ran; exit ${4:$2:1}
"""


class Broken(AssertionError):
    """Something that the model does not allow."""


def expect(holds: object, what: str) -> None:
    """Raise Broken unless something holds."""
    if not holds:
        raise Broken(what)


@dataclass(eq=False)
class Job:
    """A submission: its iterations (one, where it is no array), and what is known of each."""

    name: str
    tag: int  # tells submissions with one name apart
    codes: str  # the exit code of each iteration, a digit
    array: bool
    seconds: float
    after: List[Tuple[Job, str]]  # what it waits for: as a whole (""), one iteration ("2"), the same one ("${it}")
    sure: bool = False  # the manager has it: it must not be lost
    cancel_asked: bool = False
    may_begin: int = 1
    told: Dict[int, str] = field(default_factory=dict)  # the states of iterations that have ended, as users see them
    begun: Dict[int, int] = field(default_factory=dict)  # how often these had begun by then

    @property
    def ended(self) -> bool:
        """Whether all of it is known to have ended."""
        return len(self.told) == len(self.codes)

    def allowed(self, number: int) -> Set[str]:
        """Return the states in which an iteration may end."""
        if number in self.told:
            return {self.told[number]}
        before = [job.allowed(each) for job, which in self.after for each in job.numbers(which, number)]
        states = {CANCELED} if self.cancel_asked else set()
        if any(found - {SUCCEED} for found in before):
            states.add(OMITTED)
        if all(SUCCEED in found for found in before):
            states.add(SUCCEED if self.codes[number] == "0" else FAILED)
        return states

    def numbers(self, which: str, number: int) -> Sequence[int]:
        """Return those of its iterations for which iteration `number` of another job waits."""
        return [number if which == "${it}" else int(which)] if which else range(len(self.codes))

    def description(self) -> Dict[str, Any]:
        """Return it as it is submitted; SCRIPT is in the file ``job.sh``."""
        arguments = ["job.sh", str(self.tag), "${it}" if self.array else "0", str(self.seconds), self.codes]
        found: Dict[str, Any] = {"name": self.name, "execution": {"exec": "bash", "args": arguments}}
        if self.array:
            found["iteration"] = {"stop": len(self.codes)}
        if self.after:
            found["dependencies"] = {"after": [f"{job.name}:{which}".rstrip(":") for job, which in self.after]}
        return found


class Model:
    """All jobs of a run, through its interruptions."""

    def __init__(self) -> None:
        self.jobs: Dict[str, Job] = {}  # by name, in the order of their submission
        self.removed: List[Job] = []

    def submitted(self, job: Job) -> None:
        """Take a job that was submitted; one of its name, which has ended, was removed before."""
        if job.name in self.jobs:
            self.removed.append(self.jobs.pop(job.name))
        self.jobs[job.name] = job

    def may_be_removed(self) -> List[Job]:
        """Return the jobs that have ended, and for which none waits."""
        awaited = {other for job in self.jobs.values() if not job.ended for other, _ in job.after}
        return [job for job in self.jobs.values() if job.ended and job not in awaited]

    def killed(self) -> None:
        """Let what has not ended begin once more."""
        for job in self.jobs.values():
            job.may_begin += 1

    def unknown(self, names: List[str]) -> None:
        """Forget jobs that a resumed run does not know; they must not have reached the manager before."""
        for name in names:
            expect(not self.jobs.pop(name).sure, f"{name} is lost")

    def cancelled(self, job: Job, done: bool) -> None:
        """Judge the answer to a cancel; the states have been seen since."""
        told = f"cancel() of {job.name} is {done}, and its states {job.told}"
        expect(job.ended and done == (CANCELED in job.told.values()), told)

    def seen(self, states: Dict[str, Tuple[str, List[str]]], lines: List[str]) -> None:
        """Judge states as users see them: of each job, and of its iterations; `lines` were read after them."""
        begun = Counter(lines)
        for name, (whole, iterations) in states.items():
            job, parts = self.jobs[name], iterations or [whole]
            job.sure = True
            for number, state in enumerate(parts):
                told = f"{name} (tag {job.tag}), iteration {number} is {state}; the whole is {whole}"
                if number in job.told or state in ENDED:
                    expect(state in job.allowed(number), f"{told}, not one of {job.allowed(number)}")
                    job.told[number] = state
                    job.begun.setdefault(number, begun[f"begin {job.tag}.{number}"])
                else:
                    expect(state in ("QUEUED", "EXECUTING"), told)
            if whole in ENDED:
                good = all(state == SUCCEED for state in parts)
                expect(set(parts) <= set(ENDED) and good == (whole == SUCCEED), f"{name} is {whole}, but {parts}")

    def over(self, lines: List[str]) -> None:
        """Judge the whole run at its end: what became of all jobs, and what they wrote, in its order."""
        unfinished = [job.name for job in self.jobs.values() if not job.ended]
        expect(not unfinished, f"have not ended: {unfinished}")
        twice = [line for line in lines if line.startswith("twice")]
        expect(not twice, f"ran twice at the same time: {twice}")
        count, first = Counter(lines), {line: place for place, line in reversed(list(enumerate(lines)))}
        for job in [*self.removed, *self.jobs.values()]:
            for number, state in job.told.items():
                key = f"{job.tag}.{number}"
                begun, ended = count[f"begin {key}"], count[f"end {key}"]
                told = f"{job.name} ({key}) is {state}; begun {begun} times, ended {ended}"
                expect(begun == job.begun[number], f"{told}; when it had ended it had begun {job.begun[number]} times")
                expect(begun <= job.may_begin, f"{told}; it may begin {job.may_begin} times")
                expect(ended or state not in (SUCCEED, FAILED), told)
                expect(not begun or state != OMITTED, told)
                for other, which in job.after if begun else ():
                    for each in other.numbers(which, number):
                        before = first.get(f"end {other.tag}.{each}", len(lines))
                        expect(before < first[f"begin {key}"], f"{told}, before {other.name}, iteration {each}")
