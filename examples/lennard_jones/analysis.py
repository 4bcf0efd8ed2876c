"""From the series that LAMMPS wrote to a verdict, in reduced (LJ) units."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional, Tuple

import numpy as np
from reference import NIST, equation_of_state

BLOCKS = 10  # of 1200 steps, or 4.8 time units, in a full run

# A point agrees with a published value when they differ by no more than SIGMAS
# (combined) standard errors. Against the equation of state there is an allowance
# too, for what error bars do not show: README.md says where it comes from.
SIGMAS = 4.0
ALLOWED_PRESSURE = 0.01  # epsilon/sigma^3
ALLOWED_PRESSURE_FRACTION = 0.003
ALLOWED_ENERGY = 0.01  # epsilon


class Estimate(NamedTuple):
    """A mean value and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:8.4f} ({self.error:.4f})"


class StatePoint(NamedTuple):
    """Where to simulate: kT/epsilon and N sigma^3/V."""

    temperature: float
    density: float

    @property
    def name(self) -> str:
        """The name of the job and of its directory."""
        return f"T{self.temperature:.2f}_rho{self.density:.3f}"


@dataclass(frozen=True)
class Comparison:
    """A simulated value beside a published one, and how far apart they may be."""

    simulated: Estimate
    published: Estimate
    allowed: float

    @property
    def difference(self) -> float:
        """Simulated minus published."""
        return self.simulated.value - self.published.value

    @property
    def tolerance(self) -> float:
        """The largest difference that counts as agreement."""
        return SIGMAS * math.hypot(self.simulated.error, self.published.error) + self.allowed

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance."""
        return abs(self.difference) <= self.tolerance


@dataclass(frozen=True)
class Result:
    """What came out at a state point: pressure (epsilon/sigma^3) and potential energy per atom (epsilon)."""

    point: StatePoint
    pressure: Estimate
    energy: Estimate

    def against_eos(self) -> Tuple[Comparison, Comparison]:
        """Pressure and energy beside the equation of state."""
        pressure, energy = equation_of_state(*self.point)
        allowed = ALLOWED_PRESSURE + ALLOWED_PRESSURE_FRACTION * pressure
        return (
            Comparison(self.pressure, Estimate(pressure, 0.0), allowed),
            Comparison(self.energy, Estimate(energy, 0.0), ALLOWED_ENERGY),
        )

    def against_nist(self) -> Optional[Tuple[Comparison, Comparison]]:
        """Pressure and energy beside the Monte Carlo results; None where there are none."""
        if self.point not in NIST:
            return None
        row = NIST[self.point]
        return (
            Comparison(self.pressure, Estimate(row["pressure"], row["pressure_sd"]), 0.0),
            Comparison(self.energy, Estimate(row["energy"], row["energy_sd"]), 0.0),
        )

    @property
    def agrees(self) -> bool:
        """Whether every comparison agrees."""
        return all(comparison.agrees for comparison in self.against_eos() + (self.against_nist() or ()))


def block_average(samples: np.ndarray, blocks: int = BLOCKS) -> Estimate:
    """Mean and standard error of a correlated series, from the scatter of the means of its blocks."""
    length = len(samples) // blocks
    if length == 0:
        raise ValueError(f"{len(samples)} samples are too few for {blocks} blocks")
    means = samples[len(samples) - blocks * length :].reshape(blocks, length).mean(axis=1)
    return Estimate(float(means.mean()), float(means.std(ddof=1)) / math.sqrt(blocks))


def read_result(point: StatePoint, directory: Path) -> Result:
    """Read ``series.dat`` (columns: step, temperature, energy per atom, pressure) of a finished job."""
    _, _, energy, pressure = np.loadtxt(directory / "series.dat", unpack=True)
    return Result(point, block_average(pressure), block_average(energy))
