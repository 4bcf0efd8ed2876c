"""How many CPUs of this machine a batch system other than Slurm has given to the job that this process is in.

Where such a system confines its jobs, by cpusets or affinity, the kernel tells. Where it does not, the variables in a
job's environment are all that tells one job's share of a machine from its neighbour's.
"""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Callable, List, Mapping, Optional, Tuple

__all__ = ["share"]

_logger = logging.getLogger(__name__)

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
