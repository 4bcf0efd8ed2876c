"""Models, sizes and ways to start, in a Slurm allocation of two nodes with two cores each."""

import json
import os
import re
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.slurm

# what every script here begins with; it reports its findings as JSON on its last line
BEGIN = """
    import json, os, sys, textwrap, time
    from pathlib import Path
    from qcg.pilotjob.executor_api import *

    def said(future):
        future.raise_for_status(30)
        return Path(f"{future.ids[0]}.out").read_text().split("\\n")[:-1]

    def failure(future):
        try:
            future.raise_for_status(30)
        except JobFailed as failed:
            return failed

    def refusal(*arguments, **parameters):
        try:
            return QCGPJExecutor(*arguments, **parameters).shutdown()
        except QCGPJError as error:
            return str(error)

    def hosts(executor, count=8):
        # they last, so that not one node is enough for all
        said_and_stay = ["-c", "hostname; sleep 0.2"]
        jobs = [
            executor.submit(BasicTemplate, name=f"h{n}", exec="sh", args=said_and_stay, stdout=f"h{n}.out")
            for n in range(count)
        ]
        return sorted({said(job)[0] for job in jobs})

    def cores(executor):
        resources = executor.qcgpj_manager.resources()
        return [resources[name] for name in ("total_nodes", "total_cores", "free_cores")]
"""
# the script that is the same on a laptop and wherever Slurm starts it
LAPTOP = (
    BEGIN
    + """
    with QCGPJExecutor() as executor:
        found = [cores(executor), hosts(executor)]
        if len(sys.argv) > 1:
            one = executor.submit(ParallelTemplate, name="one", exec=sys.argv[1])
            every = executor.submit(ParallelTemplate, name="all", exec=sys.argv[1], cores=4, model="openmpi")
            found += [said(one), said(every)]
    print(json.dumps(found))
"""
)


def findings(completed):
    return json.loads(completed.stdout.splitlines()[-1])


PMIX = {"srun_args": ["--mpi=pmix"]}


@pytest.mark.parametrize(
    ("parameters", "hosts"),
    [
        ({"model": "openmpi", "cores": 2, "nodes": 2}, ["n1", "n1", "n2", "n2"]),
        ({"model": "openmpi", "cores": 1, "nodes": 2}, ["n1", "n2"]),
        ({"model": "openmpi", "cores": 3}, ["n1", "n1", "n2"]),
        ({"model": "openmpi", "cores": 2, "nodes": 1}, ["n1", "n1"]),
        ({"model": "openmpi", "cores": 1}, ["n1"]),
        ({"model": "srunmpi", "model_opts": PMIX, "cores": 2, "nodes": 2}, ["n1", "n1", "n2", "n2"]),
        ({"model": "srunmpi", "model_opts": PMIX, "cores": 1, "nodes": 2}, ["n1", "n2"]),
        ({"model": "srunmpi", "model_opts": PMIX, "cores": 3}, ["n1", "n1", "n2"]),
        ({"model": "srunmpi", "model_opts": PMIX, "cores": 1}, ["n1"]),
        ({"model": "threads", "cores": 1}, ["n1"]),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_an_mpi_program_has_its_ranks_on_its_nodes(in_allocation, mpi_program, for_mpi, parameters, hosts):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        lines = said(executor.submit(ParallelTemplate, json.loads(sys.argv[1]), name="mpi", exec=sys.argv[2]))
    print(json.dumps([lines, os.listdir(".")]))
    """,
            json.dumps(parameters),
            mpi_program,
            env=for_mpi,
        )
    )
    lines, files = found
    ranks = len(hosts)
    rows = sorted(line.split() for line in lines)
    total = sum(range(ranks))
    assert [[int(row[0]), int(row[1]), int(row[3])] for row in rows] == [[rank, ranks, total] for rank in range(ranks)]
    assert sorted(row[2] for row in rows) == hosts
    assert sorted(name for name in files if "qcgpjm-service" not in name) == ["mpi.err", "mpi.out"]


def test_two_mpi_jobs_share_the_nodes_and_not_the_cores(in_allocation, mpi_program, for_mpi):
    found = findings(
        in_allocation(
            BEGIN
            + """
    script = "touch $NAME.$OMPI_COMM_WORLD_RANK.begun; until [ $(ls *.begun | wc -l) = 4 ]; do sleep 0.02; done;"
    script += " echo $(hostname) $(taskset -cp $$ | cut -d: -f2)"
    with QCGPJExecutor() as executor:
        jobs = [
            executor.submit(
                ParallelTemplate, name=name, exec="sh", args=["-c", script], env={"NAME": name},
                model="openmpi", cores=1, nodes=2,
            )
            for name in "ab"
        ]
        print(json.dumps([said(job) for job in jobs]))
    """,
            env=for_mpi,
        )
    )
    assert [len(lines) for lines in found] == [2, 2]
    rows = sorted(line for lines in found for line in lines)
    assert [row.split()[0] for row in rows] == ["n1", "n1", "n2", "n2"]
    # where each node's processors are real, each job has one of its own there
    assert len(set(rows)) == 4 or {row.split()[1] for row in rows} == {"0-1"}


def test_threads_have_all_their_cores_on_one_node(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    from qcg.pilotjob.executor_api.errors import InvalidJob
    with QCGPJExecutor() as executor:
        # a core of the first node is taken, so that two are free on the second one alone
        one = executor.submit(ScriptTemplate, name="one", script="until [ -e go ]; do sleep 0.02; done")
        two = executor.submit(ParallelTemplate, name="two", exec="hostname", cores=2, model="threads")
        lines = said(two)
        cores = [two.info()["two"]["runtime"]["allocation"], one.status()]
        Path("go").touch()
        span = executor.submit(
            ParallelTemplate, name="span", exec="hostname", cores={"min": 2, "max": 4}, model="threads"
        )
        lines += said(span)
        refused = []
        for wanted in ({"cores": 3}, {"cores": 1, "nodes": 2}):
            try:
                executor.submit(ParallelTemplate, wanted, name="wide", exec="hostname", model="threads")
            except InvalidJob as error:
                refused.append(str(error))
    print(json.dumps([lines, cores, refused]))
    """
        )
    )
    lines, cores, refused = found
    assert len(lines) == 2
    assert cores == [f"{lines[0]}[0:1]", {"one": "EXECUTING"}]
    less = "no node has 3 cores; jobs can use 2 on one, and only a model of MPI on several"
    assert refused == [
        f"job 'wide': resources asks for 3 cores on one node; {less}",
        "job 'wide': resources asks for 2 nodes; a job of the model 'threads' runs on one",
    ]


def test_the_wrong_mpi_is_told(in_allocation, mpi_program, for_mpi):
    found = findings(
        in_allocation(
            BEGIN
            + """
    def start(name, **parameters):
        return executor.submit(ParallelTemplate, parameters, name=name, exec=sys.argv[1], cores=2, nodes=2)

    with QCGPJExecutor() as executor:
        jobs = [
            start("intel", model="intelmpi"),
            start("none", model="intelmpi", model_opts={"mpirun": "/opt/intel/bin/mpirun"}),
            start("nothing", model="openmpi", model_opts={"mpirun": "mpirun.absent"}),
            start("pmi", model="srunmpi"),
        ]
        print(json.dumps([str(failure(job)) for job in jobs]))
    """,
            mpi_program,
            env=for_mpi,
        )
    )
    intel, none, nothing, pmi = found
    assert "next:    this mpirun is not Intel MPI's; load its module, or use the model 'openmpi'" in intel
    assert "cannot start: no program '/opt/intel/bin/mpirun'" in none
    assert "cannot start: no program 'mpirun.absent'" in nothing
    assert "give model_opts={'srun_args': ['--mpi=pmix']}" in pmi


def test_gpus_that_no_node_has_are_refused(in_allocation):
    completed = in_allocation(
        BEGIN
        + """
    with QCGPJExecutor() as executor:
        try:
            executor.submit(lambda: json.dumps({
                "name": "g", "execution": {"exec": "true"},
                "resources": {"numCores": 1, "numNodes": 1, "nodeCrs": {"gpu": 1}},
            }))
        except InvalidJob as error:
            print(error)
    """
    )
    assert completed.stdout == "job 'g': resources: nodeCrs asks for 1 GPU on a node; no node has more than 0\n"


def test_gpus_that_slurm_tells_of_are_given_to_jobs(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        jobs = [
            executor.submit(lambda: json.dumps({
                "name": "${name}",
                "execution": {"exec": "sh", "args": ["-c", "env | grep ^CUDA; true"], "stdout": "${name}.out"},
                "resources": {"numCores": 1, "numNodes": 1, **wanted},
            }), name=name)
            for name, wanted in (("with", {"nodeCrs": {"gpu": 2}}), ("without", {}))
        ]
        print(json.dumps([said(job) for job in jobs]))
    """,
            env={"CUDA_VISIBLE_DEVICES": "0,1"},
        )
    )
    assert found == [["CUDA_VISIBLE_DEVICES=0,1"], ["CUDA_VISIBLE_DEVICES="]]


def test_a_reserved_core_is_kept_from_jobs(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor(reserve_core=True) as executor:
        found = [cores(executor), hosts(executor)]
        found.append(executor.submit(ParallelTemplate, name="wide", exec="true", cores=2).result(20))
        for wanted in ({"cores": 4, "model": "openmpi"}, {"cores": 2, "nodes": 2}, {"nodes": 2}):
            try:
                executor.submit(ParallelTemplate, wanted, name="wider", exec="true")
            except InvalidJob as error:
                found.append(str(error).partition("resources ")[2])
    print(json.dumps(found))
    """
        )
    )
    assert found == [
        [2, 4, 3],
        ["n1", "n2"],
        {"wide": "SUCCEED"},
        "asks for 4 cores; jobs can use 3 cores here",
        "asks for 2 nodes with 2 cores each; 1 node here can give that",
        "asks for 2 whole nodes; 1 node here can give that",
    ]


def test_a_number_of_cores_stands_for_cores_of_the_allocation(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    found = []
    for wanted in (3, "1"):
        with QCGPJExecutor(resources=wanted) as executor:
            found += [cores(executor), hosts(executor)]
    print(json.dumps([*found, refusal(resources="n1:1,n2:1"), refusal(resources=9)]))
    """
        )
    )
    assert found[:4] == [[2, 3, 3], ["n1", "n2"], [1, 1, 1], ["n1"]]
    assert (
        "in a Slurm allocation nodes stand for this machine alone; give a number of cores of the allocation" in found[4]
    )
    assert "resources is 9, but the allocation has 4 cores; leave it out to use all" in found[5]


def test_executors_with_a_number_of_cores_each_have_different_ones(in_allocation):
    completed = in_allocation(
        BEGIN
        + """
    def places(executor, name):
        bound = "echo $(hostname) $(taskset -cp $$ | cut -d: -f2); sleep 0.3"
        made = [executor.submit(ScriptTemplate, name=f"{name}{n}", script=bound) for n in range(4)]
        return sorted({said(job)[0] for job in made})

    with QCGPJExecutor(resources=1) as first, QCGPJExecutor(resources=2) as second:
        found = [places(first, "a"), places(second, "b")]
        with QCGPJExecutor(resources=2) as third:
            found.append(places(third, "c"))
    with QCGPJExecutor(resources=2) as again:
        found.append(places(again, "d"))
    print(json.dumps(found))
    """
    )
    assert findings(completed) == [["n1 0"], ["n1 1", "n2 0"], ["n1 0", "n2 1"], ["n1 0", "n1 1"]]
    assert completed.stderr.count("1 core is shared with another executor in this allocation") == 1


def test_a_second_executor_on_all_of_the_allocation_says_so(in_allocation):
    completed = in_allocation(
        BEGIN
        + """
    with QCGPJExecutor() as first:
        pid = first._connection.dispatcher.link.process.pid
        with QCGPJExecutor() as second, QCGPJExecutor(resources=1, wd="elsewhere"):
            print(json.dumps([pid, str(said(second.submit(ScriptTemplate, name="a", script="echo here")))]))
    """
    )
    ((pid, _),) = [json.loads(line) for line in completed.stdout.splitlines() if line.startswith("[")]
    assert completed.stderr.count("together they use the same nodes of this allocation") == 1
    assert f"its manager is that of process {pid}, " in completed.stderr


def test_an_executor_in_a_job_has_the_cores_of_the_job(in_allocation):
    inner = """
        import json, os
        from qcg.pilotjob.executor_api import QCGPJExecutor, ScriptTemplate
        with QCGPJExecutor(wd="inner" + os.environ["QCG_PM_EXEC_API_JOB_ID"]) as executor:
            job = executor.submit(ScriptTemplate, name="i", script="echo $(hostname) $(taskset -cp $$ | cut -d: -f2)")
            job.raise_for_status(30)
            count = executor.qcgpj_manager.resources()["total_cores"]
        print(count, open(job.info()["i"]["runtime"]["stdout"]).read(), end="")
    """
    found = findings(
        in_allocation(
            BEGIN
            + f"    inner = textwrap.dedent({inner!r})\n"
            + """
    with QCGPJExecutor() as executor:
        jobs = [
            executor.submit(BasicTemplate, name=f"o{n}", exec=sys.executable, args=["-c", inner], stdout=f"o{n}.out")
            for n in range(4)
        ]
        print(json.dumps(sorted(said(job)[0] for job in jobs)))
    """
        )
    )
    assert found == ["1 n1 0", "1 n1 1", "1 n2 0", "1 n2 1"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--slurm-limit-nodes-range-begin", "1"], ["n2"]),
        (["--slurm-limit-nodes-range-end", "1"], ["n1"]),
        (["--slurm-limit-nodes-range-begin", "1", "--slurm-limit-nodes-range-end", "2"], ["n2"]),
    ],
)
def test_a_part_of_the_allocation(in_allocation, options, expected):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor(*sys.argv[1:]) as executor:
        print(json.dumps([cores(executor), hosts(executor)]))
    """,
            *options,
        )
    )
    assert found == [[1, 2, 2], expected]


def test_two_executors_share_an_allocation_by_parts(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    first = QCGPJExecutor("--slurm-limit-nodes-range-end", "1", wd="first")
    second = QCGPJExecutor("--slurm-limit-nodes-range-begin", "1", wd="second")
    with first, second:
        jobs = [each.submit(BasicTemplate, name="h", exec="hostname", stdout="h.out") for each in (first, second)]
        for job in jobs:
            job.raise_for_status(20)
    print(json.dumps([Path(name, "h.out").read_text() for name in ("first", "second")]))
    """
        )
    )
    assert found == ["n1\n", "n2\n"]


def test_a_part_without_a_node_is_an_error(in_allocation):
    found = findings(in_allocation(BEGIN + "    print(json.dumps(refusal('--slurm-limit-nodes-range-begin', '2')))\n"))
    assert "the allocation has no node in the range that --slurm-limit-nodes-range-* give" in found


def test_a_job_on_whole_nodes_has_all_their_cores(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    shown = ["-c", "echo $QCG_PM_NNODES $QCG_PM_NPROCS $QCG_PM_TASKS_PER_NODE $QCG_PM_NODELIST; cat $QCG_PM_HOSTFILE"]
    with QCGPJExecutor() as executor:
        print(json.dumps([
            said(executor.submit(ParallelTemplate, wanted, name=f"w{n}", exec="sh", args=shown))
            for n, wanted in enumerate([{"nodes": 2}, {"nodes": 2, "cores": 1}, {"cores": 2}, {"cores": 2, "nodes": 1}])
        ]))
    """
        )
    )
    assert found == [
        ["2 4 2,2 n1,n2", "n1", "n2", "n1", "n2"],
        ["2 2 1,1 n1,n2", "n1", "n2"],
        ["1 2 2 n1", "n1", "n1"],
        ["1 2 2 n1", "n1", "n1"],
    ]


@pytest.mark.parametrize(
    "step",
    [[], ["srun", "-N1", "-n1"], ["srun", "--interactive", "--preserve-env", "-N1", "-n1"]],
    ids=["the command of salloc", "a step", "the interactive step"],
)
def test_the_laptops_script_in_a_step_of_salloc(cluster, tmp_path, mpi_program, for_mpi, step):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(LAPTOP))
    completed = subprocess.run(
        ["salloc", "-Q", "-N2", "--exclusive", "timeout", "-k", "5", "40", *step, sys.executable, script, mpi_program],
        cwd=tmp_path,
        env={**cluster.environment, **for_mpi},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    capacity, hosts, one, every = findings(completed)
    assert [capacity, hosts] == [[2, 4, 4], ["n1", "n2"]]
    assert one == ["0 1 n1 0"]
    assert sorted(line.split()[2:] for line in every) == [["n1", "6"], ["n1", "6"], ["n2", "6"], ["n2", "6"]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--nodes=2", "--exclusive"], [[2, 4, 4], ["n1", "n2"]]),
        (["--nodes=2", "--ntasks-per-node=2"], [[2, 4, 4], ["n1", "n2"]]),
        (["--nodes=2", "--ntasks=3"], [[2, 3, 3], ["n1", "n2"]]),
        (["--nodes=1", "--ntasks=2"], [[1, 2, 2], ["n1"]]),
        # CPUs are what counts
        (["--nodes=2"], [[2, 2, 2], ["n1", "n2"]]),
        (["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2"], [[2, 4, 4], ["n1", "n2"]]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value[0], str) else "",
)
def test_the_laptops_script_under_sbatch(cluster, tmp_path, wait_until, options, expected):
    (tmp_path / "script.py").write_text(textwrap.dedent(LAPTOP))
    header = "".join(f"#SBATCH {option}\n" for option in [*options, "--output=batch.out"])
    (tmp_path / "job.sh").write_text(f"#!/bin/bash\n{header}timeout -k 5 40 {sys.executable} script.py\n")
    said = subprocess.run(
        ["sbatch", "--parsable", "job.sh"],
        cwd=tmp_path,
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    wait_until(lambda: said.stdout.strip() not in cluster.jobs(), "the end of the batch job", 60)
    output = (tmp_path / "batch.out").read_text()
    assert json.loads(output.splitlines()[-1]) == expected, output


@pytest.mark.parametrize("late", [True, False])
def test_who_is_waited_for_is_told_when_it_takes_long(in_allocation, tmp_path, late):
    (tmp_path / "site").mkdir()
    wait = 5.0 if late else 0.0
    (tmp_path / "site" / "sitecustomize.py").write_text(
        f"import os, time\nif os.uname().nodename == 'n2':\n    time.sleep({wait})\n"
    )
    completed = in_allocation(
        BEGIN
        + """
    began = time.monotonic()
    with QCGPJExecutor() as executor:
        print(json.dumps([time.monotonic() - began, cores(executor)]))
    """,
        env={"PYTHONPATH": str(tmp_path / "site")},
    )
    seconds, found = findings(completed)
    assert found == [2, 4, 4]
    told = re.findall(r"^qcgpj: .*$", completed.stderr, re.MULTILINE)
    if late:
        assert seconds > 5.0
        assert told, completed.stderr
        assert told[0].startswith("qcgpj: waiting for the agents of 2 nodes: ")
        assert told[0].endswith(("1 ready, not yet n1", "1 ready, not yet n2", "0 ready, not yet n1, n2"))
    elif seconds < 1.0:
        assert told == []
    assert os.listdir(tmp_path)
