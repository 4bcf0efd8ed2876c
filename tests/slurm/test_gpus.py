"""GPUs in an allocation of two nodes, of which the first has two and the second four."""

import json

import pytest

pytestmark = pytest.mark.slurm

BEGIN = """
    import json, os, signal, subprocess, sys, time
    from pathlib import Path
    from qcg.pilotjob.executor_api import *

    SEEN = "echo $(hostname) ${CUDA_VISIBLE_DEVICES-unset} ${ROCR_VISIBLE_DEVICES-unset} ${ZE_AFFINITY_MASK-unset}"

    def wait_until(condition, seconds=30):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.005)

    def together(count):
        # a job that says what it sees, and goes on when so many have
        until = f"[ $(ls *.seen | wc -l) -ge {count} ]"
        return f"{SEEN}; touch $QCG_PM_EXEC_API_JOB_ID.seen; until {until}; do sleep 0.02; done"

    def said(future):
        future.raise_for_status(60)
        return sorted(Path(f"{future.ids[0]}.out").read_text().split("\\n")[:-1])

    def gpus(future):
        return future.info()[future.ids[0]]["runtime"].get("gpus")

    def failure(future):
        try:
            future.raise_for_status(60)
        except JobFailed as failed:
            return failed.message

    def refusal(call, *arguments, **parameters):
        try:
            call(*arguments, **parameters)
        except InvalidJob as error:
            return str(error)

    def seen():
        return os.uname().nodename, os.environ.get("CUDA_VISIBLE_DEVICES")
"""


def findings(completed):
    assert completed.stdout, completed.stderr
    return json.loads(completed.stdout.splitlines()[-1])


def test_jobs_use_the_gpus_of_all_nodes_at_a_time_and_others_see_none(with_gpus):
    seen, told, in_record, none = findings(
        with_gpus(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        jobs = [executor.submit(ScriptTemplate, name=f"g{n}", script=together(4), gpus=1) for n in range(4)]
        seen = [said(job) for job in jobs]
        told = [gpus(job) for job in jobs]
        in_record = [row["gpus"] for row in executor.record().rows()]
        job = executor.submit(ScriptTemplate, name="none", script=SEEN)
        none = [said(job), gpus(job)]
    print(json.dumps([sum(seen, []), told, in_record, none]))
    """,
            options=("--gres=gpu:2",),
        )
    )
    assert sorted(seen) == [f"{node} {gpu} {gpu} {gpu}" for node in ("n1", "n2") for gpu in (0, 1)]
    assert sorted(told) == ["n1[0]", "n1[1]", "n2[0]", "n2[1]"]
    assert sorted(map(str, in_record)) == [str({node: [gpu]}) for node in ("n1", "n2") for gpu in ("0", "1")]
    assert none == [["n1   9999"], None]  # an empty ZE_AFFINITY_MASK would stand for all


REQUESTS = [
    ("--gres=gpu:2", {"n1": 2, "n2": 2}),
    ("--gpus-per-node=1", {"n1": 1, "n2": 1}),
    ("--gpus=6", {"n1": 2, "n2": 4}),
    ("--gpus-per-task=1", {"n1": 2, "n2": 4}),  # an exclusive allocation has all
]


@pytest.mark.parametrize(("asked", "counts"), REQUESTS)
def test_each_node_has_as_many_as_slurm_has_given(with_gpus, asked, counts):
    found = findings(
        with_gpus(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        nodes = [{k: v for k, v in n.items()} for n in executor._connection.dispatcher.link.capacity.node_resources]
    print(json.dumps(nodes))
    """,
            options=(asked, "--ntasks-per-node=2"),
        )
    )
    assert sorted(node["gpu"] for node in found) == sorted(counts.values())


def test_a_job_has_its_own_gpus_on_each_of_its_nodes(with_gpus):
    """One GPU of the first node is taken, so those of the job are not the same ones on both nodes."""
    found = findings(
        with_gpus(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        stay = executor.submit(ScriptTemplate, name="stay", script="touch begun; sleep 99", gpus=1)
        wait_until(Path("begun").exists)
        wide = {"nodes": 2, "cores": 1, "gpus": 1}
        by_hand = executor.submit(
            ParallelTemplate, wide, name="hand", exec="bash", args=["-c", f"{SEEN}; srun bash -c '{SEEN}'"])
        by_model = executor.submit(
            ParallelTemplate, wide, name="model", exec="bash", args=["-c", SEEN], model="srunmpi")
        none = executor.submit(ParallelTemplate, name="none", exec="srun", args=["bash", "-c", SEEN], nodes=2, cores=1)
        own = executor.submit(
            ParallelTemplate, wide, name="own", exec="bash", args=["-c", SEEN], model="srunmpi",
            env={"CUDA_VISIBLE_DEVICES": "it's 7"})
        found = [said(job) for job in (by_hand, by_model, none, own)]
        found.append(gpus(by_hand))
        stay.cancel()
    print(json.dumps(found))
    """,
            options=("--gres=gpu:2",),
        )
    )
    first, second = "n1 1 1 1", "n2 0 0 0"
    assert found == [
        [first, first, second],
        [first, second],
        ["n1   9999", "n2   9999"],
        ["n1 it's 7 1 1", "n2 it's 7 0 0"],
        "n1[1],n2[0]",
    ]
