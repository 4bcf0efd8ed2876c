"""Allocations that an executor gets by itself, from a login node: this process is in none."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from concurrent.futures import wait
from pathlib import Path

import processes
import psutil
import pytest

from qcg.pilotjob.executor_api import (
    Allocation,
    AllocationEnded,
    AllocationFailed,
    BasicTemplate,
    ExecutorClosed,
    IterationTemplate,
    JobFailed,
    ParallelTemplate,
    QCGPJExecutor,
    QCGPJFuture,
    ScriptTemplate,
)
from qcg.pilotjob.executor_api._shared.proc import STARTER

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(importlib.util.find_spec("psij") is None, reason="psij-python is not installed"),
]

NODES = ["n1", "n2"]
STAY = "echo $$ > {0}.tmp; mv {0}.tmp {0}.pid; setsid sleep 998 & sleep 999"


def _asked(**options):
    return Allocation(**{"nodes": 2, "walltime": "5m", "queue": "p", "poll": 1.0, **options})


@pytest.fixture
def make(outside, tmp_path):
    """Make executors with an allocation of both nodes."""
    made = []

    def make(**options):
        executor = QCGPJExecutor(wd=tmp_path / "wd", allocation=_asked(**options))
        made.append(executor)
        return executor

    yield make
    for executor in made:
        executor.__exit__(KeyboardInterrupt, None, None)


@pytest.fixture
def may_run_mpi(for_mpi, monkeypatch):
    """This process's environment, which jobs get, has what MPI needs here."""
    for name, value in for_mpi.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def slurm(cluster, outside):
    """Run a command of Slurm; returns what it says."""

    def slurm(*command):
        done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout.strip()

    return slurm


@pytest.fixture
def full(slurm, wait_until):
    """Another one's batch job on both nodes; returns a function that ends it."""
    job = slurm("sbatch", "--parsable", "-N2", "--exclusive", "-t5", "-o/dev/null", "--wrap", "exec sleep 1000")
    wait_until(lambda: slurm("squeue", "-h", "-j", job, "-o", "%T") == "RUNNING", "the other job", 90)
    return lambda: slurm("scancel", job)


@pytest.fixture
def program(tmp_path, wait_until, outside):
    """Start Python source as a program of its own, which is killed after the test if it is there still."""
    started = []

    def program(source, *arguments):
        command = [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]
        with (tmp_path / "program.out").open("wb") as output:
            started.append(subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT))
        return started[-1]

    yield program
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def given_back(cluster, slurm, outside, wait_until):
    """A function that waits until no allocation and none of its processes is there, and all nodes are free."""

    def given_back():
        wait_until(lambda: not cluster.jobs(), "the end of the allocation", 60)
        wait_until(lambda: set(slurm("sinfo", "-h", "-N", "-p", "p", "-o", "%T").split()) == {"idle"}, "idle nodes")
        wait_until(
            lambda: not any("SLURM_JOB_ID" in processes.environment(one) for one in outside()), "the end of processes"
        )

    return given_back


@pytest.fixture
def kill(slurm, outside):
    """Functions that end an allocation in two ways."""

    def kill_all_processes(job):
        victims = set()
        while more := {one for one in outside() if processes.environment(one).get("SLURM_JOB_ID") == job} - victims:
            for process in more:  # before any is killed, so that none tells of another's end
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            victims |= more
        assert victims
        for process in victims:
            processes.kill(process)
        for sockets in Path(tempfile.gettempdir()).glob("qcgpj-*"):  # of its manager, which cannot remove it any more
            shutil.rmtree(sockets)

    return {1: lambda job: slurm("scancel", job), 2: kill_all_processes}


@pytest.fixture(params=["all at once", "the agents first"])
def revoke(slurm, outside, wait_until, request):
    """A function that ends an allocation: Slurm sends SIGTERM to the agents and to the manager, one after the other."""

    def end_agents():
        agents = [process for process in outside() if processes.words(process)[-2:-1] == ["qcgpj-agent"]]
        for process in agents:
            if processes.name(process) not in ("srun", STARTER):
                with contextlib.suppress(psutil.NoSuchProcess):  # its guard was quicker
                    process.terminate()
        wait_until(lambda: not any(map(processes.lives, agents)), "the end of the agents")

    def revoke(job):
        if request.param == "the agents first":
            end_agents()
        slurm("scancel", job)

    return revoke


def _run_of(executor):
    return Path(executor._connection.dispatcher.link.process.directories.aux)


def _said(tmp_path, name):
    return (tmp_path / "wd" / f"{name}.out").read_text().split("\n")[:-1]


def test_a_program_on_a_login_node_uses_all_nodes_and_gives_them_back(make, tmp_path, given_back):
    with make() as executor:
        script = "hostname; sleep 0.3"
        small = [executor.submit(ScriptTemplate, name=f"h{n}", script=script, stdout=f"h{n}.out") for n in range(8)]
        shown = ["-c", "echo $QCG_PM_NNODES $QCG_PM_NPROCS $QCG_PM_NODELIST"]
        wide = executor.submit(ParallelTemplate, name="w", exec="sh", args=shown, nodes=2, cores=2, stdout="w.out")
        array = executor.submit(IterationTemplate, name="array", exec="hostname", stop=6)
        bad = executor.submit(BasicTemplate, name="bad", exec="false", after=[wide])
        for future in (*small, wide, array):
            assert set(future.result(60).values()) == {"SUCCEED"}
        assert bad.result(60) == {"bad": "FAILED"}
        (status,) = executor.allocations
        assert (status.state, status.nodes, status.cores, status.number) == ("RUNNING", 2, 4, 1)
        assert [iteration.state for iteration in array.iterations()["array"]] == ["SUCCEED"] * 6
    assert sorted({_said(tmp_path, f"h{n}")[0] for n in range(8)}) == NODES
    assert _said(tmp_path, "w") == ["2 4 n1,n2"]
    assert wide.info()["w"]["runtime"]["exit_code"] == "0"
    given_back()


def test_options_get_to_slurm_with_and_without_values(make, slurm):
    options = {"no-kill": True, "slurm.requeue": None, "contiguous": "", "slurm.comment": "a | b's", "slurm.nice": 7}
    with make(options={**options, "pbs.l": "ncpus=1"}) as executor:
        executor.submit(BasicTemplate, name="a", exec="true").raise_for_status(60)
        shown = slurm("scontrol", "show", "job", executor.allocations[0].id)
    for piece in ("Requeue=1", "Contiguous=1", "Comment=a | b's", "Nice=7", "JobName=qcgpj\n"):
        assert piece in shown


@pytest.mark.usefixtures("may_run_mpi")
@pytest.mark.parametrize(
    "parameters",
    [{"model": "openmpi"}, {"model": "srunmpi", "model_opts": {"srun_args": ["--mpi=pmix"]}}],
    ids=lambda parameters: parameters["model"],
)
def test_an_mpi_job_has_its_ranks_on_both_nodes(make, tmp_path, mpi_program, parameters):
    with make() as executor:
        executor.submit(
            ParallelTemplate, parameters, name="mpi", exec=str(mpi_program), cores=2, nodes=2, stdout="mpi.out"
        ).raise_for_status(90)
    rows = sorted(line.split() for line in _said(tmp_path, "mpi"))
    assert [row[:2] + row[3:] for row in rows] == [[str(rank), "4", "6"] for rank in range(4)]
    assert sorted(row[2] for row in rows) == ["n1", "n1", "n2", "n2"]


def test_functions_are_called_on_both_nodes(make, tmp_path, given_back):
    def host(_):
        """Return where it is called, once there were calls on both nodes: their workers need not begin together."""
        name = os.uname().nodename
        (tmp_path / f"called.{name}").touch()
        end = time.monotonic() + 30
        while len(list(tmp_path.glob("called.*"))) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        return name

    with make() as executor, executor.functions() as pool:
        assert sorted(set(pool.map(host, range(12), timeout=120))) == NODES
        assert isinstance(pool.submit(divmod, 1, 0).exception(90), ZeroDivisionError)
    given_back()


def test_what_is_submitted_while_the_allocation_waits_in_the_queue_runs_when_it_starts(
    full, make, wait_until, given_back
):
    executor = make()
    futures = [executor.submit(BasicTemplate, name=f"n{n}", exec="true") for n in range(50)]
    after = executor.submit(BasicTemplate, name="after", exec="true", after=futures)
    wait_until(lambda: executor.allocations[0].position == 1, "its place in the queue", 90)
    (status,) = executor.allocations
    assert (status.state, status.nodes, status.cores) == ("QUEUED", None, None)
    assert status.id
    assert not any(future.done() for future in (*futures, after))
    assert futures[0].status() == {"n0": "QUEUED"}
    full()
    assert after.result(60) == {"after": "SUCCEED"}
    assert {state for future in futures for state in future.result(90).values()} == {"SUCCEED"}
    assert executor.allocations[0].position is None
    assert executor.allocations[0].id == status.id
    executor.shutdown()
    given_back()


def test_why_an_allocation_waits_is_told(full, make, wait_until):
    executor = make()
    wait_until(lambda: executor.allocations[0].message in {"Priority", "Resources"}, "the scheduler's reason", 90)
    full()


def test_jobs_are_cancelled_while_the_allocation_waits_in_the_queue(full, make, given_back):
    executor = make()
    first, second = (executor.submit(BasicTemplate, name=name, exec="true") for name in "ab")
    began = time.monotonic()
    assert first.cancel()
    assert time.monotonic() - began < 20
    assert first.cancelled()
    assert first.status() == {"a": "CANCELED"}
    assert second.status() == {"b": "QUEUED"}
    full()
    assert second.result(60) == {"b": "SUCCEED"}
    executor.shutdown()
    given_back()


def test_an_allocation_that_waits_too_long_is_taken_back(full, make, cluster):
    executor = make(queue_timeout=2.0)

    def run_one():
        executor.submit(BasicTemplate, name="a", exec="true").result(90)

    with pytest.raises(AllocationFailed, match=r"still in the queue after 2 s \(queue_timeout\), and was taken back"):
        run_one()
    assert executor.allocations[0].state == "ENDED"
    with pytest.raises(AllocationFailed, match="queue_timeout"):
        executor.submit(BasicTemplate, name="b", exec="true")
    assert len(cluster.jobs()) == 1
    full()


def test_leaving_takes_back_what_waits_in_the_queue(full, make, cluster):
    executor = make()
    future = executor.submit(BasicTemplate, name="a", exec="true")
    began = time.monotonic()
    executor.__exit__(KeyboardInterrupt, None, None)
    assert time.monotonic() - began < 25
    assert future.cancelled()
    assert len(cluster.jobs()) == 1
    full()


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"queue": "nope"}, "Invalid partition name specified", r"no queue 'nope'.*sinfo.*queue="),
        ({"nodes": 3}, "Node count specification invalid|node configuration is not available", "nodes="),
        ({"queue": "short", "walltime": "1h"}, "Requested time limit is invalid", "shorter walltime="),
        ({"reservation": "nope"}, "Requested reservation is invalid", "arguments"),
        ({"options": {"slurm.gres": "nope:1"}}, r"Invalid generic resource", "arguments"),
    ],
    ids=["partition", "nodes", "walltime", "reservation", "options"],
)
def test_what_the_scheduler_refuses_is_told_in_its_words_with_what_to_do(make, options, said, hint):
    with pytest.raises(AllocationFailed, match=f"the scheduler refused it: (.|\n)*({said})(.|\n)*\n  next: .*{hint}"):
        make(**options)


def test_without_renewal_a_revoked_allocation_ends_what_has_not_ended(make, revoke, tmp_path, wait_until, given_back):
    executor = make()
    done = executor.submit(BasicTemplate, name="done", exec="true")
    done.result(60)
    slow = [
        executor.submit(ScriptTemplate, name=f"s{n}", script=STAY.format(f"{tmp_path}/{n}"), after=[done])
        for n in range(4)
    ]
    queued = executor.submit(BasicTemplate, name="queued", exec="true", after=slow)
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 4, "the jobs", 90)
    job = executor.allocations[0].id
    revoke(job)
    for future in (*slow, queued):
        with pytest.raises(
            AllocationEnded, match=rf"allocation {job} on n\d has ended: CANCELED(.|\n)*next: .*resume="
        ):
            future.result(90)
    assert done.result(0) == {"done": "SUCCEED"}
    assert done.info()["done"]["runtime"]["exit_code"] == "0"
    assert (executor.allocations[0].state, executor.allocations[0].id) == ("ENDED", job)
    with pytest.raises(AllocationEnded):
        executor.submit(BasicTemplate, name="late", exec="true")
    given_back()


def test_the_end_of_the_walltime_is_told(make, slurm, tmp_path, wait_until, given_back):
    executor = make()
    done = executor.submit(BasicTemplate, name="done", exec="true")
    slow = executor.submit(ScriptTemplate, name="slow", script=STAY.format(f"{tmp_path}/slow"))
    wait_until((tmp_path / "slow.pid").exists, "the job", 90)
    done.result(90)
    job = executor.allocations[0].id
    slurm("scontrol", "update", f"JobId={job}", "EndTime=now")  # Slurm looks every 30 s
    with pytest.raises(AllocationEnded, match=rf"allocation {job} on n\d has ended: .*(TO|TIMEOUT) ?.*TimeLimit"):
        slow.result(90)
    assert done.result(0) == {"done": "SUCCEED"}
    given_back()


def test_a_study_goes_on_over_three_allocations(make, kill, tmp_path, wait_until, given_back):
    """Two of them are killed: only what ran at that moment runs again."""
    script = f"exec >> {tmp_path}/ran.$QCG_PM_EXEC_API_JOB_ID; echo begin; sleep 0.15; echo end"
    until_killed = f"until [ -e {tmp_path}/killed ]; do sleep 0.05; done; {script}"
    with make(renew=2) as executor:
        scripts = [script] * 150 + [until_killed] * 50
        futures = [executor.submit(ScriptTemplate, name=f"n{n}", script=text) for n, text in enumerate(scripts)]
        done, ended = QCGPJFuture.done, {}
        for number, enough in enumerate((40, 110), 1):

            def has_come_far(number=number, enough=enough):
                (status,) = executor.allocations
                return (status.state, status.number) == ("RUNNING", number) and sum(map(done, futures)) >= enough

            wait_until(has_come_far, f"results of allocation {number}", 60)
            (status,) = executor.allocations
            for future in filter(done, futures):
                ran = tmp_path / f"ran.{future.ids[0]}"
                ended.setdefault(ran, ran.read_text())
            kill[number](status.id)
        (tmp_path / "killed").touch()
        assert not wait(futures, 120).not_done
        states = Counter(state for future in futures for state in future.result(0).values())
        (status,) = executor.allocations
    assert states == {"SUCCEED": 200}
    assert status.number == 3
    assert len(ended) >= 110
    assert {ran.name: ran.read_text() for ran in ended} == {ran.name: said for ran, said in ended.items()}
    said = [(tmp_path / f"ran.n{n}").read_text() for n in range(200)]
    assert all(lines.endswith("begin\nend\n") for lines in said)
    # what had not ended, and begins again, had a core
    assert sum(lines.count("begin") for lines in said) <= 200 + 2 * 4
    given_back()


ATTACH = """
    import sys
    from pathlib import Path
    from qcg.pilotjob.executor_api import *

    handle, gate, *names = sys.argv[1:]
    with QCGPJExecutor(manager=handle) as executor:
        future = executor.attach(*names)
        Path(gate).touch()
        print(sorted(future.result(60).values()))
"""


def test_what_is_detached_while_it_runs_is_followed_by_another_program(
    make, tmp_path, run_script, wait_until, given_back
):
    executor = make(idle=10.0)
    gate = tmp_path / "gate"
    script = f"echo x >> {tmp_path}/ran.$QCG_PM_EXEC_API_JOB_ID; until [ -e {gate} ]; do sleep 0.05; done"
    names = [f"n{n}" for n in range(12)]
    futures = [executor.submit(ScriptTemplate, name=name, script=script) for name in names]
    wait_until(lambda: len(list(tmp_path.glob("ran.*"))) == 4, "the first jobs", 90)
    handle = executor.detach()
    assert executor.allocations[0].state == "DETACHED"
    with pytest.raises(ExecutorClosed, match="manager="):
        futures[0].result(0)
    assert run_script(ATTACH, handle, gate, *names).stdout == f"{['SUCCEED'] * 12}\n"
    assert {path.read_text() for path in tmp_path.glob("ran.*")} == {"x\n"}
    given_back()
    with QCGPJExecutor(manager=handle) as later:
        assert set(later.attach(*names).result(10).values()) == {"SUCCEED"}


def test_what_is_detached_in_the_queue_is_followed_by_another_program(full, make, tmp_path, program, given_back):
    executor = make(idle=10.0)
    script = f"echo x >> {tmp_path}/ran.$QCG_PM_EXEC_API_JOB_ID"
    names = [f"n{n}" for n in range(12)]
    for name in names:
        executor.submit(ScriptTemplate, name=name, script=script)
    assert executor.allocations[0].state == "QUEUED"
    handle = executor.detach()
    other = program(ATTACH, handle, tmp_path / "attached", *names)
    assert not list(tmp_path.glob("ran.*"))
    full()
    assert other.wait(60) == 0, (tmp_path / "program.out").read_text()
    assert (tmp_path / "program.out").read_text() == f"{['SUCCEED'] * 12}\n"
    assert {path.read_text() for path in tmp_path.glob("ran.*")} == {"x\n"}
    assert len(list(tmp_path.glob("ran.*"))) == 12
    given_back()


CLIENT = f"""
    import sys
    from qcg.pilotjob.executor_api import *

    allocation = Allocation(nodes=2, walltime="5m", queue="p", poll=1.0, silence=float(sys.argv[1]))
    with QCGPJExecutor(wd="wd", allocation=allocation) as executor:
        for n in range(4):
            executor.submit(ScriptTemplate, name=f"n{{n}}", script={STAY!r}.format(n))
"""


@pytest.mark.parametrize("victims", ["the program", "the program and the guard"])
def test_only_what_was_detached_outlives_the_program(program, outside, wait_until, given_back, victims):
    client = program(CLIENT, 12.0 if "guard" in victims else 300.0)
    wait_until(lambda: sum(processes.words(process)[:1] == ["sleep"] for process in outside()) == 8, "the jobs", 90)
    # what a guard forks has its words for a moment
    guards = [each for each in psutil.Process(client.pid).children() if "qcgpj-guard" in processes.words(each)]
    assert len(guards) == 1
    if "guard" in victims:
        guards[0].suspend()  # so that it does not see the program's end
        client.kill()
        guards[0].kill()
    else:
        client.kill()
    assert client.wait() == -signal.SIGKILL
    given_back()
    wait_until(lambda: not outside(), "the end of all processes")


def test_a_program_that_is_killed_in_the_queue_leaves_nothing_there(full, program, cluster, wait_until):
    client = program(CLIENT, 300.0)
    wait_until(lambda: len(cluster.jobs()) == 2, "the allocation that waits", 90)
    client.kill()
    wait_until(lambda: len(cluster.jobs()) == 1, "the other job alone", 60)
    full()


def test_keys_are_nowhere_to_be_seen(make, slurm, tmp_path, wait_until):
    executor = make()
    for n in range(3):
        executor.submit(ScriptTemplate, name=f"s{n}", script=STAY.format(f"{tmp_path}/{n}"))
    pool = executor.functions()
    pool.submit(abs, -1).result(60)
    wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 3, "the jobs", 90)
    run = _run_of(executor)
    keys = json.loads((run / "keys.json").read_text())
    secrets = [keys["manager"]["secret"], keys["client"]["secret"], pool._hub._place.token]
    job = executor.allocations[0].id
    seen = [slurm("scontrol", "show", "job", "-dd", job), slurm("scontrol", "write", "batch_script", job, "-")]
    looked_at = 0
    for process in psutil.process_iter():
        for file in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                seen.append(Path(f"/proc/{process.pid}/{file}").read_text(errors="replace"))
                looked_at += 1
    assert looked_at > 20
    assert not [text for text in seen for secret in secrets if secret in text]
    assert run.stat().st_mode & 0o777 == 0o700
    with_keys = [path for path in run.rglob("*") if path.is_file() and _has(path, secrets)]
    assert {path.name for path in with_keys} >= {"keys.json", "pilot.1.json"}
    assert {path.stat().st_mode & 0o077 for path in with_keys} == {0}
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and run not in path.parents and _has(path, secrets)
    ]


def _has(path, secrets):
    with contextlib.suppress(FileNotFoundError):
        text = path.read_text(errors="replace")
        return any(secret in text for secret in secrets)
    return False


def test_a_node_that_goes_is_named_by_the_jobs_that_it_had(make, outside, tmp_path, wait_until):
    executor = make()
    script = f"hostname > {tmp_path}/$N.tmp; mv {tmp_path}/$N.tmp {tmp_path}/$N.host; exec sleep 1000"
    jobs = [executor.submit(ScriptTemplate, name=f"j{n}", script=script, env={"N": f"j{n}"}) for n in range(4)]
    wait_until(lambda: len(list(tmp_path.glob("*.host"))) == 4, "the jobs", 90)
    for process in outside():
        if processes.words(process)[-2:] == ["qcgpj-agent", "n2"]:
            processes.kill(process)
    there = [job for job in jobs if (tmp_path / f"{job.ids[0]}.host").read_text() == "n2\n"]
    assert len(there) == 2
    for job in there:
        with pytest.raises(JobFailed, match="node n2 is lost"):
            job.raise_for_status(60)
        assert "node n2 is lost" in job.info()[job.ids[0]]["messages"]
