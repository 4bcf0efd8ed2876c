"""Check an `Allocation`, and write it as the guard is asked for it."""

from __future__ import annotations

import importlib.util
import re
import shutil
from dataclasses import fields
from typing import Any, Dict, Mapping, Optional

from qcg.pilotjob.executor_api._description.walltimes import seconds_in
from qcg.pilotjob.executor_api._shared import python_process
from qcg.pilotjob.executor_api.allocation import Allocation
from qcg.pilotjob.executor_api.errors import InvalidOption

__all__ = ["SCHEDULERS", "wanted"]

SCHEDULERS = ("slurm", "pbs", "pbs_classic", "lsf", "local")  # psij's for Flux and Cobalt lose what is asked for


_PREFIXES = ("slurm", "pbs", "lsf")


_OPTION = re.compile(rf"(?:({'|'.join(_PREFIXES)})\.)?([A-Za-z][A-Za-z0-9_-]*)")


_COMMANDS = {"sbatch": "slurm", "bsub": "lsf", "qsub": "pbs"}


def wanted(allocation: Allocation) -> Dict[str, Any]:
    """Return the fields of `allocation`, its walltime in ``seconds``, and what it leaves open.

    Raises:
        InvalidOption: it has no meaning.
        ImportError: psij-python is not installed.
    """
    if not isinstance(allocation, Allocation):
        raise InvalidOption(f"allocation is {allocation!r}; give Allocation(nodes=..., walltime=...)")
    if importlib.util.find_spec("psij") is None:
        raise ImportError(
            "allocation= needs psij-python; pip install 'qcg-pilotjob-executor-api[allocations]'", name="psij"
        )
    for name, least in (("nodes", 1), ("cores_per_node", 1), ("count", 1), ("renew", 0)):
        _check_number(name, getattr(allocation, name), least)
    for name in ("queue_timeout", "start_timeout", "silence", "idle", "poll"):
        _check_seconds(name, getattr(allocation, name))
    try:
        seconds = seconds_in(allocation.walltime)
    except ValueError as error:
        raise InvalidOption(f"Allocation's walltime {error}") from None
    scheduler = _scheduler(allocation.scheduler)
    if allocation.nodes > 1 and scheduler != "slurm":
        raise InvalidOption(
            f"Allocation's nodes is {allocation.nodes}, but jobs get to several nodes of an allocation by Slurm alone; "
            f"with {scheduler} ask for allocations of one node, count={allocation.nodes}"
        )
    asked_for = {field.name: getattr(allocation, field.name) for field in fields(allocation) if field.name != "tunnel"}
    return {
        **asked_for,
        "scheduler": scheduler,
        "walltime": str(allocation.walltime),
        "options": _options(allocation.options, scheduler),
        "python": allocation.python or python_process.interpreter(),
        "seconds": seconds,
    }


def _check_number(name: str, value: Any, least: int) -> None:
    if value is None and name == "cores_per_node":
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidOption(f"Allocation's {name} is {value!r}; give a number of at least {least}")


def _check_seconds(name: str, value: Any) -> None:
    if value is None and name == "queue_timeout":
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise InvalidOption(f"Allocation's {name} is {value!r}; give seconds")


def _options(given: Any, scheduler: str) -> Dict[str, str]:
    """Return the options as text, by psij's names; an option without a value has empty text."""
    if not isinstance(given, Mapping):
        raise InvalidOption(f"Allocation's options is {given!r}; give a dictionary like {{'slurm.qos': 'debug'}}")
    options = {}
    for name, value in given.items():
        found = _OPTION.fullmatch(name) if isinstance(name, str) else None
        if not found:
            raise InvalidOption(
                f"Allocation's options have {name!r}; write the scheduler and the option's name without '-' before it, "
                f"like 'slurm.qos': one of {', '.join(_PREFIXES)}"
            )
        prefix = found[1] or scheduler.partition("_")[0]
        options[f"{prefix}.{found[2]}"] = _option(name, value, prefix)
    return options


def _option(name: str, value: Any, prefix: str) -> str:
    text = "" if value is None or value is True else str(value)
    if value is False or not isinstance(value, (str, int, float, type(None))):
        raise InvalidOption(
            f"Allocation's option {name!r} is {value!r}; give text or a number, or True for an option without a value"
        )
    if not text and prefix != "slurm":
        raise InvalidOption(f"Allocation's option {name!r} has no value; psij gives one to every option of {prefix}")
    refused = r'["\\]' if prefix == "slurm" else r"[^\w@%+=:,./-]"  # psij writes what a shell would take into quotes
    character = re.search(rf"{refused}|[\x00-\x1f]", text)
    if character:
        raise InvalidOption(
            f"Allocation's option {name!r} is {value!r}, with {character[0]!r}, which cannot be handed to {prefix}"
        )
    return text


def _scheduler(given: Optional[str]) -> str:
    if given in SCHEDULERS:
        return given
    if given is not None:
        raise InvalidOption(f"Allocation's scheduler is {given!r}; give one of {', '.join(SCHEDULERS)}")
    for command, scheduler in _COMMANDS.items():
        if shutil.which(command) is not None:
            return scheduler
    raise InvalidOption(
        f"no scheduler was found: none of {', '.join(_COMMANDS)} is on the PATH; give Allocation(scheduler=...), one "
        f"of {', '.join(SCHEDULERS)}, where 'local' is this machine"
    )
