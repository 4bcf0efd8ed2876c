"""A study that does not fit into one batch job: each job goes on where the last one had to stop.

``sbatch study.sbatch`` starts the chain. On Slurm's warning nothing more is started, and what runs goes on; the next
batch job runs the rest. The exit code tells that script whether one is needed.
"""

import signal
import sys
from concurrent.futures import wait
from pathlib import Path

from qcg.pilotjob.executor_api import ExecutorClosed, JobUnknown, QCGPJExecutor, QCGPJFuture, ScriptTemplate

RUNS = 40
NOT_DONE = 75  # EX_TEMPFAIL: try again


def future_of(executor: QCGPJExecutor, number: int) -> QCGPJFuture:
    """Return the future of a run, which is submitted unless it was in an earlier batch job."""
    try:
        return executor.attach(f"run{number}")
    except JobUnknown:
        script = f"hostname > run{number}.host; sleep 0.5; echo $(( {number} * {number} )) > run{number}.result"
        return executor.submit(ScriptTemplate, name=f"run{number}", script=script)


def main() -> int:
    """Return the exit code."""
    earlier = sorted(Path().glob(".qcgpjm-service-*"))
    try:
        with QCGPJExecutor(resume=earlier[-1] if earlier else None, stop_on=signal.SIGUSR1) as executor:
            futures = [future_of(executor, number) for number in range(RUNS)]
            wait(futures)
    except ExecutorClosed:
        return NOT_DONE  # the warning came before all was submitted
    left = sum(future.cancelled() for future in futures)
    print(f"{RUNS - left} of {RUNS} runs have ended")
    if left:
        return NOT_DONE
    results = [int(Path(f"run{number}.result").read_text()) for number in range(RUNS)]
    print(f"the sum of all results is {sum(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
