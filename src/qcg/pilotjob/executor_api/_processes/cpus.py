"""The CPUs of this machine that this process may use: by affinity, by its cgroups, by a batch system.

A quota of the control groups is not in the affinity: a container that may use 2.5 CPUs of 64 can run on each of them,
and is stopped for the rest of each period once it has used 250 ms of CPU time in 100 ms.

Where a batch system confines its jobs, by cpusets or affinity, the kernel tells. Where it does not, the variables in a
job's environment are all that tells one job's share of a machine from its neighbour's.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
import socket
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

__all__ = [
    "Core",
    "cores_of",
    "cpu_quota",
    "given_cpus",
    "machine_cores",
    "parse_cpus",
    "share",
    "slots",
    "usable_cpus",
]

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


_logger = logging.getLogger(__name__)


class _Mount(NamedTuple):
    """A line of ``/proc/self/mountinfo``: `root` is the directory of the file system that stands at `point`."""

    root: str
    point: str
    filesystem: str
    options: List[str]


def cpu_quota(root: Path = Path("/")) -> Optional[float]:
    """Return the quota of this process in CPUs, None when it has none.

    A group can have no more than the groups that it is in, so it is the least of them all, of cgroup v1
    (``cpu.cfs_quota_us``) and v2 (``cpu.max``). `root` is where ``/proc`` and the mount points are.
    """
    quotas = [_quota(directory) for directory in _groups(root)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(root: Path) -> Iterator[Path]:
    """Yield the directories of the groups that may limit this process's CPUs: its own, and those above that show."""
    memberships = _memberships(_text_of(root / "proc/self/cgroup"))
    for mount in _mounts(_text_of(root / "proc/self/mountinfo")):
        if mount.filesystem == "cgroup2":
            group = memberships.get("")
        elif mount.filesystem == "cgroup" and "cpu" in mount.options:
            group = memberships.get("cpu")
        else:
            continue
        if group is not None:
            below = _below(group, mount.root)
            yield from (root / mount.point.lstrip("/") / part for part in (below, *below.parents))


def _memberships(text: str) -> Dict[str, str]:
    """Return the groups in ``/proc/self/cgroup`` by their controllers; v2's has no controller's name."""
    groups = {}
    for line in text.splitlines():
        _, controllers, group = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), group))
    return groups


def _mounts(text: str) -> Iterator[_Mount]:
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        places = [_unescaped(field) for field in before.split()[3:5]]
        filesystem, _, options = after.split()[:3]
        yield _Mount(places[0], places[1], filesystem, options.split(","))


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)


def _below(group: str, mount_root: str) -> Path:
    """Return where `group` is below the mount point of the group `mount_root`.

    In a container that sees its own group only, or from which the host's groups can be seen, `group` may be elsewhere:
    then the mount point itself is all that can be known.
    """
    relative = posixpath.relpath(group, mount_root)
    if ".." in (group + "/" + mount_root + "/" + relative).split("/"):
        return Path()
    return Path(relative)


def _quota(directory: Path) -> Optional[float]:
    limit = _text_of(directory / "cpu.max").split()
    if not limit:
        limit = [*_text_of(directory / "cpu.cfs_quota_us").split(), *_text_of(directory / "cpu.cfs_period_us").split()]
    if len(limit) != 2 or limit[0] in ("max", "-1"):
        return None
    return int(limit[0]) / int(limit[1])


def _text_of(path: Path) -> str:
    """Return what is in a file, nothing where it does not exist: of the topmost group there is no limit to be read."""
    try:
        return path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        _logger.warning("%s cannot be read, so a CPU quota there is not known: %s", path, error.strerror)
        return ""


Share = Tuple[int, str]
"""The number of CPUs, and how the batch system tells it, in words."""


def share(environ: Mapping[str, str]) -> Optional[Share]:
    """Return the share of the job that has `environ`, None outside a job or when it does not tell."""
    for variable, read in _SYSTEMS:
        if variable in environ:
            return read(environ)
    return None


def _pbs(environ: Mapping[str, str]) -> Optional[Share]:
    """Read the variables of PBS Professional, OpenPBS and Torque.

    The file has a line for each MPI process (Torque: for each CPU). NCPUS is what the job's first chunk has for each of
    them: its ``ompthreads``, or all of its ``ncpus`` when that is not given. So it is all there is when it is at least
    as large as the number of lines. ``ncpus=64:mpiprocs=4:ompthreads=16`` cannot be told from
    ``ncpus=16:mpiprocs=4``, and is taken for that.
    """
    lines = _lines(environ.get("PBS_NODEFILE", ""))
    here = sum(_is_here(line) for line in lines)
    threads = _number(environ, "NCPUS")
    if threads and here <= threads:
        return threads, f"NCPUS of the PBS job is {threads}"
    if not here:
        return None
    times = f"PBS_NODEFILE of the PBS job names this machine {here} time{'s' if here > 1 else ''}"
    return (here * threads, f"{times}, and NCPUS is {threads}") if threads else (here, times)


def _lsf(environ: Mapping[str, str]) -> Optional[Share]:
    """Read LSF's pairs of host and slots; the number of all slots stands for one host where there are none."""
    words = environ.get("LSB_MCPU_HOSTS", "").split()
    for host, slots in zip(words[::2], words[1::2]):
        if _is_here(host) and slots.isdigit():
            return int(slots), f"LSB_MCPU_HOSTS of the LSF job has {slots} for this machine"
    number = _number(environ, "LSB_DJOB_NUMPROC")
    return (number, f"LSB_DJOB_NUMPROC of the LSF job is {number}") if number else None


def _grid_engine(environ: Mapping[str, str]) -> Optional[Share]:
    """Read Grid Engine's file of hosts and slots, which parallel environments have, or the number of all slots."""
    for words in map(str.split, _lines(environ.get("PE_HOSTFILE", ""))):
        if _is_here(words[0]) and words[1].isdigit():
            return int(words[1]), f"PE_HOSTFILE of the Grid Engine job has {words[1]} for this machine"
    number = _number(environ, "NSLOTS")
    return (number, f"NSLOTS of the Grid Engine job is {number}") if number else None


_SYSTEMS: List[Tuple[str, Callable[[Mapping[str, str]], Optional[Share]]]] = [
    ("PBS_JOBID", _pbs),
    ("LSB_JOBID", _lsf),
    ("SGE_TASK_ID", _grid_engine),
]


def _lines(path: str) -> List[str]:
    if not path:
        return []
    try:
        return [line for line in Path(path).read_text().splitlines() if line.strip()]
    except OSError as error:
        _logger.warning("%s of the batch system cannot be read: %s", path, error.strerror)
        return []


def _is_here(host: str) -> bool:
    return host.strip().partition(".")[0].lower() == socket.gethostname().partition(".")[0].lower()


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "").strip()
    if not text.isdigit():
        if text:
            _logger.warning("%s is %r, which is no number", name, text)
        return 0
    return int(text)
