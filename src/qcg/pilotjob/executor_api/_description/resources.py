"""Check what a job asks for: cores, nodes, ranks, GPUs and walltime, against what the manager has."""

from __future__ import annotations

import math
from typing import Any, Dict, Mapping, Optional, cast

from qcg.pilotjob.executor_api._description.walltimes import as_manager_has_it
from qcg.pilotjob.executor_api._description.where import Where, refuse_what_is_no_json
from qcg.pilotjob.executor_api._shared.rules import MPI_MODELS
from qcg.pilotjob.executor_api._shared.texts import shown
from qcg.pilotjob.executor_api.errors import InvalidJob
from qcg.pilotjob.executor_api.jobs import Capacity

__all__ = ["checked_resources"]

_RESOURCE_KEYS = dict.fromkeys(("numCores", "numNodes", "ranks", "wt", "gpus", "nodeCrs"))


_NOT_COUNTED = {"mem": "no manager counts memory; a job that needs a third of a node's takes a third of its cores"}


_SIZE_KEYS = dict.fromkeys(("exact", "min", "max", "scheduler"))


_SCHEDULER_KEYS = dict.fromkeys(("name", "params"))


def checked_resources(
    at: Where, value: Any, capacity: Optional[Capacity], execution: Dict[str, Any], *, in_array: bool
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


def _ranks(at: Where, resources: Dict[str, Any], capacity: Optional[Capacity], *, is_mpi: bool) -> int:
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


def _refuse_unequal(at: Where, cores: int, ranks: int, what: str) -> None:
    if cores % ranks:
        more = -(-cores // ranks) * ranks
        raise (at / "ranks").error(
            f"is {ranks}, and {what} is {_count(cores, 'core')}, which they cannot share equally",
            f"write a number of cores that is a multiple of {ranks}, like {more}",
        )


def _size(at: Where, value: Any, *, in_array: bool) -> Dict[str, Any]:
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


def _refuse_open_range(at: Where, size: Dict[str, Any], *, in_array: bool) -> None:
    if "scheduler" in size:
        _scheduler(at / "scheduler", size)
        if not in_array:
            raise at.error("has a scheduler, but the job has no iterations", "write 'max' in its place", "scheduler")
    elif "min" in size and "max" not in size:
        least = size["min"]
        instead = f"write {{'min': {least}, 'max': {2 * least}}}, or {{'exact': {least}}}"
        raise at.error("has 'min' and no 'max'", instead)


def _scheduler(at: Where, size: Dict[str, Any]) -> None:
    scheduler = at.mapping(size["scheduler"], _SCHEDULER_KEYS)
    names = ("maximum-iters", "split-into")
    if scheduler.get("name") not in names:
        raise at.error(f"has the name {shown(scheduler.get('name'))}", f"the schedulers are {', '.join(names)}", "name")
    if "max" in size:
        raise at.error("stands beside 'max'", "leave 'max' out: the scheduler chooses the size")
    refuse_what_is_no_json(at / "params", (at / "params").mapping(scheduler.get("params", {})))


def _walltime(at: Where, value: Any) -> str:
    try:
        return as_manager_has_it(at.text(value) if isinstance(value, str) else value)
    except ValueError as error:
        if isinstance(error, InvalidJob):
            raise
        problem, _, instead = str(error).partition("; ")
        raise at.error(problem, instead) from None


def _consumables(at: Where, resources: Dict[str, Any], capacity: Optional[Capacity]) -> Dict[str, int]:
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


def _refuse_too_many(at: Where, number: int, capacity: Optional[Capacity]) -> None:
    most = capacity.most("gpu") if capacity is not None else None
    if most is not None and number > most:
        raise at.error(f"asks for {_count(number, 'GPU')} on a node", f"no node has more than {most}")


def _keep_on_one_node(at: Where, resources: Dict[str, Any], capacity: Optional[Capacity], model: str) -> None:
    """Ask for one node: what is one process cannot use cores of another, which the core would give it all the same."""
    nodes = _least(resources.get("numNodes"))
    if model == "threads" and nodes is not None and nodes > 1:
        raise at.error(f"asks for {_count(nodes, 'node')}", "a job of the model 'threads' runs on one")
    is_wide = nodes is None and resources["numCores"] != {"exact": 1}
    if is_wide and capacity is not None and capacity.nodes > 1:
        resources["numNodes"] = {"exact": 1}


def _fits(at: Where, resources: Dict[str, Any], capacity: Capacity, ranks: int) -> None:
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


def _fits_anywhere(at: Where, cores: int, piece: int, capacity: Capacity) -> None:
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
