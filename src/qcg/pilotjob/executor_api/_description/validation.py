"""From a description that a user wrote to one that the manager will run, or a clear error.

The manager accepts much that it can never run and says little about what it refuses; so every rule that can be
known before sending is checked here, and each message says what is wrong, where, and what to write instead.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import shlex
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union, cast

from qcg.pilotjob.executor_api._description.walltimes import as_manager_has_it
from qcg.pilotjob.executor_api._shared.rules import (
    JOB_ID_VARIABLE,
    MODELS,
    MOST_ITERATIONS,
    MPI_MODELS,
    SHORT,
    circle_in,
    problem_of_name,
    problem_of_script,
    problem_of_text,
)
from qcg.pilotjob.executor_api._shared.texts import shown, spelled
from qcg.pilotjob.executor_api.errors import InvalidJob
from qcg.pilotjob.executor_api.free_values import is_too_large, refuse_what_is_no_json
from qcg.pilotjob.executor_api.jobs import Capacity, Job

__all__ = ["refuse_cycles", "refuse_what_is_ours", "validated"]


_MARKED_VARIABLE = re.compile(r"(?:\\ud800|\ud800)(\w+)(?:\\ud801|\ud801)")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JOB_KEYS = dict.fromkeys(("name", "execution", "resources", "iteration", "dependencies", "attributes"))
_EXECUTION_KEYS = dict.fromkeys((
    "exec", "args", "script", "env", "stdin", "stdout", "stderr", "modules", "login", "venv", "wd", "model",
    "model_opts",
))  # fmt: skip
_MODEL_OPTIONS = dict.fromkeys(("mpirun", "mpirun_args", "srun_args"))
_RESOURCE_KEYS = dict.fromkeys(("numCores", "numNodes", "ranks", "wt", "gpus", "nodeCrs"))
_NOT_COUNTED = {"mem": "no manager counts memory; a job that needs a third of a node's takes a third of its cores"}
_SIZE_KEYS = dict.fromkeys(("exact", "min", "max", "scheduler"))
_SCHEDULER_KEYS = dict.fromkeys(("name", "params"))
_ITERATION_KEYS = dict.fromkeys(("start", "stop", "values"))
_DEPENDENCY_KEYS = dict.fromkeys(("after",))


def validated(description: Any, capacity: Optional[Capacity]) -> Job:
    """Return a copy of `description` that can be sent, with a name; raise `InvalidJob` for one that can never run.

    `capacity` is what the manager has; without it the sizes are not compared.
    """
    job = _Where("the job").mapping(description, _JOB_KEYS)
    name = _name(job.get("name"))
    at = _Where(f"job {name!r}")
    if "execution" not in job:
        raise at.error("has no 'execution'", "write 'execution': {'exec': 'program', 'args': []}")
    result: Dict[str, Any] = {"name": name, "execution": _execution(at / "execution", job["execution"], name)}
    if "resources" in job:
        execution, in_array = result["execution"], "iteration" in job
        result["resources"] = _resources(at / "resources", job["resources"], capacity, execution, in_array=in_array)
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
            raise _Where(f"job {job['name']!r}").error(
                f"asks for {what}, which the given manager knows nothing of",
                f"leave out {key!r}, or let the executor start a manager of its own",
            )


class _Where:
    """A place in the description: it reads values of the expected type, and makes the errors that name the place."""

    __slots__ = ("_above", "_key", "_path")

    def __init__(
        self, key: Union[str, int], above: Optional[_Where] = None, path: Tuple[Union[str, int], ...] = ()
    ) -> None:
        self._key = key
        self._above = above
        self._path = path

    def __truediv__(self, key: Union[str, int]) -> _Where:
        return _Where(key, self)

    def __str__(self) -> str:
        key = f"[{self._key}]" if isinstance(self._key, int) else self._key
        return key if self._above is None else f"{self._above}: {key}"

    @property
    def path(self) -> Tuple[Union[str, int], ...]:
        return self._path if self._above is None else (*self._above.path, self._key)

    def error(self, problem: str, instead: str, key: Optional[str] = None) -> InvalidJob:
        """Return an error of the value here, or of its `key`."""
        # the manager's variables are still marks here; the user wrote ${name}
        message = _MARKED_VARIABLE.sub(r"${\1}", f"{problem}; {instead}")
        return InvalidJob(f"{self} {message}", self.path, key, message)

    def mapping(self, value: Any, keys: Optional[Mapping[str, None]] = None) -> Dict[str, Any]:
        if not isinstance(value, (dict, Mapping)):
            raise self.error(f"is {shown(value)}", "write a dictionary {'key': value}")
        if keys is not None and value.keys() <= keys.keys():
            return dict(value)
        for key in value:
            if not isinstance(key, str):
                raise self.error(f"has the key {shown(key)}", "write keys as text", key)
            if keys is not None and key not in keys:
                close = difflib.get_close_matches(key, keys, n=1)
                raise self.error(
                    f"has the unknown key {key!r}",
                    f"did you mean {close[0]!r}?" if close else f"the keys are {', '.join(keys)}",
                    key,
                )
        return dict(value)

    def text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.error(f"is {shown(value)}", "write text in quotes")
        if "\0" in value:
            raise self.error("contains a NUL character", "no process can be given one; remove it")
        return spelled(value)

    def truth(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.error(f"is {shown(value)}", "write true or false")
        return value

    def path_text(self, value: Any) -> str:
        """Return a path; an empty one means that none was given."""
        return self.text(value if isinstance(value, str) or not isinstance(value, os.PathLike) else os.fspath(value))

    def whole(self, value: Any, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least or is_too_large(value):
            raise self.error(f"is {shown(value)}", f"write a whole number, {least} or more")
        return value

    def items(self, value: Any) -> List[Any]:
        if not isinstance(value, (list, tuple)):
            raise self.error(f"is {shown(value)}", "write a list [...]")
        return list(value)


def _name(value: Any) -> str:
    at = _Where("the job's name", path=("name",))
    if value is None:
        return f"job-{os.urandom(8).hex()}"
    name = at.text(value)
    what, advice = problem_of_name(name)
    if what:
        raise at.error(what.replace(repr("\ud800"), "'$'"), advice)  # which begins what only the manager knows
    return name


def _execution(at: _Where, value: Any, name: str) -> Dict[str, Any]:
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
    """Whether two paths are written differently and mean the same."""
    if not stdout or not stderr or stdout == stderr or os.path.basename(stdout) != os.path.basename(stderr):
        return False
    return ".." not in (stdout + stderr).split("/") and os.path.normpath(stdout) == os.path.normpath(stderr)


def _environment(at: _Where, value: Any) -> Dict[str, str]:
    environment = {}
    for key, text in at.mapping(value).items():
        if not _VARIABLE_NAME.fullmatch(key):
            raise at.error(f"has the variable {key!r}", "use letters, digits and _, not starting with a digit", key)
        environment[key] = (at / key).text(text if isinstance(text, str) else _scalar(at / key, text))
        _refuse(at / key, problem_of_text(environment[key], key))
    return environment


def _refuse(at: _Where, problem: str) -> None:
    if problem:
        raise at.error(problem, "put it into a file, and give the file's name")


def _arguments(at: _Where, value: Any) -> List[str]:
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


def _argument(at: _Where, value: Any) -> str:
    return at.text(_scalar(at, value))


def _splits(text: str) -> bool:
    try:
        shlex.split(text)
    except ValueError:
        return False
    return True


def _scalar(at: _Where, value: Any) -> str:
    if value is None or not isinstance(value, (str, int, float, os.PathLike)):
        raise at.error(f"is {shown(value)}", "write text or a number")
    return spelled(value)


def _modules(at: _Where, value: Any) -> List[str]:
    names = [value] if isinstance(value, str) else at.items(value)
    if isinstance(value, str) and len(value.split()) > 1:
        raise at.error(f"is the text {shown(value)}", f"write a list: {value.split()!r}")
    return [(at / number).text(name) for number, name in enumerate(names) if name != ""]


def _model_options(at: _Where, value: Any) -> Dict[str, Any]:
    options = at.mapping(value, _MODEL_OPTIONS)
    return {
        key: (at / key).path_text(given) if key == "mpirun" else _arguments(at / key, given)
        for key, given in options.items()
    }


def _optional_text(at: _Where, value: Any) -> str:
    return at.text(os.fspath(value) if isinstance(value, os.PathLike) else value)


def _directory(at: _Where, value: Any) -> str:
    path = at.path_text(value)
    return "" if path == "." else path  # where the executor's jobs are anyway


def _model(at: _Where, value: Any) -> str:
    model = at.text(value).lower()
    if model and model not in MODELS:
        raise at.error(f"is {value!r}", f"the models are {', '.join(MODELS)}")
    return model


_EXECUTION_VALUES: Dict[str, Callable[[_Where, Any], Any]] = {
    "stdin": _Where.path_text,
    "stdout": _Where.path_text,
    "stderr": _Where.path_text,
    "wd": _directory,
    "modules": _modules,
    "venv": _optional_text,
    "model": _model,
    "model_opts": _model_options,
}


def _resources(
    at: _Where, value: Any, capacity: Optional[Capacity], execution: Dict[str, Any], *, in_array: bool
) -> Dict[str, Any]:
    """Return what a job asks for; the number of its ranks goes into the `execution`, where the manager looks for it."""
    result = at.mapping(value, _RESOURCE_KEYS)
    is_mpi = execution.get("model") in MPI_MODELS
    for key in ("numCores", "numNodes"):
        if key in result:
            result[key] = _size(at / key, result[key], in_array=in_array)
    ranks = _ranks(at, result, capacity, is_mpi=is_mpi) if "ranks" in result else 0  # it is compared with the sizes
    if ranks and is_mpi:
        execution["model_opts"] = {**execution.get("model_opts", {}), "ranks": ranks}
    if "numCores" not in result and "numNodes" not in result:
        result["numCores"] = {"exact": 1}
    if result.pop("wt", "") != "":
        result["wt"] = _walltime(at / "wt", value["wt"])
    consumables = _consumables(at, result, capacity)
    if consumables:
        result["nodeCrs"] = consumables
        result.setdefault("numNodes", {"exact": 1})  # the manager counts them by node
    if not is_mpi:
        _keep_on_one_node(at, result, capacity, execution.get("model", ""))
    if capacity is not None:
        _fits(at, result, capacity, ranks)
    return result


def _ranks(at: _Where, resources: Dict[str, Any], capacity: Optional[Capacity], *, is_mpi: bool) -> int:
    """Take the number of ranks out of `resources`, and return it; without `numCores` each has a core."""
    at_ranks = at / "ranks"
    ranks = at_ranks.whole(resources.pop("ranks"), 1)
    if not is_mpi:
        if ranks > 1:
            raise at_ranks.error(f"is {ranks}, but the model starts one", f"those of MPI are {', '.join(MPI_MODELS)}")
        return ranks
    if "numCores" not in resources and "numNodes" not in resources:
        resources["numCores"] = {"exact": ranks}
    if "numCores" in resources:
        cores = resources["numCores"].get("exact")
        if cores is None:
            raise at_ranks.error("stands beside a range of cores", "write how many cores the ranks share")
        _refuse_unequal(at, cores, ranks, "numCores")
    elif capacity is not None and capacity.node_cores is not None:
        for cores in sorted({usable for usable, whole in capacity.node_cores if whole}):
            _refuse_unequal(at, cores, ranks, "a whole node")
    return ranks


def _refuse_unequal(at: _Where, cores: int, ranks: int, what: str) -> None:
    if cores % ranks:
        more = -(-cores // ranks) * ranks
        raise (at / "ranks").error(
            f"is {ranks}, and {what} is {_count(cores, 'core')}, which they cannot share equally",
            f"write a number of cores that is a multiple of {ranks}, like {more}",
        )


def _size(at: _Where, value: Any, *, in_array: bool) -> Dict[str, Any]:
    if not isinstance(value, Mapping):
        return {"exact": at.whole(value, 1)}
    size = at.mapping(value, _SIZE_KEYS)
    for key in ("exact", "min", "max"):
        if key in size:
            at_key = at / key
            at_key.whole(size[key], 1)
    if "exact" in size and len(size) > 1:
        raise at.error("has 'exact' beside a range", "keep 'exact', or 'min' and 'max'", "exact")
    if not size or set(size) == {"scheduler"}:
        raise at.error("has no number", "write {'exact': 4}, or {'min': 2, 'max': 4}")
    if "exact" not in size:
        size.setdefault("min", 1)
        if size.get("max", math.inf) < size["min"]:
            raise at.error(f"goes from {size['min']} to {size['max']}", "write the smaller number as 'min'")
    _refuse_open_range(at, size, in_array=in_array)
    return size


def _refuse_open_range(at: _Where, size: Dict[str, Any], *, in_array: bool) -> None:
    if "scheduler" in size:
        _scheduler(at / "scheduler", size)
        if not in_array:
            raise at.error("has a scheduler, but the job has no iterations", "write 'max' in its place", "scheduler")
    elif "min" in size and "max" not in size:
        least = size["min"]
        instead = f"write {{'min': {least}, 'max': {2 * least}}}, or {{'exact': {least}}}"
        raise at.error("has 'min' and no 'max'", instead)


def _scheduler(at: _Where, size: Dict[str, Any]) -> None:
    scheduler = at.mapping(size["scheduler"], _SCHEDULER_KEYS)
    names = ("maximum-iters", "split-into")
    if scheduler.get("name") not in names:
        raise at.error(f"has the name {shown(scheduler.get('name'))}", f"the schedulers are {', '.join(names)}", "name")
    if "max" in size:
        raise at.error("stands beside 'max'", "leave 'max' out: the scheduler chooses the size")
    refuse_what_is_no_json(at / "params", (at / "params").mapping(scheduler.get("params", {})))


def _walltime(at: _Where, value: Any) -> str:
    try:
        return as_manager_has_it(at.text(value) if isinstance(value, str) else value)
    except ValueError as error:
        if isinstance(error, InvalidJob):
            raise
        problem, _, instead = str(error).partition("; ")
        raise at.error(problem, instead) from None


def _consumables(at: _Where, resources: Dict[str, Any], capacity: Optional[Capacity]) -> Dict[str, int]:
    """Take what a job asks for beside cores out of its `resources`, and return it as the manager counts it."""
    at_each = at / "nodeCrs"
    wanted: Dict[str, int] = {}
    for key, number in at_each.mapping(resources.pop("nodeCrs", {})).items():
        if key.lower() != "gpu":
            raise at_each.error(f"names {key!r}", _NOT_COUNTED.get(key.lower(), "it can have 'gpu' only"), key)
        if wanted:
            raise at_each.error("names gpu twice", "keep one of them", key)
        wanted["gpu"] = (at_each / key).whole(number, 1)
        _refuse_too_many(at_each, wanted["gpu"], capacity)
    if "gpus" in resources:
        at_gpus = at / "gpus"
        number = at_gpus.whole(resources.pop("gpus"), 0)
        if number and "gpu" in wanted:
            raise at.error("has 'gpus' beside 'nodeCrs' with 'gpu'", "keep 'gpus'", "gpus")
        if number:
            wanted["gpu"] = number
            _refuse_too_many(at_gpus, number, capacity)
    return wanted


def _refuse_too_many(at: _Where, number: int, capacity: Optional[Capacity]) -> None:
    most = capacity.most("gpu") if capacity is not None else None
    if most is not None and number > most:
        raise at.error(f"asks for {_count(number, 'GPU')} on a node", f"no node has more than {most}")


def _keep_on_one_node(at: _Where, resources: Dict[str, Any], capacity: Optional[Capacity], model: str) -> None:
    """Ask for one node: what is one process cannot use cores of another, which the core would give it all the same."""
    nodes = _least(resources.get("numNodes"))
    if model == "threads" and nodes is not None and nodes > 1:
        raise at.error(f"asks for {_count(nodes, 'node')}", "a job of the model 'threads' runs on one")
    is_wide = nodes is None and resources["numCores"] != {"exact": 1}
    if is_wide and capacity is not None and capacity.nodes > 1:
        resources["numNodes"] = {"exact": 1}


def _fits(at: _Where, resources: Dict[str, Any], capacity: Capacity, ranks: int) -> None:
    cores = _least(resources.get("numCores"))
    nodes = _least(resources.get("numNodes"))
    if nodes is None:
        if cores is not None:
            _fits_anywhere(at, cores, cores // (ranks or cores), capacity)
        return
    if nodes > capacity.nodes:
        raise at.error(f"asks for {_count(nodes, 'node')}", f"there are {capacity.nodes} here")
    consumables: Dict[str, int] = resources.get("nodeCrs", {})
    suitable = capacity.suitable(cores, consumables)
    if suitable is None:
        if (cores or 1) * nodes > capacity.cores:
            asked = f"asks for {nodes} x {cores} cores" if nodes > 1 else f"asks for {_count(cores or 1, 'core')}"
            raise at.error(asked, f"jobs can use {capacity.cores} here")
        return
    if suitable >= nodes:
        return
    if cores is not None and nodes == 1 and not consumables:
        if cores > capacity.cores:
            there = f"jobs can use {_count(capacity.cores, 'core')} here; no node has {_count(cores, 'core')}"
            raise at.error(f"asks for {_count(cores, 'core')}", there)
        widest = max((usable for usable, _ in capacity.node_cores or ()), default=0)
        instead = (
            f"no node has {_count(cores, 'core')}; jobs can use {widest} on one, and only a model of MPI on several"
        )
        raise at.error(f"asks for {_count(cores, 'core')} on one node", instead)
    each = [_count(cores, "core")] if cores is not None else []
    each += [_count(number, "GPU") for number in consumables.values()]
    asked = f"asks for {_count(nodes, 'node' if cores is not None else 'whole node')}"
    asked += f" with {' and '.join(each)} each" if each else ""
    raise at.error(asked, f"{_count(suitable, 'node')} here can give that")


def _fits_anywhere(at: _Where, cores: int, piece: int, capacity: Capacity) -> None:
    """Refuse what all nodes together cannot give, each of them a multiple of the cores of a rank, which are `piece`."""
    if cores > capacity.cores:
        raise at.error(f"asks for {_count(cores, 'core')}", f"jobs can use {_count(capacity.cores, 'core')} here")
    if capacity.node_cores is not None and piece > 1:
        room = sum(usable // piece for usable, _ in capacity.node_cores)
        if room * piece < cores:
            asked = f"asks for {_count(cores // piece, 'rank')} with {_count(piece, 'core')} each"
            raise at.error(asked, f"each has them on one node, and there is room for {room} here")


def _least(size: Optional[Dict[str, Any]]) -> Optional[int]:
    return None if size is None else cast("int", size.get("exact", size.get("min")))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _iteration(at: _Where, value: Any) -> Dict[str, Any]:
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


def _iteration_values(at: _Where, value: Any) -> List[str]:
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


def _dependencies(at: _Where, value: Any, name: str) -> Dict[str, Any]:
    dependencies = at.mapping(value, _DEPENDENCY_KEYS)
    after = dependencies.get("after", [])
    at_after = at / "after"
    names = [after] if isinstance(after, str) else at_after.items(after)
    for number, other in enumerate(names):
        place = at_after if isinstance(after, str) else at_after / number
        if place.text(other).partition(":")[0] == name:
            raise place.error("names the job itself", "it would wait for ever; name another job")
    return {"after": names}
