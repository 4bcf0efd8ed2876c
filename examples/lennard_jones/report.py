"""The results as text: pressures in epsilon/sigma^3, potential energies per atom in epsilon."""

from typing import List, Sequence

from analysis import SIGMAS, Comparison, Result


def eos_table(results: List[Result]) -> str:
    """All results beside the equation of state."""
    columns = f"{'EOS':>8} {'diff':>8} {'tol':>6}"
    lines = [
        "",
        "Against the equation of state of Thol et al. (2016); 'tol' is the largest difference that agrees.",
        "",
        f"  T*   rho*   {'pressure':^17} {columns}   {'energy/atom':^17} {columns}",
    ]
    for result in results:
        pressure, energy = result.against_eos()
        lines.append(_line(result, [pressure, energy], [_beside_eos(pressure), _beside_eos(energy)]))
    return "\n".join(lines)


def nist_table(results: List[Result]) -> str:
    """The results at the state points that NIST has too."""
    lines = [
        "",
        "Against NIST's Monte Carlo results for the same number of atoms, cut-off and tail correction;",
        f"'z' is the difference in combined standard errors, up to {SIGMAS:g} agrees.",
        "",
        f"  T*   rho*   {'pressure':^17} {'NIST':^17} {'z':>5}   {'energy/atom':^17} {'NIST':^17} {'z':>5}",
    ]
    for result in results:
        comparisons = result.against_nist()
        if comparisons:
            lines.append(_line(result, comparisons, [_beside_nist(comparison) for comparison in comparisons]))
    return "\n".join(lines)


def _line(result: Result, comparisons: Sequence[Comparison], columns: List[str]) -> str:
    verdict = [] if all(comparison.agrees for comparison in comparisons) else ["DISAGREES"]
    return "  ".join([f"{result.point.temperature:4.2f} {result.point.density:6.3f}", *columns, *verdict])


def _beside_eos(comparison: Comparison) -> str:
    published = comparison.published.value
    return f"{comparison.simulated} {published:8.4f} {comparison.difference:+8.4f} {comparison.tolerance:6.4f}"


def _beside_nist(comparison: Comparison) -> str:
    z = SIGMAS * comparison.difference / comparison.tolerance
    return f"{comparison.simulated} {comparison.published} {z:+5.1f}"
