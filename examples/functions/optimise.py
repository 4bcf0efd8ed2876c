"""scipy's differential evolution: each generation is evaluated side by side, by the pool's map."""

from scipy.optimize import differential_evolution, rosen

from qcg.pilotjob.executor_api import QCGPJExecutor


def main() -> None:
    with QCGPJExecutor(resources=2) as executor:
        found = differential_evolution(
            rosen, [(0, 2)] * 2, workers=executor.functions().map, updating="deferred", seed=1, maxiter=60
        )
    print([round(float(x), 2) for x in found.x])


if __name__ == "__main__":
    main()
