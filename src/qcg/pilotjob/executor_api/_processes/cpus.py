"""The CPUs of the machine that this process runs on: which of them it may use, and which are siblings in one core."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

__all__ = ["Core", "cores_of", "given_cpus", "machine_cores", "parse_cpus", "slots", "usable_cpus"]

Core = Tuple[int, ...]
"""The hardware threads of one physical core, by the numbers that the kernel has for them."""

_TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cpus() -> List[int]:
    """Return the CPUs that this process may use: its affinity, which the kernel keeps within its cpuset."""
    return sorted(os.sched_getaffinity(0))


def machine_cores(topology: Path = _TOPOLOGY) -> List[Core]:
    """Return all cores of this machine that are online, socket by socket.

    This is the order in which Slurm numbers CPUs: the first thread of the first core of the first socket is CPU 0, the
    second thread of the same core is CPU 1. A CPU of which the kernel tells nothing is a core of its own.
    """
    online = parse_cpus(_read(topology / "online")) or usable_cpus()
    sockets: Dict[str, List[Core]] = {}
    seen = set()
    for cpu in online:
        if cpu in seen:
            continue
        directory = topology / f"cpu{cpu}" / "topology"
        siblings = set(parse_cpus(_read(directory / "thread_siblings_list"))) & set(online) | {cpu}
        seen |= siblings
        sockets.setdefault(_read(directory / "physical_package_id"), []).append(tuple(sorted(siblings)))
    return [core for cores in sockets.values() for core in cores]


def cores_of(cpus: Iterable[int], machine: Iterable[Core]) -> List[Core]:
    """Return the cores of `machine` that `cpus` belong to, each with those of its threads that are in `cpus`.

    They come in the order of their first CPU. A CPU that is not in `machine` is a core of its own.
    """
    left = set(cpus)
    cores = []
    for core in machine:
        usable = tuple(cpu for cpu in core if cpu in left)
        left.difference_update(core)
        if usable:
            cores.append(usable)
    return sorted([*cores, *((cpu,) for cpu in left)])


def given_cpus(
    usable: Sequence[int], machine: Sequence[Core], numbers: Optional[Sequence[int]], count: int
) -> List[int]:
    """Return the CPUs that a scheduler has given, of those that are `usable` here; none when they cannot be told.

    `count` is how many the scheduler says, and `numbers` which, in its own order of the CPUs of `machine`, if it does.
    A job that is confined to its CPUs can use no others. One that is not could use those of other jobs, too.
    """
    online = [cpu for core in machine for cpu in core]
    if len(usable) <= (len(numbers) if numbers else count):
        whole_machine_is_too_small = len(usable) == len(online) < count
        return [] if whole_machine_is_too_small else list(usable)
    if not numbers:
        return []
    given = sorted({online[number] for number in numbers if number < len(online)} & set(usable))
    return given if len(given) == len(numbers) else []


def slots(cores: Iterable[Core], threads_per_core: int = 1) -> List[Core]:
    """Cut each core into as many pieces as jobs may share it, one a core by default, and return the pieces.

    A core with fewer threads gives one piece a thread; with more, the pieces have several threads each.
    """
    pieces = []
    for core in cores:
        number = min(threads_per_core, len(core))
        pieces += [core[first::number] for first in range(number)]
    return sorted(pieces)


def parse_cpus(text: str) -> List[int]:
    """Return the numbers in a list like ``0-3,8``, as the kernel and Slurm write them.

    Raises:
        ValueError: it is no such list.
    """
    numbers: List[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            if int(last or first) < int(first):
                raise ValueError(f"not a list of CPUs: {text!r}")
            numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # not all machines, and no container must, tell
        return ""
