"""A campaign of EasyVVUQ: its runs are calls of the pool, in the place of a pool of its own."""

import os
import sys
import tempfile
from pathlib import Path

import chaospy
import easyvvuq

from qcg.pilotjob.executor_api import QCGPJExecutor

MODEL = """
import json, sys
given = json.load(open(sys.argv[1]))
with open(given["out"], "w") as out:
    print("z", given["x"] * given["y"], sep=chr(10), file=out)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        here = os.getcwd()
        os.chdir(directory)
        try:
            print(f"{mean_of_products():.4f}")
        finally:
            os.chdir(here)


def mean_of_products() -> float:
    """Return the mean of x * y, both of which are uniform between 0 and 1, by nine runs of a model."""
    Path("input.template").write_text('{"x": $x, "y": $y, "out": "$out"}')
    Path("model.py").write_text(MODEL)
    number = {"type": "float", "default": 1.0}
    actions = easyvvuq.actions
    campaign = easyvvuq.Campaign(
        name="product",
        work_dir=os.getcwd(),
        params={"x": number, "y": number, "out": {"type": "string", "default": "out.csv"}},
        actions=actions.Actions(
            actions.CreateRunDirectory(root=os.getcwd(), flatten=True),
            actions.Encode(
                easyvvuq.encoders.GenericEncoder(os.path.abspath("input.template"), target_filename="in.json")
            ),
            actions.ExecuteLocal(f"{sys.executable} {os.path.abspath('model.py')} in.json"),
            actions.Decode(easyvvuq.decoders.SimpleCSV(target_filename="out.csv", output_columns=["z"])),
        ),
    )
    uniform = {"x": chaospy.Uniform(0, 1), "y": chaospy.Uniform(0, 1)}
    campaign.set_sampler(easyvvuq.sampling.PCESampler(vary=uniform, polynomial_order=2))
    with QCGPJExecutor(resources=2) as executor:
        campaign.execute(pool=executor.functions()).collate()
    analysis = easyvvuq.analysis.PCEAnalysis(sampler=campaign.get_active_sampler(), qoi_cols=["z"])
    results = analysis.analyse(campaign.get_collation_result())
    return float(results.describe("z", "mean").item())


if __name__ == "__main__":
    main()
