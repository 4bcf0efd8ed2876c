#!/usr/bin/env python3
"""How warm is the tea? A campaign of EasyVVUQ whose runs are jobs of its QCGPJPool, beside the exact answer.

What has ended is kept in a database: started again after a failure or an interruption, it runs what is missing.

Exit status: 0 when mean, deviation and Sobol indices are the exact ones, 1 when one is not, 2 when runs are missing.
"""

import argparse
import sys
from concurrent.futures import as_completed
from pathlib import Path
from typing import Dict

import chaospy
import easyvvuq
from easyvvuq.actions import Actions, CreateRunDirectory, Decode, Encode, ExecuteLocal, QCGPJPool
from easyvvuq.actions.execute_qcgpj import EasyVVUQParallelTemplate
from easyvvuq.constants import Status
from exact import COOLING, MINUTES, ROOM, TEA, exact

from qcg.pilotjob.executor_api import JobFailed, QCGPJExecutor

HERE = Path(__file__).resolve().parent
TOLERANCE = {"mean": 0.001, "deviation": 0.005, "of cooling": 0.0005, "of room": 0.0005}


def open_campaign(wd: Path) -> easyvvuq.Campaign:
    """Return the campaign in `wd` as it was left, or a new one."""
    wd.mkdir(parents=True, exist_ok=True)
    place = {"name": "tea", "db_location": f"sqlite:///{wd / 'campaign.db'}", "work_dir": str(wd)}
    if (wd / "campaign.db").exists():
        return easyvvuq.Campaign(**place)  # with its sampler and its actions
    defaults = {"cooling": 0.0, "room": 0.0, "tea": TEA, "minutes": MINUTES}
    params = {name: {"type": "float", "default": value} for name, value in defaults.items()}
    actions = Actions(
        CreateRunDirectory(root=str(wd), flatten=True),
        Encode(easyvvuq.encoders.GenericEncoder(str(HERE / "cup.template"), target_filename="cup.json")),
        ExecuteLocal(f"{sys.executable} {HERE / 'cup.py'} cup.json"),
        Decode(easyvvuq.decoders.JSONDecoder(target_filename="out.json", output_columns=["temperature"])),
    )
    campaign = easyvvuq.Campaign(**place, params=params, actions=actions)
    vary = {"cooling": chaospy.Uniform(*COOLING), "room": chaospy.Uniform(*ROOM)}
    campaign.set_sampler(easyvvuq.sampling.PCESampler(vary=vary, polynomial_order=2))
    return campaign


def run(campaign: easyvvuq.Campaign, cores: int) -> None:
    """Run what has no result yet, each on `cores` cores."""
    # The pool starts `python3`; the environment says which one that is.
    params = {"numCores": cores, "venv": sys.prefix if sys.prefix != sys.base_prefix else ""}
    # Ctrl-C has to cancel what is unfinished. This block does so; one of the pool, `with QCGPJPool()`, would wait.
    with QCGPJExecutor(wd=campaign.work_dir, log_level="warning") as executor:
        runs = campaign.execute(pool=QCGPJPool(executor, EasyVVUQParallelTemplate(), params))
        # runs.collate() is enough where nothing fails. But it stops at the first run that did, and commits at its
        # end; called for one run after the other it keeps what has succeeded, whatever becomes of the rest.
        for future in as_completed(runs.futures):
            try:
                future.raise_for_status()
            except JobFailed as failure:
                print(failure, flush=True)  # the decoder found nothing; what the solver said is above, in that stderr
            else:
                runs.futures = [future]
                runs.collate()
                print(f"run {future.ids[0]} is stored", flush=True)


def computed(campaign: easyvvuq.Campaign) -> Dict[str, float]:
    """Return the statistics of the runs, and how much of the variance each parameter has to answer for alone."""
    results = campaign.analyse(qoi_cols=["temperature"])
    indices = results.sobols_first("temperature")
    return {
        "mean": float(results.describe("temperature", "mean").item()),
        "deviation": float(results.describe("temperature", "std").item()),
        "of cooling": float(indices["cooling"].item()),
        "of room": float(indices["room"].item()),
    }


def main() -> int:
    """Run the campaign as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wd", type=Path, default=Path("tea"), help="of the campaign (default: %(default)s)")
    parser.add_argument("--cores", type=int, default=1, help="for each run (default: %(default)s)")
    arguments = parser.parse_args()

    campaign = open_campaign(arguments.wd.resolve())
    run(campaign, arguments.cores)
    missing = campaign.list_runs(status=Status.NEW)
    if missing:
        print(f"runs without a result: {len(missing)}; mend the cause and start this program again")
        return 2
    values, expected = computed(campaign), exact()
    for name, value in values.items():
        print(f"{name:10} {value:8.4f}  exact {expected[name]:8.4f}  difference {value - expected[name]:+.4f}")
    return 0 if all(abs(values[name] - expected[name]) <= TOLERANCE[name] for name in values) else 1


if __name__ == "__main__":
    sys.exit(main())
