#!/usr/bin/env python3
"""Run the fault suite again and again while a program spins on each core; stop at the first failure.

Each round is short (one repetition of what is done at random moments); the seeds differ from round to round.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import List

HERE = Path(__file__).parent


def main() -> int:
    """Return the exit status of the last round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=300)
    parser.add_argument("--first", type=int, default=0, help="the number of the first round, that is its seed")
    parser.add_argument("--workers", default="6", help="tests at a time")
    parser.add_argument("--tests", nargs="+", default=[str(HERE)], help="files, when not the whole suite")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGHUP):  # a shell has programs in its background ignore them
        signal.signal(number, signal.SIG_DFL)
    spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        return run(options.first, options.rounds, ["-n", options.workers, *options.tests])
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def run(first: int, rounds: int, arguments: List[str]) -> int:
    began = time.monotonic()
    for number in range(first, first + rounds):
        command = [sys.executable, "-X", "dev", "-W", "error", "-m", "pytest", "-q", *arguments]
        environment = {**os.environ, "REPETITIONS": "1", "SEED": str(number)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(f"round {number} failed\n{done.stdout}{done.stderr}")
            return done.returncode
        print(f"round {number}: {done.stdout.splitlines()[-1]}; {time.monotonic() - began:.0f} s in all", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
