#!/usr/bin/env python3
"""One round of one system, in its environment and an empty directory: ``worker.py ORDERS``, both ways JSON.

run.py starts it. The executor is open and has run its first jobs before anything is measured.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from typing import Any, Dict, List

from harness.processes import become_subreaper, cost
from harness.session import Session

LATENCY_SECONDS = 10.0  # a slow system has shown by then what it is


def latency(session: Session, most: int) -> float:
    """Return the median of seconds from submit to result, when there is nothing else to do."""
    taken: List[float] = []
    end = time.monotonic() + LATENCY_SECONDS
    while len(taken) < most and time.monotonic() < end:
        start = time.perf_counter()
        session.run(1)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def many(session: Session, jobs: int) -> Dict[str, Any]:
    """Run the jobs of the round."""
    before = cost()
    start = time.perf_counter()
    run = session.run(jobs)
    seconds = time.perf_counter() - start
    after = cost()
    return {
        "jobs": jobs,
        "lost": jobs - run.good,
        "seconds": None if run.stalled else seconds,
        "submitting": run.submitting,
        "cost": {name: late - early for name, early, late in zip(after._fields, before, after)},
    }


def main() -> None:
    orders = json.loads(sys.argv[1])
    become_subreaper()
    adapter = importlib.import_module(f"systems.{orders['adapter']}")
    start = time.perf_counter()
    session: Session = adapter.open_session(orders["workers"], orders["command"], **orders["options"])
    opened = time.perf_counter() - start
    session.run(4 * max(1, orders["workers"]))  # some start their workers when the first job comes
    result: Dict[str, Any] = {"opening": opened}
    if orders["singles"]:
        result["latency"] = latency(session, orders["singles"])
    result.update(many(session, orders["jobs"]))
    start = time.perf_counter()
    session.close()
    result["closing"] = time.perf_counter() - start
    print(f"\n{json.dumps(result)}", flush=True)


if __name__ == "__main__":
    main()
