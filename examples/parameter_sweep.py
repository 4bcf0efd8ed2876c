#!/usr/bin/env python3
"""Ten jobs with a parameter each, read in the order in which they end; one of them fails and says why.

Exit status: 1, because a job failed.
"""

import sys
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any, Dict, Tuple

from qcg.pilotjob.executor_api import JobFailed, QCGPJExecutor

PROGRAM = "import math, sys; x = float(sys.argv[1]); print(math.sqrt(x))"


def square_root() -> Tuple[str, Dict[str, Any]]:
    """The template: placeholders that `submit` fills in, and defaults for some of them."""
    text = """
    {
        "name": "root_of_${x}",
        "execution": {
            "exec": "${python}",
            "args": ["-c", "${program}", "${x}"],
            "stdout": "${jname}.out",
            "stderr": "${jname}.err"
        },
        "resources": {"numCores": 1}
    }
    """
    return text, {"python": sys.executable, "program": PROGRAM}


def main() -> int:
    values = [*range(9), -1]
    roots: Dict[int, float] = {}
    failures = 0
    with QCGPJExecutor() as executor:
        jobs = {executor.submit(square_root, x=x): x for x in values}
        for future in as_completed(jobs):
            try:
                (name,) = future.raise_for_status()
            except JobFailed as failure:
                failures += 1
                print(failure)
            else:
                roots[jobs[future]] = float(Path(f"{name}.out").read_text())

    for x, root in sorted(roots.items()):
        print(f"sqrt({x}) = {root:.6f}")
    print(f"{len(roots)} succeeded, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
