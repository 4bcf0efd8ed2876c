"""Measures one executor of functions in this process, and prints what it has measured as a line of JSON."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any

import numpy as np

from systems.pools import POOLS

_SINGLES = 30
_ARRAYS = 5
_MEGABYTES = 100


def _nothing(number: int) -> int:
    return number


def _changed(array: Any) -> Any:
    array[0] += 1
    return array


def main() -> None:
    name, workers, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    start = time.perf_counter()
    pool = POOLS[name](workers)
    for future in [pool.submit(_nothing, number) for number in range(4 * workers)]:
        future.result()
    opened = time.perf_counter()
    futures = [pool.submit(_nothing, number) for number in range(calls)]
    submitted = time.perf_counter()
    good = sum(future.result() == number for number, future in enumerate(futures))
    ended = time.perf_counter()
    array = np.zeros(_MEGABYTES * 125_000)
    figures = {
        "open": opened - start,
        "submit": (submitted - opened) / calls,
        "rate": calls / (ended - opened),
        "latency": statistics.median(_seconds(pool, _nothing, 1) for _ in range(_SINGLES)),
        "array": statistics.median(_seconds(pool, _changed, array) for _ in range(_ARRAYS)),
        "lost": calls - good,
    }
    print(json.dumps(figures), flush=True)
    os._exit(0)  # how each of them ends is not measured here


def _seconds(pool: Any, function: Any, argument: Any) -> float:
    start = time.perf_counter()
    pool.submit(function, argument).result()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
