"""The control groups of one Slurm cluster on this machine.

Slurm calls a node's group ``slurm_<node>`` in the root of each hierarchy, so those of two clusters would collide. All
daemons of a cluster are therefore started in groups of its own, and in a cgroup namespace where these are the roots.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

CONTROLLERS = ("cpuset", "freezer", "memory", "devices")
_MOUNTED = Path("/sys/fs/cgroup")
_REMOVE_SECONDS = 10.0

CONF = """
CgroupPlugin=cgroup/v1
CgroupAutomount=yes
ConstrainCores=yes
ConstrainDevices={devices}
ConstrainRAMSpace={memory}
"""

CONF_V2 = """
CgroupPlugin=cgroup/v2
CgroupAutomount=yes
IgnoreSystemd=yes
ConstrainCores=yes
ConstrainDevices={devices}
ConstrainRAMSpace={memory}
"""

# For sh: $1 is the name of the groups, what follows is the command. It needs the namespaces --mount and --cgroup, where
# the second begins at the groups that the process is in then: so it enters them first.
ENTER = f"""
group=$1; shift
for controller in {" ".join(CONTROLLERS)}; do echo $$ > {_MOUNTED}/$controller/$group/cgroup.procs || exit; done
exec "$@"
"""
MOUNT = f"""
mount -t tmpfs none {_MOUNTED} || exit
for controller in {" ".join(CONTROLLERS)}; do
    mkdir {_MOUNTED}/$controller && mount -t cgroup -o $controller none {_MOUNTED}/$controller || exit
done
"""


def why_not() -> str:
    """Return why no groups can be made here; nothing when they can."""
    for controller in CONTROLLERS:
        if not (_MOUNTED / controller / "cgroup.procs").exists():
            return f"no cgroup v1 at {_MOUNTED / controller} (Slurm is run with cgroup/v1 here)"
        if not os.access(_MOUNTED / controller, os.W_OK):
            return f"{_MOUNTED / controller} cannot be written to"
    return ""


def make(name: str) -> None:
    """Make the groups called `name`."""
    for controller in CONTROLLERS:
        (_MOUNTED / controller / name).mkdir()
    for file in ("cpuset.cpus", "cpuset.mems"):  # they are empty at first, and then nothing can enter
        (_MOUNTED / "cpuset" / name / file).write_text((_MOUNTED / "cpuset" / file).read_text())


def groups(name: str) -> list[Path]:
    """Return the directories of all groups called `name` and of those below, each before the one that it is in."""
    tops = (_MOUNTED / controller / name for controller in CONTROLLERS)
    return [Path(directory) for top in tops for directory, _, _ in os.walk(top, topdown=False)]


def remove(name: str) -> None:
    """Kill what is in the groups called `name`, and remove them; `groups` tells whether they are gone."""
    end = time.monotonic() + _REMOVE_SECONDS
    while (left := groups(name)) and time.monotonic() < end:
        for group in left:
            with contextlib.suppress(OSError):  # one that is gone meanwhile, or has something in it still
                if group.is_relative_to(_MOUNTED / "freezer"):
                    (group / "freezer.state").write_text("THAWED")  # what is frozen cannot end
                for pid in (group / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
                group.rmdir()
        time.sleep(0.01)
