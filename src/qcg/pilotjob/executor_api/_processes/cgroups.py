"""The CPU quota of this process's control groups: how many CPUs' time the kernel lets it have at the most.

A quota is not in the affinity: a container that may use 2.5 CPUs of 64 can run on each of them, and is stopped for the
rest of each period once it has used 250 ms of CPU time in 100 ms.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional

__all__ = ["cpu_quota"]

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
    memberships = _memberships(_read(root / "proc/self/cgroup"))
    for mount in _mounts(_read(root / "proc/self/mountinfo")):
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
    limit = _read(directory / "cpu.max").split()
    if not limit:
        limit = [*_read(directory / "cpu.cfs_quota_us").split(), *_read(directory / "cpu.cfs_period_us").split()]
    if len(limit) != 2 or limit[0] in ("max", "-1"):
        return None
    return int(limit[0]) / int(limit[1])


def _read(path: Path) -> str:
    """Return what is in a file, nothing where it does not exist: of the topmost group there is no limit to be read."""
    try:
        return path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        _logger.warning("%s cannot be read, so a CPU quota there is not known: %s", path, error.strerror)
        return ""
