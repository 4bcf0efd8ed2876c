#!/usr/bin/env python3
"""How long a whole program takes that opens an executor, runs one `date`, gets its result and closes.

The same program runs with two interpreters in turn: one that has this package, and one that has the released 0.14.2.
With --executorlib, an interpreter that has that package runs a like program beside them: a function that runs `date`.
The time is that of the process, from its start to its end, so the start of Python and all imports are in it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, Tuple

RELEASED = ("qcg-pilotjob-executor-api==0.14.2", "qcg-pilotjob==0.14.2")

PROGRAM = """
from qcg.pilotjob.executor_api.qcgpj_executor import QCGPJExecutor
from qcg.pilotjob.executor_api.templates.basic_template import BasicTemplate

with QCGPJExecutor(resources="1") as executor:
    result = executor.submit(BasicTemplate.template, name="today", exec="date", stdout="today.out").result()
assert result == {"today": "SUCCEED"}, result
assert open("today.out").read(), "date has printed nothing"
"""

EXECUTORLIB_PROGRAM = """
import subprocess
from executorlib import SingleNodeExecutor

def date():
    return subprocess.run(["date"], capture_output=True).stdout

with SingleNodeExecutor(block_allocation=True, max_workers=2) as executor:
    assert executor.submit(date).result(), "date has printed nothing"
"""


def make_other(directory: Path) -> Path:
    """Make a virtual environment with the released package; return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    python = directory / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *RELEASED], check=True)
    return python


def seconds(python: Path, program: str) -> float:
    """Run the program once in an empty directory, from bytecode, which an editable install may not have yet."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory(prefix="startup-") as directory:
        start = time.monotonic()
        subprocess.run([str(python), "-c", program], cwd=directory, env=environment, check=True, timeout=120)
        return time.monotonic() - start


def measure(programs: Dict[str, Tuple[Path, str]], repetitions: int) -> Dict[str, List[float]]:
    """Time the programs in turn, so that what else the machine does weighs on all; the first run warms the disk."""
    times: Dict[str, List[float]] = {name: [] for name in programs}
    for repetition in range(repetitions + 1):
        for name, (python, program) in programs.items():
            taken = seconds(python, program)
            if repetition:
                times[name].append(taken)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", type=Path, default=Path(sys.executable), metavar="PYTHON", help="by default this one")
    parser.add_argument("--other", type=Path, metavar="PYTHON", help="an interpreter that has the released package")
    parser.add_argument("--make-other", type=Path, metavar="DIR", help="make a venv with it there first, from PyPI")
    parser.add_argument("--executorlib", type=Path, metavar="PYTHON", help="an interpreter that has executorlib")
    parser.add_argument("--repetitions", type=int, default=10, metavar="N")
    options = parser.parse_args()
    other = make_other(options.make_other) if options.make_other else options.other
    if other is None or options.repetitions < 1:
        parser.error("give --other or --make-other, and at least one repetition")

    programs = {"ours": (options.ours, PROGRAM), "released": (other, PROGRAM)}
    if options.executorlib is not None:
        programs["executorlib"] = (options.executorlib, EXECUTORLIB_PROGRAM)
    times = measure(programs, options.repetitions)
    print(f"{options.repetitions} runs of each, seconds    min  median     max")
    for name, taken in times.items():
        print(f"{name:28} {min(taken):6.3f}  {statistics.median(taken):6.3f}  {max(taken):6.3f}")
    print(f"released / ours: {statistics.median(times['released']) / statistics.median(times['ours']):.1f}")


if __name__ == "__main__":
    main()
