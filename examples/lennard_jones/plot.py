"""The isotherms as a picture."""

from pathlib import Path
from typing import List

import numpy as np
from analysis import Result
from matplotlib.figure import Figure
from reference import equation_of_state

CRITICAL_TEMPERATURE = 1.32
LIQUID_DENSITY = 0.76  # the isotherms below the critical temperature are drawn from here


def plot_isotherms(results: List[Result], path: Path) -> None:
    """Draw the pressure over the density, and below it the differences from the equation of state."""
    figure = Figure(figsize=(7, 7), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    for number, temperature in enumerate(sorted({result.point.temperature for result in results})):
        isotherm = [result for result in results if result.point.temperature == temperature]
        density = np.array([result.point.density for result in isotherm])
        pressures = [result.against_eos()[0] for result in isotherm]
        errors = [pressure.simulated.error for pressure in pressures]
        color = f"C{number}"
        style = {"color": color, "fmt": "o", "capsize": 3, "markersize": 5}

        low = LIQUID_DENSITY if temperature < CRITICAL_TEMPERATURE else 0.02
        line = np.linspace(low, density.max() + 0.02, 200)
        top.plot(line, [equation_of_state(temperature, x)[0] for x in line], color=color, linewidth=1)
        top.errorbar(density, [p.simulated.value for p in pressures], errors, label=f"$T^* = {temperature:g}$", **style)

        beside = density + 0.007 * (number - 1)  # isotherms share densities
        bottom.errorbar(beside, [p.difference for p in pressures], errors, **style)
        for sign in (1, -1):
            bottom.plot(beside, [sign * p.tolerance for p in pressures], "_", color=color, markersize=10)

    nist = [(result.point.density, result.against_nist()) for result in results if result.against_nist()]
    top.plot(
        [density for density, _ in nist],
        [pressure.published.value for _, (pressure, _) in nist],
        "s", color="black", fillstyle="none", markersize=10, label="NIST",
    )  # fmt: skip
    bottom.axhline(0, color="black", linewidth=1)
    top.set(title="Lennard-Jones fluid: LAMMPS (points), Thol et al. 2016 (lines)", ylabel=r"$p\,\sigma^3/\epsilon$")
    bottom.set(xlabel=r"$\rho\,\sigma^3$", ylabel="difference; bars: 1 s.e.,\ndashes: tolerance")
    top.legend()
    figure.savefig(path, dpi=120)
