"""Jobs of several cores in a Slurm allocation of two nodes with two cores each: where they run, and how they end."""

import json
import shutil

import pytest

pytestmark = pytest.mark.slurm

BEGIN = """
    import json, os, sys, time
    from pathlib import Path
    import processes
    from qcg.pilotjob.executor_api import *

    SAY = "echo $(hostname) ${OMPI_COMM_WORLD_RANK:-$SLURM_PROCID} $(taskset -cp $$ | cut -d: -f2)"
    SAY += " ${OMP_NUM_THREADS:-none}"

    def said(future):
        future.raise_for_status(60)
        return sorted(Path(f"{future.ids[0]}.out").read_text().split("\\n")[:-1])

    def submit(name, command, **more):
        return executor.submit(ParallelTemplate, more, name=name, exec="bash", args=["-c", command])

    def where(future):
        return future.info()[future.ids[0]]["runtime"]["allocation"]

    def until(condition):
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    def hold(name, **more):
        future = submit(name, f"touch {name}.begun; until [ -e {name}.go ]; do sleep 0.02; done", **more)
        until(lambda: Path(f"{name}.begun").exists())
        return future

    def release(*futures):
        for future in futures:
            Path(f"{future.ids[0]}.go").touch()
            future.raise_for_status(60)

    def ranks_of(future):
        # by their program's name: mpirun and srun have it among their arguments
        alive = processes.living(QCGPJ_TEST_RUN=os.environ["QCGPJ_TEST_RUN"])
        return [one for one in alive if processes.name(one) == "rank"]
"""


def findings(completed):
    return json.loads(completed.stdout.splitlines()[-1])


def test_what_is_one_process_is_on_one_node(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        one = hold("one", cores=1)  # one core is left on the first node
        two = [submit(f"two{n}", "true", cores=2, model=model) for n, model in enumerate(("default", "threads"))]
        with executor.functions(cores=2) as pool:
            on = pool.submit(lambda: os.uname().nodename).result(60)
        for future in two:
            future.raise_for_status(60)
        narrow = submit("narrow", "true", cores={"min": 1, "max": 4})
        said(narrow)
        three = hold("three", cores=2)
        # nothing has room for two cores, and what has room goes on
        queued = submit("queued", "true", cores=2)
        last = submit("last", "true", cores=1)
        last.raise_for_status(60)
        found = [*map(where, two), on, where(narrow), queued.status()["queued"]]
        release(one, three)
        found.append(queued.result(60)["queued"])
        for wanted in ({"cores": 3}, {"cores": {"min": 3, "max": 4}}):
            try:
                submit("wide", "true", **wanted)
            except InvalidJob as error:
                found.append(str(error))
        try:
            executor.functions(cores=3)
        except InvalidJob as error:
            found.append(str(error))
        array = executor.submit(lambda: json.dumps({
            "name": "array", "iteration": {"stop": 1}, "execution": {"exec": "true"},
            "resources": {"numCores": {"min": 1, "scheduler": {"name": "maximum-iters"}}},
        }))
        found.append(array.result(60)["array"])
        # a request of the core's own client is looked at by the manager
        for resources in ({"numCores": 3}, {"numCores": {"min": 1}}):
            try:
                executor.qcgpj_manager.submit(
                    __import__("qcg.pilotjob.api.job", fromlist=["Jobs"]).Jobs().add_std(
                        {"name": "core", "execution": {"exec": "true"}, "resources": resources}
                    )
                )
            except Exception as error:
                found.append(str(error))
    print(json.dumps(found))
    """,
            limit=90,
        )
    )
    words = "asks for 3 cores on one node; no node has 3 cores"
    assert found[:6] == ["n2[0:1]", "n2[0:1]", "n2", "n1[1]", "QUEUED", "SUCCEED"]
    assert len(found) == 12
    assert all(words in text for text in (*found[6:9], found[10]))
    assert found[9] == "SUCCEED"
    assert "the range of cores has no end: it needs both 'min' and 'max'" in found[11]


def test_srun_in_a_job_lays_out_tasks_as_it_is_told(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    def by(name, options, **more):
        return [line.split()[0] for line in said(submit(name, f"{options} bash -c '{SAY}'", **more))]

    with QCGPJExecutor() as executor:
        found = [
            by("plain", "srun", nodes=2),
            by("spread", "srun -c2 --ntasks-per-node=1", nodes=2),
            by("number", "srun -n2 -c2", nodes=2),
            by("one", "srun -N1 -n2", nodes=2),
            by("narrow", "srun", nodes=2, cores=1),
        ]
        first = hold("first", cores=2)
        found += [by("second", "srun", cores=2), by("wide", "srun -c2 --ntasks-per-node=1", cores=2)]
        found.append(by("path", "$(PATH=${PATH#*:} command -v srun)", cores=2))
        release(first)
        # other numbers on the two nodes
        held = [hold("a", cores=1), hold("b", cores=1), hold("c", cores=1)]
        release(held[0])
        future = submit("uneven", f"srun bash -c '{SAY}'", nodes=2, cores=1)
        lines = [line.split()[2] for line in said(future)]
        bound = [where(future), lines]
        release(*held[1:])
    print(json.dumps([found, bound]))
    """,
            limit=90,
        )
    )
    layouts, (given, bound) = found
    assert layouts == [
        ["n1", "n1", "n2", "n2"],
        ["n1", "n2"],
        ["n1", "n2"],
        ["n1", "n1"],
        ["n1", "n2"],
        ["n2", "n2"],
        ["n2"],
        ["n2", "n2"],
    ]
    assert given == "n1[0],n2[1]"
    assert bound in (["0", "1"], ["0,1", "0,1"])  # where each node's processors are real


@pytest.mark.parametrize("model", ["openmpi", "srunmpi"])
def test_ranks_share_the_cores(in_allocation, for_mpi, model):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        def run(name, **more):
            return [line.split() for line in said(submit(name, SAY, model=sys.argv[1], **more))]

        found = [
            run("all", cores=4, ranks=2),
            run("each", cores=2, nodes=2, ranks=1),
            run("whole", nodes=2, ranks=1, env={"OMP_NUM_THREADS": 7}),
            run("one", cores=2, ranks=1),
            run("plain", cores=3),
            run("two", nodes=2, cores=2),
        ]
        held = [hold("a", cores=1), hold("b", cores=1), hold("c", cores=1)]
        release(held[0])
        found.append(run("uneven", cores=2))
        release(*held[1:])
        held = [hold("d", cores=1)]
        found.append(run("rank", cores=2, ranks=1))  # its cores are on one node
        release(*held)
    print(json.dumps(found))
    """,
            model,
            limit=120,
            env=for_mpi,
        )
    )
    assert [sorted([row[0], row[3]] for row in rows) for rows in found] == [
        [["n1", "2"], ["n2", "2"]],
        [["n1", "2"], ["n2", "2"]],
        [["n1", "7"], ["n2", "7"]],
        [["n1", "2"]],
        [["n1", "none"], ["n1", "none"], ["n2", "none"]],
        [["n1", "none"], ["n1", "none"], ["n2", "none"], ["n2", "none"]],
        [["n1", "none"], ["n2", "none"]],
        [["n2", "2"]],
    ]
    bound = [[row[2] for row in rows] for rows in found]
    if any(cpus != "0,1" for rows in bound for cpus in rows):  # where each node's processors are real
        both = ["0,1", "0,1"]
        assert bound == [both, both, both, ["0,1"], ["0", "1", "0"], ["0", "1"] * 2, ["0", "1"], ["0,1"]]


def test_the_users_own_layout_is_taken(in_allocation, for_mpi):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        own = {"mpirun_args": ["-n", "2", "--map-by", "ppr:1:node:PE=2"]}
        print(json.dumps([
            [line.split()[0] for line in said(submit("mpirun", SAY, nodes=2, model="openmpi", model_opts=own))],
            [line.split()[0] for line in said(
                submit("srun", SAY, nodes=2, model="srunmpi", model_opts={"srun_args": ["-n2", "-c2"]})
            )],
        ]))
    """,
            env=for_mpi,
        )
    )
    assert found == [["n1", "n2"], ["n1", "n2"]]


def test_the_command_of_intel_mpi(in_allocation, tmp_path):
    program = tmp_path / "mpirun"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\necho "omp $OMP_NUM_THREADS"\n')
    program.chmod(0o755)
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        def run(name, **more):
            options = {"mpirun": sys.argv[1], "mpirun_args": ["-print-rank-map"]}
            job = executor.submit(ParallelTemplate, more, name=name, exec="prog", args=["a b"], model="intelmpi",
                                  model_opts=options)
            job.raise_for_status(60)
            return Path(f"{name}.out").read_text().splitlines()

        print(json.dumps([run("one", nodes=2, ranks=1), run("two", cores=2, nodes=1), run("all", cores=4)]))
    """,
            program,
        )
    )
    hybrid, one, every = [" ".join(lines).replace("I_MPI_PIN_", "") for lines in found]
    begin, program = "-print-rank-map", "prog a b"
    two = f"-n 2 -env PROCESSOR_LIST 0,1 {program}"
    assert every == f"{begin} -host n1 {two} : -host n2 {two} omp "
    assert one == f"{begin} -host n1 {two} omp "
    assert hybrid == f"{begin} -host n1 -n 1 -env DOMAIN [3] {program} : -host n2 -n 1 -env DOMAIN [3] {program} omp 2"


@pytest.mark.parametrize("model", ["openmpi", "srunmpi", "default"])
def test_no_rank_is_left_when_a_job_has_ended(in_allocation, for_mpi, tmp_path, model):
    rank = tmp_path / "rank"
    shutil.copy("/bin/sleep", rank)
    found = findings(
        in_allocation(
            BEGIN
            + """
    found = []
    with QCGPJExecutor() as executor:
        def start(name, **more):
            command = [sys.argv[2], "333"]
            if sys.argv[1] == "default":
                command = ["srun", *command]
            job = executor.submit(
                ParallelTemplate, more, name=name, exec=command[0], args=command[1:], nodes=2, model=sys.argv[1]
            )
            until(lambda: len(ranks_of(job)) == 4 or job.done())
            return job

        job = start("cancelled")
        found.append([job.cancel(), len(ranks_of(job)), job.cancelled()])
        job = start("over", walltime="4s")
        found.append([job.result(60)["over"], len(ranks_of(job))])
        job = start("left")
        executor.shutdown(wait=False, cancel_futures=True)
        job.cancel()
    found.append(len(ranks_of(job)))
    print(json.dumps(found))
    """,
            model,
            rank,
            limit=120,
            env=for_mpi,
        )
    )
    assert found == [[True, 0, True], ["FAILED", 0], 0]


def test_what_a_job_leaves_on_another_node_ends_with_it(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        leave = "nohup setsid sleep 333 > /dev/null 2>&1 & touch left.$SLURM_PROCID"
        job = submit("leaves", f"srun bash -c '{leave}'; [ -e left.0 ] && [ -e left.3 ]", nodes=2)
        job.raise_for_status(60)
        mark = os.environ["QCGPJ_TEST_RUN"]
        alive = processes.living(QCGPJ_TEST_RUN=mark)
        print(json.dumps([one.pid for one in alive if processes.name(one) == "sleep"]))
    """
        )
    )
    assert found == []


@pytest.mark.parametrize("model", ["openmpi", "srunmpi"])
def test_the_first_rank_that_raises_is_told_whatever_the_others_do(in_allocation, for_mpi, model):
    found = findings(
        in_allocation(
            BEGIN
            + """
    def rank():
        return int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["SLURM_PROCID"])

    def call(bad):
        if rank() == bad:
            raise ValueError(f"rank {bad} is unhappy")
        time.sleep(333)  # as in MPI, for the other one

    def each(first):
        if rank() != first:
            until(Path("told").exists)
        raise ValueError(rank())

    with QCGPJExecutor() as executor:
        found = []
        pool = executor.functions(cores=2, nodes=2, ranks=1, model=sys.argv[1])
        for bad in (0, 1):
            error = pool.submit(call, bad).exception(60)
            found.append([repr(error), str(error.__cause__).split("\\n")[2]])
        future = pool.submit(each, 1)
        found.append(repr(future.exception(60)))
        Path("told").touch()
        pool.shutdown()
        kept = executor.functions(cores=1, nodes=2, model=sys.argv[1], fresh=False, all_ranks=True)
        found.append(repr(kept.submit(call, 1).exception(60)))
        found.append(kept.submit(lambda: os.uname().nodename).result(60))
    print(json.dumps(found))
    """,
            model,
            limit=120,
            env=for_mpi,
        )
    )
    assert found == [
        ["ValueError('rank 0 is unhappy')", "rank 0 of 2 on node n1:"],
        ["ValueError('rank 1 is unhappy')", "rank 1 of 2 on node n2:"],
        "ValueError(1)",
        "ValueError('rank 1 is unhappy')",
        ["n1", "n2"],
    ]
