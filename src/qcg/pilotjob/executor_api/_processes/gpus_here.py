"""The GPUs that jobs can use on a node, found by the agent there."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping

from qcg.pilotjob.executor_api._processes.cores_here import CoresHere, claim
from qcg.pilotjob.executor_api._processes.gpu_variables import Gpu, gpus_in

__all__ = ["gpus_here"]


def gpus_here(environment: Mapping[str, str], cores: CoresHere, granted: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the GPUs that `environment` tells of, and the variables that do so, for the manager.

    Executors that share the allocation claim what they use in a place that `granted` names. There are at most as many
    then as go with the part of the CPUs that this agent has claimed, and none that another executor has.
    """
    gpus = gpus_in(environment)
    variables = sorted({name for gpu in gpus for name in gpu})
    if "place" in granted:
        cpus = sum(len(name.split(",")) for name in cores.names)
        most = math.ceil(len(gpus) * cpus / (cores.cpus or granted["count"]))
        claimed: List[Gpu] = []
        for number, gpu in enumerate(gpus):
            if len(claimed) < most and claim(f"{granted['place']}-gpu-{number}"):
                claimed.append(gpu)
        gpus = claimed
    return {"usable": gpus, "variables": variables}
