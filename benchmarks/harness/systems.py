"""What is compared: one line a system."""

from __future__ import annotations

from typing import Dict, NamedTuple


class System(NamedTuple):
    """How a system is run; its adapter is in systems/, its environment in `environments.PINS`."""

    label: str
    adapter: str
    environment: str
    options: Dict[str, str]
    open: bool = True  # it stays open between jobs; else no latency, and no cost of its own, can be told


REFERENCE = "threads"
OURS = "ours"

SYSTEMS: Dict[str, System] = {
    REFERENCE: System("threads and `subprocess.run`", "threads", "bare", {}),
    OURS: System("ours", "qcgpj", "ours", {}),
    "ours-quiet": System('ours, `log_level="critical"`', "qcgpj", "ours", {"quiet": "yes"}),
    "core": System("the core, quiet, one batch", "core", "core", {"quiet": "yes"}),
    "core-info": System("the core, one batch", "core", "core", {}),
    "released": System("released 0.14.2", "qcgpj", "released", {}),
    "released-quiet": System("released 0.14.2, quiet", "qcgpj", "released", {"quiet": "released"}),
    "executorlib": System("executorlib, block allocation", "executorlib", "executorlib", {}),
    "parsl": System("Parsl, HTEX", "parsl", "parsl", {"executor": "htex"}),
    "parsl-threads": System("Parsl, threads", "parsl", "parsl", {"executor": "threads"}),
    "dask": System("Dask, LocalCluster", "dask", "dask", {}),
    "hyperqueue": System("HyperQueue, one job of N tasks", "hyperqueue", "hyperqueue", {"jobs_of": "all tasks"}),
    "hyperqueue-each": System("HyperQueue, N jobs", "hyperqueue", "hyperqueue", {"jobs_of": "one task"}),
    "xargs": System("`xargs -P`", "xargs", "bare", {}, open=False),
}
QUICK = (REFERENCE, OURS, "core", "executorlib", "xargs")
IN_ALLOCATION = (REFERENCE, OURS, "core")
