"""A graph of Dask's: its own scheduler decides what comes next, and the pool computes."""

import dask.array

from qcg.pilotjob.executor_api import QCGPJExecutor


def main() -> None:
    ones = dask.array.ones((1000, 1000), chunks=250)
    with QCGPJExecutor(resources=2) as executor:
        print(int((ones + ones.T).sum().compute(scheduler=executor.functions())))


if __name__ == "__main__":
    main()
