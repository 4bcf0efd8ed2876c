"""From a description that a user wrote to one that the manager will run, or a clear error.

The manager accepts much that it can never run and says little about what it refuses; so every rule that can be
known before sending is checked here, and each message says what is wrong, where, and what to write instead.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import Any, Callable, Dict, List, Optional, cast

from qcg.pilotjob.executor_api._description.resources import checked_resources
from qcg.pilotjob.executor_api._description.where import Where, refuse_what_is_no_json
from qcg.pilotjob.executor_api._shared.rules import (
    JOB_ID_VARIABLE,
    MODELS,
    MOST_ITERATIONS,
    SHORT,
    circle_in,
    problem_of_name,
    problem_of_script,
    problem_of_text,
)
from qcg.pilotjob.executor_api._shared.texts import shown, spelled
from qcg.pilotjob.executor_api.errors import InvalidJob
from qcg.pilotjob.executor_api.jobs import Capacity, Job

__all__ = ["refuse_cycles", "refuse_what_is_ours", "validated"]


_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JOB_KEYS = dict.fromkeys(("name", "execution", "resources", "iteration", "dependencies", "attributes"))
_EXECUTION_KEYS = dict.fromkeys((
    "exec", "args", "script", "env", "stdin", "stdout", "stderr", "modules", "login", "venv", "wd", "model",
    "model_opts",
))  # fmt: skip
_MODEL_OPTIONS = dict.fromkeys(("mpirun", "mpirun_args", "srun_args"))
_ITERATION_KEYS = dict.fromkeys(("start", "stop", "values"))
_DEPENDENCY_KEYS = dict.fromkeys(("after",))


def validated(description: Any, capacity: Optional[Capacity]) -> Job:
    """Return a copy of `description` that can be sent, with a name; raise `InvalidJob` for one that can never run.

    `capacity` is what the manager has; without it the sizes are not compared.
    """
    job = Where("the job").mapping(description, _JOB_KEYS)
    name = _name(job.get("name"))
    at = Where(f"job {name!r}")
    if "execution" not in job:
        raise at.error("has no 'execution'", "write 'execution': {'exec': 'program', 'args': []}")
    result: Dict[str, Any] = {"name": name, "execution": _execution(at / "execution", job["execution"], name)}
    if "resources" in job:
        execution, in_array = result["execution"], "iteration" in job
        result["resources"] = checked_resources(
            at / "resources", job["resources"], capacity, execution, in_array=in_array
        )
    if "iteration" in job:
        result["iteration"] = _iteration(at / "iteration", job["iteration"])
    if "dependencies" in job:
        result["dependencies"] = _dependencies(at / "dependencies", job["dependencies"], name)
    if "attributes" in job:
        result["attributes"] = job["attributes"]
        refuse_what_is_no_json(at / "attributes", (at / "attributes").mapping(job["attributes"]))
    return cast("Job", result)


def refuse_cycles(jobs: List[Job]) -> None:
    """Raise `InvalidJob` when jobs of one submission wait for each other."""
    circle = circle_in({job["name"]: job.get("dependencies", {}).get("after", []) for job in jobs})
    if circle:
        raise InvalidJob(f"the jobs {', '.join(circle)} wait for each other ('after'); none of them would ever start")


def refuse_what_is_ours(jobs: List[Job]) -> None:
    """Raise `InvalidJob` when a job asks for what the core's manager does otherwise.

    It starts a rank for each core, and has a login shell run each script, module and virtual environment.
    """
    for job in jobs:
        execution = job["execution"]
        options = execution.get("model_opts", {})
        has_login = any(execution.get(key) for key in ("script", "modules", "venv"))
        if "ranks" in options or options.get("login", has_login) != has_login:
            login = f"{'no' if has_login else 'a'} login shell"
            key, what = ("ranks", "a number of ranks") if "ranks" in options else ("login", login)
            raise Where(f"job {job['name']!r}").error(
                f"asks for {what}, which the given manager knows nothing of",
                f"leave out {key!r}, or let the executor start a manager of its own",
            )


def _name(value: Any) -> str:
    at = Where("the job's name", path=("name",))
    if value is None:
        return f"job-{os.urandom(8).hex()}"
    name = at.text(value)
    what, advice = problem_of_name(name)
    if what:
        raise at.error(what.replace(repr("\ud800"), "'$'"), advice)  # which begins what only the manager knows
    return name


def _execution(at: Where, value: Any, name: str) -> Dict[str, Any]:
    execution = at.mapping(value, _EXECUTION_KEYS)
    env = _environment(at / "env", execution.pop("env")) if "env" in execution else {}
    env[JOB_ID_VARIABLE] = name
    login = execution.pop("login", None)
    result: Dict[str, Any] = {}
    if execution.get("script"):
        for key in ("exec", "args"):
            if execution.pop(key, None):
                raise at.error(f"has both 'script' and {key!r}", "keep one: a script holds its own commands", key)
        exports = "".join(f"export {key}={shlex.quote(text)}\n" for key, text in env.items())
        result["script"] = exports + (at / "script").text(execution.pop("script"))
        _refuse(at / "script", problem_of_script(result["script"]))
    elif execution.get("exec"):
        result["exec"] = (at / "exec").path_text(execution.pop("exec"))
        result["args"] = _arguments(at / "args", execution.pop("args", []))
        result["env"] = env
    else:
        raise at.error("has neither 'exec' nor 'script'", "name the program to run in 'exec'")
    for key, given in execution.items():
        cleaned = _EXECUTION_VALUES[key](at / key, given) if key in _EXECUTION_VALUES else None
        if cleaned:  # nothing in it means that it was not given
            result[key] = cleaned
    if login is not None:  # among the options of the model, since the core lets no other key through
        result["model_opts"] = {**result.get("model_opts", {}), "login": (at / "login").truth(login)}
    if _is_one_file(result.get("stdout"), result.get("stderr")):
        result["stderr"] = result["stdout"]  # it is opened once, for both
    return result


def _is_one_file(stdout: Optional[str], stderr: Optional[str]) -> bool:
    """Return whether two paths are written differently and mean the same."""
    if not stdout or not stderr or stdout == stderr or os.path.basename(stdout) != os.path.basename(stderr):
        return False
    return ".." not in (stdout + stderr).split("/") and os.path.normpath(stdout) == os.path.normpath(stderr)


def _environment(at: Where, value: Any) -> Dict[str, str]:
    environment = {}
    for key, text in at.mapping(value).items():
        if not _VARIABLE_NAME.fullmatch(key):
            raise at.error(f"has the variable {key!r}", "use letters, digits and _, not starting with a digit", key)
        environment[key] = (at / key).text(text if isinstance(text, str) else _scalar(at / key, text))
        _refuse(at / key, problem_of_text(environment[key], key))
    return environment


def _refuse(at: Where, problem: str) -> None:
    if problem:
        raise at.error(problem, "put it into a file, and give the file's name")


def _arguments(at: Where, value: Any) -> List[str]:
    if isinstance(value, str):
        raise at.error(f"is the text {shown(value)}", f"write a list: {shlex.split(value)!r}"
                       if _splits(value) else "write a list with an item for each argument")  # fmt: skip
    arguments = [
        item if type(item) is str and "\0" not in item else _argument(at / number, item)
        for number, item in enumerate(at.items(value))
    ]
    for number, item in enumerate(arguments):
        if len(item) > SHORT:
            _refuse(at / number, problem_of_text(item))
    return arguments


def _argument(at: Where, value: Any) -> str:
    return at.text(_scalar(at, value))


def _splits(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:
        return False
    return True


def _scalar(at: Where, value: Any) -> str:
    if value is None or not isinstance(value, (str, int, float, os.PathLike)):
        raise at.error(f"is {shown(value)}", "write text or a number")
    return spelled(value)


def _modules(at: Where, value: Any) -> List[str]:
    names = [value] if isinstance(value, str) else at.items(value)
    if isinstance(value, str) and len(value.split()) > 1:
        raise at.error(f"is the text {shown(value)}", f"write a list: {value.split()!r}")
    return [(at / number).text(name) for number, name in enumerate(names) if name != ""]


def _model_options(at: Where, value: Any) -> Dict[str, Any]:
    options = at.mapping(value, _MODEL_OPTIONS)
    return {
        key: (at / key).path_text(given) if key == "mpirun" else _arguments(at / key, given)
        for key, given in options.items()
    }


def _optional_text(at: Where, value: Any) -> str:
    return at.text(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _directory(at: Where, value: Any) -> str:
    path = at.path_text(value)
    return "" if path == "." else path  # where the executor's jobs are anyway


def _model(at: Where, value: Any) -> str:
    model = at.text(value).lower()
    if model and model not in MODELS:
        raise at.error(f"is {value!r}", f"the models are {', '.join(MODELS)}")
    return model


_EXECUTION_VALUES: Dict[str, Callable[[Where, Any], Any]] = {
    "stdin": Where.path_text,
    "stdout": Where.path_text,
    "stderr": Where.path_text,
    "wd": _directory,
    "modules": _modules,
    "venv": _optional_text,
    "model": _model,
    "model_opts": _model_options,
}


def _iteration(at: Where, value: Any) -> Dict[str, Any]:
    iteration = at.mapping(value, _ITERATION_KEYS)
    if ("stop" in iteration) == ("values" in iteration):
        too_much = "values" if "values" in iteration else None
        raise at.error("needs either 'stop' or 'values'", "write {'stop': 4} or {'values': ['a', 'b']}", too_much)
    if "values" in iteration:
        if "start" in iteration:
            raise at.error("has 'start' beside 'values'", "leave 'start' out", "start")
        return {"values": _iteration_values(at / "values", iteration["values"])}
    start = (at / "start").whole(iteration.get("start", 0), 0)
    stop = (at / "stop").whole(iteration["stop"], 0)
    if stop - start > MOST_ITERATIONS:
        raise at.error(f"has {stop - start} iterations", f"an array has {MOST_ITERATIONS} at the most")
    if start >= stop:
        raise at.error(f"goes from {start} to {stop}", "'stop' must be greater than 'start': it is not itself run")
    return {"start": start, "stop": stop}


def _iteration_values(at: Where, value: Any) -> List[str]:
    values = _arguments(at, at.items(value))
    if not values:
        raise at.error("is empty", "the job would never end; give at least one value")
    for number, text in enumerate(values):
        wrong = re.search(r'["\\\x00-\x1f]', text)
        if wrong:
            raise (at / number).error(
                f"contains {wrong.group()!r} in {shown(text)}",
                "the manager cannot pass quotes, backslashes and control characters in ${itval}; pass a file's name",
            )
    return values


def _dependencies(at: Where, value: Any, name: str) -> Dict[str, Any]:
    dependencies = at.mapping(value, _DEPENDENCY_KEYS)
    after = dependencies.get("after", [])
    at_after = at / "after"
    names = [after] if isinstance(after, str) else at_after.items(after)
    for number, other in enumerate(names):
        place = at_after if isinstance(after, str) else at_after / number
        if place.text(other).partition(":")[0] == name:
            raise place.error("names the job itself", "it would wait for ever; name another job")
    return {"after": names}
