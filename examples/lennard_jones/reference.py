"""Published values for the Lennard-Jones fluid, all in reduced (LJ) units.

Two independent sources:

* the equation of state of M. Thol, G. Rutkai, A. Köster, R. Lustig, R. Span and
  J. Vrabec, J. Phys. Chem. Ref. Data 45, 023101 (2016), doi:10.1063/1.4945000,
  for any state point of the fluid;
* the Monte Carlo results in ``nist.csv``, at the few state points they cover.
"""

import csv
from pathlib import Path
from typing import Dict, Tuple

import numpy as np

# The reduced residual Helmholtz energy is a sum of terms (table 2 of the paper)
#   n tau^t delta^d                                               (6 terms)
#   n tau^t delta^d exp(-delta^l)                                 (6 terms)
#   n tau^t delta^d exp(-eta (delta-eps)^2 - beta (tau-gamma)^2)  (11 terms)
# of tau = T0/T and delta = rho/RHO0.
T0, RHO0 = 1.32, 0.31

# fmt: off
POWER = np.array([
    # n            t      d
    (0.005208073,  1.000, 4),
    (2.186252,     0.320, 1),
    (-2.161016,    0.505, 1),
    (1.4527,       0.672, 2),
    (-2.041792,    0.843, 2),
    (0.18695286,   0.898, 3),
]).T

EXPONENTIAL = np.array([
    # n             t      d  l
    (-0.090988445,  1.294, 5, 1),
    (-0.4974561,    2.590, 2, 2),
    (0.10901431,    1.786, 2, 1),
    (-0.80055922,   2.770, 3, 2),
    (-0.568839,     1.786, 1, 2),
    (-0.6208625,    1.205, 1, 1),
]).T

GAUSSIAN = np.array([
    # n            t      d  eta    beta   gamma  eps
    (-1.4667177,   2.830, 1, 2.067, 0.625, 0.710, 0.2053),
    (1.891469,     2.548, 1, 1.522, 0.638, 0.860, 0.4090),
    (-0.1383701,   4.650, 2, 8.820, 3.910, 1.940, 0.6000),
    (-0.3869645,   1.385, 3, 1.722, 0.156, 1.480, 1.2030),
    (0.1265702,    1.460, 3, 0.679, 0.157, 1.490, 1.8290),
    (0.605781,     1.351, 2, 1.883, 0.153, 1.945, 1.3970),
    (1.179189,     0.660, 1, 3.925, 1.160, 3.020, 1.3900),
    (-0.47732679,  1.496, 2, 2.461, 1.730, 1.110, 0.5390),
    (-9.9218575,   1.830, 3, 28.20, 383.0, 1.170, 0.9340),
    (-0.5747932,   1.616, 1, 0.753, 0.112, 1.330, 2.3690),
    (0.003772923,  4.970, 1, 0.820, 0.119, 0.240, 2.4300),
]).T
# fmt: on


def equation_of_state(temperature: float, density: float) -> Tuple[float, float]:
    """Pressure (epsilon/sigma^3) and potential energy per atom (epsilon).

    Args:
        temperature: kT/epsilon; the equation holds for about 0.7 to 9
        density: N sigma^3/V, up to the freezing line
    """
    tau, delta = T0 / temperature, density / RHO0

    n, t, d = POWER
    terms = n * tau**t * delta**d
    by_delta, by_tau = np.sum(terms * d), np.sum(terms * t)

    n, t, d, power = EXPONENTIAL
    terms = n * tau**t * delta**d * np.exp(-(delta**power))
    by_delta += np.sum(terms * (d - power * delta**power))
    by_tau += np.sum(terms * t)

    n, t, d, eta, beta, gamma, eps = GAUSSIAN
    terms = n * tau**t * delta**d * np.exp(-eta * (delta - eps) ** 2 - beta * (tau - gamma) ** 2)
    by_delta += np.sum(terms * (d - 2 * eta * delta * (delta - eps)))
    by_tau += np.sum(terms * (t - 2 * beta * tau * (tau - gamma)))

    return density * temperature * (1 + by_delta), temperature * by_tau


def _load_nist() -> Dict[Tuple[float, float], Dict[str, float]]:
    lines = Path(__file__).with_name("nist.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    values = [{key: float(value) for key, value in row.items()} for row in rows]
    return {(row["temperature"], row["density"]): row for row in values}


NIST = _load_nist()
"""The rows of ``nist.csv``, by temperature and density."""
