"""Runs one study that begins outside any allocation; prints its host names, and when they came, as a line of JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import List

from systems.allocations import STUDIES


def main() -> None:
    name, jobs = sys.argv[1], int(sys.argv[2])
    hosts: List[str] = []
    times: List[float] = []
    for host in STUDIES[name](jobs):
        times.append(time.monotonic())
        hosts.append(host)
    # the clock is that of the whole machine: whoever has started this knows when
    print(f"\n{json.dumps({'hosts': hosts, 'first': times[0], 'last': times[-1]})}", flush=True)


if __name__ == "__main__":
    main()
