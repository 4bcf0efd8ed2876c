"""GPUs in an allocation of two nodes, of which the first has two and the second four."""

import json

import pytest

pytestmark = pytest.mark.slurm

BEGIN = """
    import contextlib, json, os, signal, subprocess, sys, time
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

    @contextlib.contextmanager
    def taken(executor, gpus, name="taken"):
        # by a job that runs meanwhile
        job = executor.submit(ScriptTemplate, name=name, script=f"touch {name}.begun; sleep 99", gpus=gpus)
        try:
            wait_until(Path(f"{name}.begun").exists)
            yield job
        finally:
            job.cancel()

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
        in_record = [row["gpus"] for row in executor.record()]
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
    assert none == [["n1 9999"], None]  # an empty ZE_AFFINITY_MASK would stand for all


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
    with QCGPJExecutor() as executor, taken(executor, 1):
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
    print(json.dumps(found))
    """,
            options=("--gres=gpu:2",),
        )
    )
    first, second = "n1 1 1 1", "n2 0 0 0"
    assert found == [
        [first, first, second],
        [first, second],
        ["n1 9999", "n2 9999"],
        ["n1 it's 7 1 1", "n2 it's 7 0 0"],
        "n1[1],n2[0]",
    ]


def test_mpi_ranks_see_the_gpus_of_their_node(with_gpus, for_mpi):
    found = findings(
        with_gpus(
            BEGIN
            + """
    with QCGPJExecutor() as executor, taken(executor, 1):
        wide = {"nodes": 2, "cores": 1, "gpus": 1, "exec": "bash", "args": ["-c", SEEN]}
        mpi = executor.submit(ParallelTemplate, wide, name="mpi", model="openmpi")
        found = said(mpi)
        threads = {"nodes": 1, "cores": 2, "gpus": 4, "exec": "bash", "args": ["-c", SEEN]}
        found += said(executor.submit(ParallelTemplate, threads, name="threads", model="threads"))
    print(json.dumps(found))
    """,
            env=for_mpi,
            limit=60,
        )
    )
    assert found == ["n1 1 1 1", "n2 0 0 0", "n2 0,1,2,3 0,1,2,3 0,1,2,3"]


def test_intel_mpi_is_told_the_gpus_of_each_node(with_gpus, tmp_path):
    """Its mpirun is not there; this one says what it is told."""
    mpirun = tmp_path / "mpirun"
    mpirun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    mpirun.chmod(0o755)
    found = findings(
        with_gpus(
            BEGIN
            + """
    with QCGPJExecutor() as executor, taken(executor, 1):
        wide = {"nodes": 2, "cores": 1, "gpus": 1, "exec": "program", "env": {"ROCR_VISIBLE_DEVICES": "7"}}
        mpi = executor.submit(ParallelTemplate, wide, name="mpi", model="intelmpi", model_opts={"mpirun": sys.argv[1]})
        mpi.raise_for_status(60)
    print(json.dumps(Path("mpi.out").read_text().split("\\n")))
    """,
            mpirun,
            options=("--gres=gpu:2",),
        )
    )
    told = [tuple(found[place + 1 : place + 3]) for place, word in enumerate(found) if word == "-env"]
    assert [value for name, value in told if name == "CUDA_VISIBLE_DEVICES"] == ["1", "0"]
    assert [value for name, value in told if name == "ROCR_VISIBLE_DEVICES"] == ["7", "7"]
    first, second = (place for place, word in enumerate(found) if word == "CUDA_VISIBLE_DEVICES")
    one, two = (place for place, word in enumerate(found) if word == "program")
    assert found.index("n1") < first < one < found.index("n2") < second < two


def test_workers_of_functions_have_gpus_of_their_own(with_gpus):
    several, none, own, script, most, refused = findings(
        with_gpus(
            BEGIN
            + """
    def meet(number):
        Path(f"{number}.seen").touch()
        wait_until(lambda: len(list(Path().glob("*.seen"))) == 3)
        return seen()

    with QCGPJExecutor() as executor:
        with executor.functions(gpus=2) as pool:
            several = list(pool.map(meet, range(3)))
            most = pool._max_workers
        none = executor.functions().submit(seen).result(60)[1]
        own = executor.functions(gpus=1, env={"CUDA_VISIBLE_DEVICES": "GPU-7"}).submit(seen).result(60)[1]
        by_env = {"env": {"CUDA_VISIBLE_DEVICES": "7"}, "script": "echo $CUDA_VISIBLE_DEVICES"}
        script = said(executor.submit(ScriptTemplate, by_env, name="script"))
        refused = refusal(executor.functions, gpus=5)
    print(json.dumps([several, none, own, script, most, refused]))
    """
        )
    )
    assert sorted(map(tuple, several)) == [("n1", "0,1"), ("n2", "0,1"), ("n2", "2,3")]
    assert (none, own, script, most) == ("", "GPU-7", ["7"], 3)
    assert refused == "job 'functions': resources: gpus asks for 5 GPUs on a node; no node has more than 4"


def test_what_no_node_has_is_refused_also_when_a_node_is_lost(with_gpus):
    refusals, whole, queued, later = findings(
        with_gpus(
            BEGIN
            + """
    import processes

    with QCGPJExecutor() as executor:
        def ask(name, **resources):
            return executor.submit(ParallelTemplate, resources, name=name, exec="true")

        refusals = [refusal(ask, "more", gpus=5), refusal(ask, "wide", nodes=2, cores=1, gpus=3)]
        whole = ask("whole", nodes=1, gpus=3)
        whole.raise_for_status(60)
        whole = gpus(whole)
        with taken(executor, 4):
            queued = ask("queued", gpus=3)
            for agent in processes.agents("n2", QCGPJ_TEST_RUN=os.environ["QCGPJ_TEST_RUN"]):
                processes.kill(agent)
            queued = failure(queued)
            try:
                later = ask("later", gpus=3).result(60)
            except JobRefused as error:
                later = str(error)
    print(json.dumps([refusals, whole, queued, later]))
    """
        )
    )
    assert refusals == [
        "job 'more': resources: gpus asks for 5 GPUs on a node; no node has more than 4",
        "job 'wide': resources asks for 2 nodes with 1 core and 3 GPUs each; 1 node here can give that",
    ]
    assert whole == "n2[0:1:2]"
    assert queued.startswith(
        "it can no longer run: it asks for 3 GPUs on a node; no node has more than 2; node n2 is lost"
    )
    assert "it asks for 3 GPUs on a node; no node has more than 2; node n2 is lost" in later


def test_names_are_kept_as_they_are(with_gpus):
    """Where Slurm tells of no GPUs, those are given out that the user's program names for all nodes."""
    names = "MIG-GPU-8932f937/1/0,GPU-5a3b"
    found, told = findings(
        with_gpus(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        jobs = [executor.submit(ScriptTemplate, name=f"g{n}", script=together(4), gpus=1) for n in range(4)]
        found = sum((said(job) for job in jobs), [])
        wide = executor.submit(ParallelTemplate, name="wide", exec="true", nodes=2, cores=1, gpus=2)
        wide.raise_for_status(60)
    print(json.dumps([sorted(found), gpus(wide)]))
    """,
            options=(),
            env={"CUDA_VISIBLE_DEVICES": names},
        )
    )
    assert found == [
        f"{node} {name} unset unset" for node in ("n1", "n2") for name in ("GPU-5a3b", "MIG-GPU-8932f937/1/0")
    ]
    assert told == "n1[MIG-GPU-8932f937/1/0:GPU-5a3b],n2[MIG-GPU-8932f937/1/0:GPU-5a3b]"


def test_without_gpus_nothing_changes(with_gpus):
    found = findings(
        with_gpus(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        shown = "echo ${CUDA_VISIBLE_DEVICES-unset}; grep -c CUDA $SLURM_TASK_PROLOG; true"
        own = {"exec": "bash", "args": ["-c", shown]}
        jobs = [executor.submit(ParallelTemplate, own, name="plain"),
                executor.submit(ParallelTemplate, own, name="own", env={"CUDA_VISIBLE_DEVICES": "7"})]
        print(json.dumps([said(job) for job in jobs]))
    """,
            options=(),
        )
    )
    assert found == [["0", "unset"], ["0", "7"]]


def test_an_executor_in_a_job_has_the_gpus_of_that_job(with_gpus):
    inner = """
import os
from qcg.pilotjob.executor_api import QCGPJExecutor, ScriptTemplate
with QCGPJExecutor(wd="inner") as executor:
    told = [dict(has) for has in executor._connection.dispatcher.link.capacity.node_resources]
    job = executor.submit(ScriptTemplate, name="job", script="srun -n1 sh -c 'echo $CUDA_VISIBLE_DEVICES'", gpus=2)
    job.raise_for_status(60)
    print(told, open("inner/job.out").read().strip())
"""
    found = findings(
        with_gpus(
            BEGIN
            + """
    Path("inner.py").write_text(sys.argv[1])
    with QCGPJExecutor() as executor, taken(executor, 2), taken(executor, 2, "also"):
        job = executor.submit(ParallelTemplate, name="outer", exec=sys.executable, args=["inner.py"], gpus=2)
        found = said(job)
    print(json.dumps(found))
    """,
            inner,
            limit=90,
        )
    )
    assert found == ["[{'gpu': 2}] 2,3"]


def test_executors_that_share_an_allocation_share_its_gpus(with_gpus):
    first, second, left = findings(
        with_gpus(
            BEGIN
            + """
    def gpus_of(executor):
        pool = executor.functions(gpus=1)
        return pool.submit(seen).result(60), pool._max_workers

    with QCGPJExecutor(resources=1, wd="first") as first, QCGPJExecutor(resources=1, wd="second") as second:
        found = [gpus_of(first), gpus_of(second)]
        with QCGPJExecutor(resources=3, wd="third") as third:  # a core of it is another one's too
            found.append(sorted(third._connection.dispatcher.link.capacity.node_resources, key=str))
    print(json.dumps(found))
    """,
            options=("--gres=gpu:2",),
        )
    )
    assert sorted([*first[0], *second[0]]) == ["0", "1", "n1", "n1"]
    assert left == [{"gpu": 0}, {"gpu": 1}]


def test_srun_in_a_job_may_open_all_its_gpus(cluster_module, temporary_directory, allocation_of):
    """A device that the step may not use is refused; one that it may use has no driver here."""
    reason = cluster_module.why_not(cgroups=True)
    if reason:
        pytest.skip(f"no Slurm cluster with cgroups: {reason}")
    made = cluster_module.Cluster(nodes=1, cgroups=True, gpus={"n1": 2})
    made.start()
    try:
        found = findings(
            allocation_of(made, "--gpus-per-task=1", "--ntasks=2")(
                BEGIN
                + """
    with QCGPJExecutor() as executor:
        devices = os.path.dirname(os.environ["SLURM_CONF"]) + "/gpu.n1.*"
        job = executor.submit(
            ParallelTemplate, {"nodes": 1, "cores": 1, "gpus": 2}, name="open", exec="srun",
            args=["-n1", "sh", "-c", f"for device in {devices}; do cat $device 2>&1; done; true"])
        print(json.dumps(said(job)))
    """
            )
        )
    finally:
        made.stop()
    assert [line.rpartition(": ")[2] for line in found] == ["No such device or address"] * 2
    assert made.left() == []
