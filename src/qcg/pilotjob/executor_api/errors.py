"""Everything that this package raises, in one tree.

::

    QCGPJError
    ├── InvalidOption       ValueError      an argument of QCGPJExecutor
    ├── TemplateError       ValueError      a template that cannot be filled in or read
    │   └── MissingParameter  KeyError      a placeholder was left without a value
    ├── InvalidJob          ValueError      a job description that can never run
    │   └── DuplicateJobName                a name that this executor has used already
    ├── JobRefused          ValueError      the manager did not take the job
    ├── JobFailed           RuntimeError    raised by QCGPJFuture.raise_for_status() alone
    ├── JobUnknown          LookupError     the manager does not know a job of that name
    ├── JobTimeout          TimeoutError    result() or exception() waited in vain
    ├── ExecutorClosed      RuntimeError    submit() after shutdown()
    ├── ManagerStartError   RuntimeError    the manager process did not start
    └── ManagerDied         BrokenExecutor  the manager process ended while it was needed
        ├── AllocationFailed                an allocation was refused, or no manager started in it (a
        │                                   ManagerStartError too)
        └── AllocationEnded                 the allocation ended while it was needed

Each class also derives from the builtin (or the ``concurrent.futures`` class) beside its name, so code that
catches those keeps working.
"""

from __future__ import annotations

import concurrent.futures
import re
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, Dict, List, Optional, Tuple, Union

from qcg.pilotjob.executor_api._shared.texts import printable, signal_of, state_text

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "AllocationEnded",
    "AllocationFailed",
    "DuplicateJobName",
    "ExecutorClosed",
    "InvalidJob",
    "InvalidOption",
    "JobFailed",
    "JobRefused",
    "JobTimeout",
    "JobUnknown",
    "ManagerDied",
    "ManagerStartError",
    "MissingParameter",
    "QCGPJError",
    "TemplateError",
]


class QCGPJError(Exception):
    """The root of the tree: catch it to catch everything that this package raises."""


class InvalidOption(QCGPJError, ValueError):
    """An argument of ``QCGPJExecutor`` has no meaning; nothing was started."""


class TemplateError(QCGPJError, ValueError):
    """A template could not be filled in, or what came out is neither JSON nor a Python literal; nothing was sent.

    Attributes:
        problem: what is wrong, without its place.
        line: the line of the template's text that is wrong, from 1; None when it is no single one.
        column: the character in that line, from 1; None likewise.
    """

    def __init__(
        self, message: str, problem: str = "", line: Optional[int] = None, column: Optional[int] = None
    ) -> None:
        super().__init__(message)
        self.problem = problem or message
        self.line = line
        self.column = column


class MissingParameter(TemplateError, KeyError):
    """A placeholder of the template has no value; nothing was sent.

    Attributes:
        name: the placeholder's name; also ``args[0]``, as with the ``KeyError`` of ``string.Template``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
        self.problem = str(self)

    def __str__(self) -> str:
        return (
            f"the template's placeholder {self.name!r} has no value: give {self.name}=... to submit(), or a default "
            "in the template"
        )


class InvalidJob(QCGPJError, ValueError):
    """A job description that the manager would refuse, or accept and never run; nothing was sent.

    Attributes:
        path: where in the description, like ``("execution", "args", 0)``; empty for the description as a whole.
        key: the key there that is wrong; None when the value is.
        problem: what is wrong and what to write instead, without the place.
    """

    def __init__(
        self, message: str, path: Tuple[Union[str, int], ...] = (), key: Optional[str] = None, problem: str = ""
    ) -> None:
        super().__init__(message)
        self.path = path
        self.key = key
        self.problem = problem or message


class DuplicateJobName(InvalidJob):
    """A job of this name was submitted before: names are unique for the life of the manager."""


class JobRefused(QCGPJError, ValueError):
    """The manager did not take the job. It never ran, and its name is free again."""


class JobUnknown(QCGPJError, LookupError):
    """The manager has no job of this name: it was never submitted there, or it was removed."""


# Before Python 3.11 these are two classes, and users catch either.
_TIMEOUTS = tuple(dict.fromkeys((concurrent.futures.TimeoutError, TimeoutError)))


class JobTimeout(QCGPJError, *_TIMEOUTS):  # type: ignore[misc]  # the bases differ between Python versions
    """The time given to ``result()`` or ``exception()`` passed; the job goes on."""


class ExecutorClosed(QCGPJError, RuntimeError):
    """The executor was shut down, or the interpreter is shutting down: no job can be submitted any more."""


class ManagerStartError(QCGPJError, RuntimeError):
    """The manager process ended, or stayed silent, before it could take jobs."""


class ManagerDied(QCGPJError, BrokenExecutor):
    """The manager process ended while jobs were pending; every pending future carries this exception.

    Jobs that the manager had recorded as finished keep their status; all others were ended with it.
    """


class AllocationFailed(ManagerDied, ManagerStartError):
    """The scheduler refused the allocation, or no manager could be started in it or be reached; no job has run."""


class AllocationEnded(ManagerDied):
    """The allocation ended, and no other one was to follow; every pending future carries this exception.

    Jobs that had finished keep their status; all others were ended with it.
    """


class JobFailed(QCGPJError, RuntimeError):
    """A job did not succeed.

    Attributes:
        name: the job's name.
        status: ``FAILED`` or ``OMITTED``.
        exit_code: the exit code; negative for the number of the signal that ended the process, None when the
            job never ran or the manager does not know.
        signal: the name of the signal that ended the process, like ``SIGSEGV``, also where the shell that ran it says
            so by an exit code above 128; None when there was none.
        message: what the manager says of the failure, or an empty string.
        stdout: the file that holds the job's standard output, None when it was not kept.
        stderr: the file that holds the job's standard error, None when it was not kept.
        stderr_tail: the last lines of that file, an empty string when there are none.
        stdout_tail: the last lines of standard output when standard error has none, else an empty string.
        may_be_others: whether those lines may be another job's: the file's name does not begin with the job's, or lacks
            the iteration's number, so other jobs may have been given the same file.
    """

    def __init__(
        self,
        name: str,
        status: str,
        *,
        exit_code: Optional[int] = None,
        signal: Optional[str] = None,
        message: str = "",
        stdout: Optional[Path] = None,
        stderr: Optional[Path] = None,
        stderr_tail: str = "",
        stdout_tail: str = "",
        may_be_others: bool = False,
    ) -> None:
        super().__init__(name, status)
        self.name = name
        self.status = status
        self.exit_code = exit_code
        self.signal = signal or signal_of(exit_code)
        self.message = message
        self.stdout = stdout
        self.stderr = stderr
        self.stderr_tail = stderr_tail
        self.stdout_tail = stdout_tail
        self.may_be_others = may_be_others

    def __str__(self) -> str:
        lines = [f"job {self.name!r} {state_text(self.status, self.exit_code, self.signal)}"]
        if self.message:
            lines.append(f"  message: {self.message}")
        if self.stdout:
            lines.append(f"  stdout:  {self.stdout}")
        lines.extend(self._quoted(self.stdout_tail))
        if self.stderr:
            lines.append(f"  stderr:  {self.stderr}")
        lines.extend(self._quoted(self.stderr_tail))
        lines.append(f"  next:    {self._advice()}")
        return "\n".join(lines)

    def _quoted(self, tail: str) -> List[str]:
        lines = [f"    | {printable(line)}" for line in tail.splitlines()]
        return [_MAY_BE_OTHERS, *lines] if lines and self.may_be_others else lines

    def _advice(self) -> str:
        if self.status == "OMITTED":
            return f"a job that it depends on did not succeed; mend that one and {_AGAIN}"
        said = next((advice for words, advice in _ADVICE_ON_MESSAGES if re.search(words, self.message)), "")
        if said:
            return said
        if self.exit_code is None and self.message:
            return f"mend what the message names, as far as it is yours, and {_AGAIN}"
        if (self.signal or self.exit_code) in _ADVICE_ON_ENDS:
            return _ADVICE_ON_ENDS[self.signal or self.exit_code]
        if self.stderr is None and not self.stdout_tail:
            return "give the job an 'stderr' file to see what it says"
        said = "" if self.may_be_others else self.stderr_tail or self.stdout_tail
        told = (advice for words, advice in _ADVICE_ON_OUTPUT if words in said)
        return next(told, f"read what the job wrote, mend the cause and {_AGAIN}")


_MAY_BE_OTHERS = "    other jobs may use this file too, and these lines may be theirs; give each job its own file:"
_AGAIN = "submit it again, in this program under a new name"

_ADVICE_ON_MESSAGES = (
    ("no interpreter ", "look at the first line of that file, and for line ends of Windows in it"),
    ("no program '/", "look at that path, as the node sees it"),
    ("no program '[^']* [^']*'", "arguments go into 'args', a list; 'exec' is the program alone"),
    ("no program '.*' in '", "a path is below the directory in which the job runs; give the program's full path"),
    ("no program ", "no directory of PATH has it; check PATH, modules and venv, or give its full path"),
    ("cannot start '.*': it is a directory", "name a program in it"),
    (
        "cannot start '.*': Exec format",
        "let its first line name an interpreter, as #!/bin/sh does, or give that as 'exec'",
    ),
    ("the working directory cannot be made", "give a 'wd' in which you may make directories"),
    ("the model 'srunmpi' needs ", "use another model, or start the program in an allocation of Slurm"),
    ("cannot open stdin ", "that file has to be there when the job starts; the job that makes it goes into 'after'"),
    ("cannot open std.*: Is a directory", "name a file in it"),
    ("cannot start '.*': Permission denied", "make it executable (chmod +x), or give its interpreter as 'exec'"),
    ("cannot open std", "make the directory of that file first, or name another one"),
)

_ADVICE_ON_ENDS: Dict[Union[int, str, None], str] = {
    127: "exit code 127 of a shell means that a command was not found; check PATH, modules and venv",
    "SIGKILL": "something else killed it, the kernel if memory was short; fewer jobs at a time have more each",
}

_NOT_INTELS = "this mpirun is not Intel MPI's; load its module, or use the model 'openmpi'"

_ADVICE_ON_OUTPUT = (  # for what MPI says of a model that is not the right one for it
    ('unknown option "-env"', _NOT_INTELS),
    ("on the mpirun command line:\n\n  Option: --env", _NOT_INTELS),  # Open MPI 5, on standard output, and 6
    (
        "to the SLURM PMI library location",
        "give model_opts={'srun_args': ['--mpi=pmix']}; 'srun --mpi=list' has the kinds",
    ),
    (  # the last words of the same failure, when those above are too far from the end
        "Local abort before MPI_INIT completed",
        "with the model 'srunmpi' give model_opts={'srun_args': ['--mpi=pmix']}; 'srun --mpi=list' has the kinds",
    ),
)
