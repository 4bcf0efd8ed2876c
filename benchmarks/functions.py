#!/usr/bin/env python3
"""Compare executors of Python functions: calls a second, the answer of an idle one, an array there and back.

As in run.py, each has a virtual environment of its own, each round is a process in an empty directory, and the rounds
are taken in turn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any, Dict, List, NamedTuple

from harness.environments import DEFAULT_ROOT, Environments
from harness.processes import become_subreaper
from harness.rounds import BENCHMARKS, environment_of, read_result, run_alone


class _Pool(NamedTuple):
    label: str
    environment: str


REFERENCE = "process-pool"
POOLS: Dict[str, _Pool] = {
    REFERENCE: _Pool("`ProcessPoolExecutor`", "pool-loky"),
    "ours": _Pool("ours, `functions()`", "pool-ours"),
    "loky": _Pool("loky", "pool-loky"),
    "executorlib": _Pool("executorlib, block allocation", "pool-executorlib"),
    "dask": _Pool("Dask, LocalCluster", "pool-dask"),
    "parsl": _Pool("Parsl, HTEX", "pool-parsl"),
}
_LIMIT_SECONDS = 180.0
_HEAD = ("| System | calls/s (least, most) | of the first | submit, µs | latency, ms | 100 MB, s | open, s |",
         "|---|---:|---:|---:|---:|---:|---:|")  # fmt: skip


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=POOLS, default=list(POOLS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--calls", type=int, default=1000, metavar="N")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    become_subreaper()
    environments = Environments(DEFAULT_ROOT)
    rounds: Dict[str, List[Dict[str, Any]]] = {name: [] for name in options.systems}
    for number in range(options.rounds):
        for name in options.systems:
            python = environments.python(POOLS[name].environment)
            command = [str(python), str(BENCHMARKS / "pool_worker.py"), name, str(options.workers), str(options.calls)]
            output, _ = run_alone(command, _LIMIT_SECONDS, environment_of(python))
            rounds[name].append(read_result(output))
            print(f"round {number + 1}: {name}: {rounds[name][-1]['rate']:.0f} calls/s", file=sys.stderr, flush=True)
    print(*_HEAD, sep="\n")
    for name in sorted(rounds, key=lambda name: -_median(rounds[name], "rate")):
        print(_row(POOLS[name].label, rounds[name], rounds.get(REFERENCE)))
    return int(any(each["lost"] for taken in rounds.values() for each in taken))


def _median(taken: List[Dict[str, Any]], figure: str) -> float:
    return statistics.median(each[figure] for each in taken)


def _row(label: str, taken: List[Dict[str, Any]], reference: Any) -> str:
    rates = [each["rate"] for each in taken]
    ratio = statistics.median(one["rate"] / other["rate"] for one, other in zip(taken, reference)) if reference else 0
    return (
        f"| {label} | {statistics.median(rates):.0f} ({min(rates):.0f}, {max(rates):.0f}) | {ratio:.2f} "
        f"| {1e6 * _median(taken, 'submit'):.0f} | {1e3 * _median(taken, 'latency'):.1f} "
        f"| {_median(taken, 'array'):.2f} | {_median(taken, 'open'):.2f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
