"""The variables of an environment that tell which GPUs there are, as Slurm or the user has set them.

A GPU is a dictionary: for each of the variables that tell of it, the value that stands for this one. The values are
kept as they are, since they may be numbers, UUIDs or names of slices.
"""

from __future__ import annotations

import os
from typing import Dict, List, Mapping

__all__ = ["HIDES_ALL", "PLACE", "VARIABLES", "Gpu", "gpus_in"]

Gpu = Dict[str, str]

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
    "SLURM_STEP_GPUS",
)
"""All that may tell of GPUs; a GPU is called by its value in the first of those that its node has."""

_NO_GPU = frozenset(("", "-1", "9999", "NoDevFiles", "none", "void"))
HIDES_ALL = {"HIP_VISIBLE_DEVICES": "-1", "GPU_DEVICE_ORDINAL": "-1", "ZE_AFFINITY_MASK": "9999"}
"""By variable, the value with which no GPU is seen; of those that are not here it is an empty one.

An empty ``ZE_AFFINITY_MASK`` stands for all devices, and so do the other two for programs with HIP.
"""
_COUNTED = ("HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
"""Variables that choose among the devices that ``ROCR_VISIBLE_DEVICES`` leaves, by their places there."""
PLACE = "*"  # the value in such a variable: its place among the GPUs that the job has


def gpus_in(environment: Mapping[str, str]) -> List[Gpu]:
    """Return the GPUs that an environment tells of, in the order in which it names them.

    A variable that tells of another number of GPUs than the first one is left alone.
    """
    lists = {
        name: [text for text in map(str.strip, environment[name].split(",")) if text not in _NO_GPU]
        for name in VARIABLES
        if environment.get(name)
    }
    lists = {name: texts for name, texts in lists.items() if texts}
    if not lists:
        return []
    if "ROCR_VISIBLE_DEVICES" in lists:
        # a program with HIP takes CUDA_VISIBLE_DEVICES for HIP_VISIBLE_DEVICES
        by_place = _COUNTED if not _is_amd() else (*_COUNTED, "CUDA_VISIBLE_DEVICES")
        lists.update({name: [PLACE] * len(lists[name]) for name in by_place if name in lists})
    count = len(next(texts for texts in lists.values() if texts[0] != PLACE))
    lists = {name: texts for name, texts in lists.items() if len(texts) == count}
    return [dict(zip(lists, values)) for values in zip(*lists.values())]


def _is_amd() -> bool:
    return os.path.exists("/dev/kfd") and not os.path.exists("/dev/nvidiactl")
