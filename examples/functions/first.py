"""Call a function many times, on as many cores as there are."""

import math

from qcg.pilotjob.executor_api import QCGPJExecutor


def simulate(temperature: float, steps: int = 1000) -> float:
    """Stand for something that takes longer."""
    return sum(math.exp(-step / temperature) for step in range(1, steps))


def main() -> None:
    temperatures = [1.0, 2.0, 3.0]
    with QCGPJExecutor(resources=2) as executor:
        pool = executor.functions()
        print(f"{pool.submit(simulate, 0.3, steps=100).result():.4f}")
        print([f"{energy:.4f}" for energy in pool.map(simulate, temperatures)])


if __name__ == "__main__":
    main()
