"""The executor's arguments, checked and turned into the manager's command line."""

from __future__ import annotations

import os
import re
import signal
import threading
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence, Union

from qcg.pilotjob.executor_api._shared.run_files import PREFIX, find_run
from qcg.pilotjob.executor_api.errors import InvalidOption

if TYPE_CHECKING:
    from typing import TypedDict

    from typing_extensions import Unpack

    class Options(TypedDict):
        """The keyword arguments of ``QCGPJExecutor`` that the manager is started with."""

        wd: Union[str, "os.PathLike[str]"]
        resources: Union[int, str, None]
        reserve_core: bool
        enable_rt_stats: bool
        wrapper_rt_stats: Union[str, "os.PathLike[str]", None]
        log_level: str
        resume: Union[str, "os.PathLike[str]", None]


__all__ = [
    "LOG_LEVELS",
    "ManagerOptions",
    "checked_options",
    "value_of",
    "working_directory",
]

LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "notset")

_PART = "--slurm-limit-nodes-range-"
_NODE = r"(?:(?P<name>[^:,\s]+):)?(?P<cores>[1-9]\d*)"
_DEFAULTS: Options = {
    "wd": ".",
    "resources": None,
    "reserve_core": False,
    "enable_rt_stats": False,
    "wrapper_rt_stats": None,
    "log_level": "info",
    "resume": None,
}
_REFUSED = {
    "--net-port": "the executor's manager listens on private sockets only",
    "--net-port-min": "the executor's manager listens on private sockets only",
    "--net-port-max": "the executor's manager listens on private sockets only",
    "--net-pub-port": "the executor's manager listens on private sockets only",
    "--disable-pub": "the executor follows jobs by the manager's events",
    "--governor": "the executor has no governor mode; start the manager by hand and give it as manager=",
    "--parent": "the executor's manager has no parent; start the manager by hand and give it as manager=",
    "--slurm-partition-nodes": "it implies the governor mode, which the executor does not have",
    "--resume": "give resume= to the executor",
    "--report-format": "the executor reads the report, which has to be JSON",
    "--wd": "give wd= to the executor",
    "--log": "give log_level= to the executor",
}


class ManagerOptions(NamedTuple):
    """Holds what a manager of the executor's own is started with, and which signals end the executor early."""

    arguments: List[str]
    """The manager's command line."""
    orders: Dict[str, Any]
    """What the manager gets beside its command line; see ``_manager.__main__.serve``."""
    signals: List[int]
    """The signals that mean that the time is nearly over."""


def checked_options(
    extra: Sequence[Any],
    *,
    manager: Any,
    has_allocation: bool,
    restarts: Any,
    threads_per_core: Any,
    stop_on: Any,
    **options: Unpack[Options],
) -> ManagerOptions:
    """Return the options of ``QCGPJExecutor`` as a manager gets them, each checked by itself and beside others.

    Raises:
        InvalidOption: an option has no meaning, or not beside another one.
    """
    arguments = command_line(extra, **options)
    resources = options["resources"]
    if manager is not None and (arguments != command_line([], **_DEFAULTS) or resources is not None):
        raise InvalidOption("manager= stands beside options for a manager of the executor's own; leave those out")
    if has_allocation:
        refuse_beside_allocation(manager, resources)
    elif manager is None:
        refuse_other_tasks(extra, resources)
    orders = {
        "restarts": checked_restarts(restarts, manager),
        "threads_per_core": checked_threads(threads_per_core, manager),
        "cores": cores_of_allocation(resources),
    }
    return ManagerOptions(arguments, orders, checked_signals(stop_on))


def command_line(extra: Sequence[Any], **options: Unpack[Options]) -> List[str]:
    """Return the manager's arguments.

    Raises:
        InvalidOption: an argument has no meaning.
    """
    arguments = [*_directory(options["wd"], options["resume"], extra), "--log", _log_level(options["log_level"])]
    if options["resources"] is not None and cores_of_allocation(options["resources"]) is None:
        # the core would tell jobs of an allocation that has the name of its made-up node
        arguments += ["--nodes", _nodes(options["resources"]), "--envschema", "common"]
    for given, flag in (("reserve_core", "--system-core"), ("enable_rt_stats", "--enable-rt-stats")):
        if options[given]:  # type: ignore[literal-required]  # both names are keys of Options
            arguments.append(flag)
    if options["wrapper_rt_stats"] is not None:
        arguments += ["--wrapper-rt-stats", _wrapper(options["wrapper_rt_stats"])]
    if extra and not str(extra[0]).startswith("-"):
        raise InvalidOption(_unnamed(extra[0]))
    return arguments + [_extra(argument) for argument in extra if argument != "--net"]


def _unnamed(argument: Any) -> str:
    """Return what to say of a first argument that is no option of the manager."""
    if re.fullmatch(r"[\w.-]+:\d+(,[\w.-]+:\d+)*|\d+", str(argument)):
        return f"QCGPJExecutor({argument!r}) names no option; for that many cores write resources={argument!r}"
    return f"QCGPJExecutor({argument!r}) names no option; write resources= for cores, wd= for the directory of the jobs"


def cores_of_allocation(resources: Union[int, str, None]) -> Optional[int]:
    """Return how many cores of the allocation `resources` stands for; None outside of one, and for named nodes."""
    text = str(resources).strip()
    if isinstance(resources, bool) or not re.fullmatch(r"[1-9]\d*", text) or not _in_allocation():
        return None
    return int(text)


def checked_threads(threads_per_core: Any, manager: Any) -> int:
    """Return `threads_per_core` when it has a meaning.

    Raises:
        InvalidOption: it has none.
    """
    if isinstance(threads_per_core, bool) or not isinstance(threads_per_core, int) or threads_per_core < 1:
        raise InvalidOption(f"threads_per_core is {threads_per_core!r}; how many jobs may share a core? 1 lets none")
    if threads_per_core > 1 and manager is not None:
        raise InvalidOption("threads_per_core= is for a manager of the executor's own, not for manager=")
    return threads_per_core


def checked_restarts(restarts: Any, manager: Any) -> int:
    """Return `requeue_on_node_failure` when it has a meaning.

    Raises:
        InvalidOption: it has none.
    """
    if isinstance(restarts, bool) or not isinstance(restarts, int) or restarts < 0:
        raise InvalidOption(f"requeue_on_node_failure is {restarts!r}; give how many times, 0 for never")
    if restarts and manager is not None:
        raise InvalidOption("requeue_on_node_failure= is for a manager of the executor's own, not for manager=")
    return restarts


def refuse_beside_allocation(manager: Any, resources: Any) -> None:
    """Refuse what says the same as `allocation`, or something else.

    Raises:
        InvalidOption: there is such an argument.
    """
    if manager is not None:
        raise InvalidOption("manager= stands beside allocation=; give the one or the other")
    if resources is not None:
        raise InvalidOption("resources= stands beside allocation=; Allocation(nodes=, cores_per_node=) says how much")


def checked_signals(stop_on: Any) -> List[int]:
    """Return the signals in `stop_on`.

    Raises:
        InvalidOption: one cannot be handled, or this is not the main thread.
    """
    if stop_on is None:
        return []
    given = list(stop_on) if isinstance(stop_on, (list, tuple, set, frozenset)) else [stop_on]
    for number in given:
        if isinstance(number, bool) or not isinstance(number, int) or number not in signal.valid_signals():
            raise InvalidOption(f"stop_on is {stop_on!r}; give a signal like signal.SIGUSR1, or a list of signals")
        if number in (signal.SIGKILL, signal.SIGSTOP):
            raise InvalidOption(f"stop_on is {stop_on!r}; no program can handle {signal.Signals(number).name}")
    if threading.current_thread() is not threading.main_thread():
        raise InvalidOption("stop_on= needs the main thread: Python handles signals there only")
    return given


def working_directory(wd: Any) -> str:
    """Return `wd` as an absolute path."""
    if wd == "" or not isinstance(wd, (str, os.PathLike)):
        raise InvalidOption(f"wd is {wd!r}; give the path of a directory, '.' for the current one")
    return os.path.abspath(os.fspath(wd))


def value_of(name: str, arguments: Sequence[str]) -> str:
    """Return the value of the option `name` in `arguments`, an empty string when it is not there."""
    for number, argument in enumerate(arguments):
        if argument == name and number + 1 < len(arguments):
            return arguments[number + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return ""


def _directory(wd: Any, resume: Any, extra: Sequence[Any]) -> List[str]:
    if resume is None:
        return ["--wd", working_directory(wd)]
    run = find_run("resume", resume)
    parent, name = os.path.split(run)
    if wd != "." and working_directory(wd) != parent:
        raise InvalidOption(f"wd is {os.fspath(wd)!r}, but the run to resume works in {parent}; leave wd out")
    if value_of("--id", [str(argument) for argument in extra]):
        raise InvalidOption("--id stands beside resume=; the resumed run keeps its id, so leave it out")
    return ["--wd", parent, "--id", name[len(PREFIX) :], "--resume", run]


def _log_level(level: Any) -> str:
    if not isinstance(level, str) or level.lower() not in LOG_LEVELS:
        raise InvalidOption(f"log_level is {level!r}; the levels are {', '.join(LOG_LEVELS)}")
    return level.lower()


def _nodes(resources: Union[int, str]) -> str:
    text = "" if isinstance(resources, bool) else str(resources).strip()
    nodes = [re.fullmatch(_NODE, node.strip()) for node in text.split(",")]
    if not all(nodes):
        raise InvalidOption(
            f"resources is {resources!r}; write a number of cores ('4'), or nodes with their cores ('n1:2,n2:4'); "
            "leave it out for all that is here"
        )
    if len(nodes) > 1 and _in_allocation():
        raise InvalidOption(
            f"resources is {resources!r}, but in a Slurm allocation nodes stand for this machine alone; give a number "
            "of cores of the allocation, leave it out for all nodes, or give '--slurm-limit-nodes-range-end', '1' for "
            "the first one"
        )
    names: Dict[str, int] = {}
    for node in nodes:
        name = node["name"] if node else None
        if name and names.setdefault(name, 0):
            raise InvalidOption(f"resources is {resources!r}, which names the node {name!r} twice")
        if name:
            names[name] += 1
    return ",".join(node.group() for node in nodes if node)


def refuse_other_tasks(extra: Sequence[Any], resources: Any) -> None:
    """Refuse what srun has started beside another one like it: each would run all jobs, in the same allocation.

    Raises:
        InvalidOption: there is another one, and this is not the first.
    """
    if resources is not None or any(str(argument).startswith(_PART) for argument in extra):
        return
    tasks, task = (_number(os.environ.get(name, "")) for name in ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"))
    if task == 0 or tasks < 2:
        return
    from qcg.pilotjob.executor_api._shared.rules import JOB_ID_VARIABLE

    if JOB_ID_VARIABLE not in os.environ:  # what a job has of it is its agent's
        raise InvalidOption(
            f"srun has started this program {tasks} times, and each would use the whole allocation; the first does, "
            f"this is number {task + 1}: start it without srun, or give resources= for a part of its own"
        )


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0  # what is no number is not Slurm's


def _in_allocation() -> bool:  # as the manager finds out
    nodes = os.environ.get("SLURM_JOB_NODELIST") or os.environ.get("SLURM_NODELIST")
    return bool(nodes) and "SLURM_JOB_CPUS_PER_NODE" in os.environ


def _wrapper(wrapper: Union[str, "os.PathLike[str]"]) -> str:
    import shutil  # half a dozen modules, which need not delay the start of those who have no wrapper

    path = shutil.which(os.fspath(wrapper))
    if path is None:
        raise InvalidOption(f"wrapper_rt_stats is {os.fspath(wrapper)!r}, which is not an executable program")
    return os.path.abspath(path)


def _extra(argument: Any) -> str:
    text = str(argument)
    reason = _REFUSED.get(text.partition("=")[0])
    if reason:
        raise InvalidOption(f"the manager's option {text!r} cannot be given to the executor: {reason}")
    return text
