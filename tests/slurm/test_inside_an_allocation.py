"""The laptop's scripts, unchanged, inside a Slurm allocation of two nodes with two cores each."""

import json
import os
import signal
import subprocess
from pathlib import Path

import processes
import psutil
import pytest

pytestmark = pytest.mark.slurm

# what every script here begins with; it reports its findings as JSON on its last line
BEGIN = """
    import json, os, signal, time
    from pathlib import Path
    import processes
    from qcg.pilotjob.executor_api import *

    def wait_until(condition):
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.005)
"""


def findings(completed):
    return json.loads(completed.stdout.splitlines()[-1])


def test_one_core_jobs_use_both_nodes(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        resources = executor.qcgpj_manager.resources()
        script = "until [ -e go ]; do sleep 0.02; done; hostname"
        futures = [executor.submit(ScriptTemplate, name=f"h{n}", script=script) for n in range(20)]
        wait_until(lambda: futures[3].status() == {"h3": "EXECUTING"})
        Path("go").touch()
        results = [future.result(20) for future in futures]
    print(json.dumps([resources, results, [Path(f"h{n}.out").read_text().strip() for n in range(20)]]))
    """
        )
    )
    resources, results, hosts = found
    assert resources == {"total_nodes": 2, "total_cores": 4, "used_cores": 0, "free_cores": 4}
    assert results == [{f"h{n}": "SUCCEED"} for n in range(20)]
    assert set(hosts) == {"n1", "n2"}


def test_jobs_run_at_the_same_time_on_all_cores(in_allocation):
    # each one waits for the three others
    in_allocation(
        BEGIN
        + """
    script = "touch $NAME.begun; until [ $(ls *.begun | wc -l) = 4 ]; do sleep 0.02; done"
    with QCGPJExecutor() as executor:
        futures = [executor.submit(ScriptTemplate, name=n, script=script, env={"NAME": n}) for n in "abcd"]
        for future in futures:
            future.raise_for_status(timeout=20)
    """
    )


@pytest.mark.parametrize(
    ("parameters", "hosts"),
    [
        ({"cores": 2, "nodes": 2, "model": "srunmpi"}, ["n1", "n1", "n2", "n2"]),
        ({"cores": 1, "nodes": 2, "model": "srunmpi"}, ["n1", "n2"]),
        ({"cores": 2, "nodes": 1, "model": "threads"}, ["n1"]),
        ({"cores": 2}, ["n1"]),
    ],
    ids=["srunmpi everywhere", "srunmpi one a node", "threads", "default"],
)
def test_a_wider_job(in_allocation, parameters, hosts):
    found = findings(
        in_allocation(
            BEGIN
            + """
    import sys
    with QCGPJExecutor() as executor:
        future = executor.submit(ParallelTemplate, json.loads(sys.argv[1]), name="wide", exec="hostname")
        future.raise_for_status(timeout=20)
    print(json.dumps(sorted(Path("wide.out").read_text().split())))
    """,
            json.dumps(parameters),
        )
    )
    assert found == hosts


def test_a_job_wider_than_the_allocation_is_refused(in_allocation):
    completed = in_allocation(
        BEGIN
        + """
    with QCGPJExecutor() as executor:
        try:
            executor.submit(ParallelTemplate, name="wide", exec="true", cores=5)
        except InvalidJob as error:
            print(error)
    """
    )
    assert "asks for 5 cores; jobs can use 4 cores here" in completed.stdout


def test_a_failed_job_raises(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    found = []
    with QCGPJExecutor() as executor:
        for future in (
            executor.submit(ScriptTemplate, name="bad", script="exit 3"),
            executor.submit(BasicTemplate, name="missing", exec="/no/such"),
        ):
            status = future.result(20)
            try:
                future.raise_for_status()
            except JobFailed as failure:
                found.append([status, failure.exit_code])
        good = executor.submit(BasicTemplate, name="good", exec="true").result(20)  # the executor goes on
    print(json.dumps([*found, good]))
    """
        )
    )
    assert found == [[{"bad": "FAILED"}, 3], [{"missing": "FAILED"}, 127], {"good": "SUCCEED"}]


def test_arrays_and_dependencies(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        array = executor.submit(IterationTemplate, name="array", exec="sh", args=["-c", "test ${it} -ne 2"], stop=4)
        first = executor.submit(ScriptTemplate, name="first", script="echo 'it is \\"$HOME\\" \\\\ ${it}' > first.txt")
        second = executor.submit(ScriptTemplate, name="second", script="cat first.txt", after=[first])
        omitted = executor.submit(ScriptTemplate, name="omitted", script="true", after=[array])
        results = [future.result(20) for future in (array, first, second, omitted)]
        iterations = [(each.state, each.exit_code) for each in array.iterations()["array"]]
    print(json.dumps([results, iterations, Path("second.out").read_text()]))
    """
        )
    )
    results, iterations, text = found
    assert results == [{"array": "FAILED"}, {"first": "SUCCEED"}, {"second": "SUCCEED"}, {"omitted": "OMITTED"}]
    assert iterations == [["SUCCEED", 0], ["SUCCEED", 0], ["FAILED", 1], ["SUCCEED", 0]]
    assert text == 'it is "$HOME" \\ ${it}\n'


def test_cancel_ends_a_running_program(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        script = "echo $$ > $N.tmp; mv $N.tmp $N.pid; exec sleep 999"
        running = [executor.submit(ScriptTemplate, name=f"s{n}", script=script, env={"N": str(n)}) for n in range(4)]
        waiting = executor.submit(BasicTemplate, name="waiting", exec="true")
        wait_until(lambda: len(list(Path(".").glob("*.pid"))) == 4)
        pids = [int(path.read_text()) for path in Path(".").glob("*.pid")]
        before = [processes.lives(pid) for pid in pids]
        cancelled = [future.cancel() for future in running]
        after = [processes.lives(pid) for pid in pids]
        states = [future.status() for future in running]
        freed = waiting.result(20)
    print(json.dumps([before, cancelled, after, states, freed]))
    """
        )
    )
    before, cancelled, after, states, freed = found
    assert before == [True] * 4
    assert cancelled == [True] * 4
    assert after == [False] * 4
    assert states == [{f"s{n}": "CANCELED"} for n in range(4)]
    assert freed == {"waiting": "SUCCEED"}


def test_cancel_ends_a_program_on_both_nodes(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    script = "echo $$ > $(hostname).tmp; mv $(hostname).tmp $(hostname).pid; exec sleep 999"
    with QCGPJExecutor() as executor:
        wide = executor.submit(
            ParallelTemplate, name="wide", exec="bash", args=["-c", script], cores=1, nodes=2, model="srunmpi"
        )
        wait_until(lambda: len(list(Path(".").glob("*.pid"))) == 2)
        pids = {path.stem: int(path.read_text()) for path in Path(".").glob("*.pid")}
        cancelled = wide.cancel()
        wait_until(lambda: not any(map(processes.lives, pids.values())))
    print(json.dumps([sorted(pids), cancelled, wide.status()]))
    """
        )
    )
    assert found == [["n1", "n2"], True, {"wide": "CANCELED"}]


def test_leaving_waits_for_the_jobs(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        script = "until [ -e go ]; do sleep 0.02; done; sleep 0.2"
        futures = [executor.submit(ScriptTemplate, name=f"w{n}", script=script) for n in range(8)]
        done_early = any(future.done() for future in futures)
        Path("go").touch()
    results = [future.result(0) for future in futures]
    with QCGPJExecutor() as executor:  # once more in the same allocation
        results.append(executor.submit(BasicTemplate, name="a", exec="true").result(20))
    print(json.dumps([done_early, results]))
    """
        )
    )
    done_early, results = found
    assert not done_early
    assert results == [*({f"w{n}": "SUCCEED"} for n in range(8)), {"a": "SUCCEED"}]


@pytest.mark.parametrize("number", [signal.SIGINT, None], ids=["Ctrl-C", "sys.exit"])
def test_an_interrupt_cancels_what_is_unfinished(in_allocation, number):
    completed = in_allocation(
        BEGIN
        + """
    import sys
    began = 0.0
    try:
        with QCGPJExecutor() as executor:
            done = executor.submit(BasicTemplate, name="done", exec="true")
            done.result(20)
            futures = [
                executor.submit(ScriptTemplate, name=f"s{n}", script=f"echo > {n}.begun; exec sleep 999")
                for n in range(20)
            ]
            wait_until(lambda: len(list(Path(".").glob("*.begun"))) == 4)
            began = time.monotonic()
            if sys.argv[1] == "None":
                sys.exit(7)
            os.kill(os.getpid(), int(sys.argv[1]))
            time.sleep(20)
    finally:
        seconds = time.monotonic() - began
        print(json.dumps([seconds, done.result(0), [future.cancelled() for future in futures]]))
    """,
        "None" if number is None else int(number),
        check=False,
    )
    seconds, done, cancelled = findings(completed)
    assert seconds < 10.0
    assert done == {"done": "SUCCEED"}
    assert cancelled == [True] * 20
    # salloc returns its program's exit code
    assert completed.returncode == 7 if number is None else "KeyboardInterrupt" in completed.stderr


def test_a_script_that_srun_starts_twice_runs_its_jobs_once(in_allocation, tmp_path):
    (tmp_path / "study.py").write_text(
        "from qcg.pilotjob.executor_api import *\n"
        "with QCGPJExecutor() as executor:\n"
        "    executor.submit(ScriptTemplate, name='a', script='echo x >> ran').raise_for_status()\n"
    )
    completed = in_allocation(
        """
    import subprocess, sys
    done = subprocess.run(["srun", "-Q", "-N2", "-n2", sys.executable, "study.py"], stderr=subprocess.PIPE, text=True)
    print(done.returncode, done.stderr.count("srun has started this program 2 times"))
    """
    )
    assert completed.stdout == "1 1\n"
    assert (tmp_path / "ran").read_text() == "x\n"


def test_the_command_brings_a_cluster_up_and_down(cluster_command):
    process, conf = cluster_command()
    said = subprocess.run(
        ["timeout", "-k", "5", "30", "srun", "-Q", "-N2", "hostname"],
        env={**os.environ, "SLURM_CONF": conf},
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )
    assert sorted(said.stdout.split()) == ["n1", "n2"]
    directory = Path(conf).parent
    daemons = [psutil.Process(int(path.read_text())) for path in directory.glob("*.pid")]
    assert len(daemons) == 4
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert not directory.exists()
    assert not list(filter(processes.lives, daemons))


def test_a_client_that_is_killed_leaves_no_manager_and_no_agent(in_allocation):
    # the allocation ends with its command, so the agents are gone before the manager can ask them anything
    completed = in_allocation(
        BEGIN
        + """
    executor = QCGPJExecutor()
    job = executor.submit(BasicTemplate, name="a", exec="sleep", args=["1000"])
    wait_until(lambda: job.status() == {"a": "EXECUTING"})
    print("running", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """,
        check=False,
    )
    assert completed.stdout == "running\n"
