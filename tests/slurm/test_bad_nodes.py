"""A node that cannot start jobs takes no more of them, instead of failing one after the other."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm

BEGIN = """
    import json, os, subprocess, sys
    from pathlib import Path
    from qcg.pilotjob.executor_api import *

    def hide(path, *nodes):
        # on these nodes alone, as a file system that is no longer there
        for node in nodes:
            slurmd = Path(os.environ["SLURM_CONF"]).with_name(f"slurmd.{node}.pid").read_text().strip()
            subprocess.run(["nsenter", "-t", slurmd, "-m", "-r", "mount", "-t", "tmpfs", "none", path], check=True)

    def log():
        return "".join(path.read_text() for path in Path(".").glob(".qcgpjm-service-*/service.log"))
"""


@pytest.fixture
def with_own_nodes(in_allocation_of_its_own):
    return in_allocation_of_its_own


def findings(completed):
    assert completed.stdout, completed.stderr
    return json.loads(completed.stdout.splitlines()[-1])


def test_jobs_go_elsewhere_when_a_node_cannot_start_them(with_own_nodes):
    found = findings(
        with_own_nodes(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        os.mkdir("shared")
        hide(os.path.abspath("shared"), "n2")
        jobs = [executor.submit(ScriptTemplate, name=f"j{n}", wd=f"shared/{n}", script="hostname") for n in range(60)]
        states = [job.result(60)[job.ids[0]] for job in jobs]
        hosts = {Path("shared", str(n), f"j{n}.out").read_text().strip() for n in range(60)}
        messages = {job.info()[job.ids[0]].get("messages") or "" for job in jobs}
        left = executor.qcgpj_manager.resources()
    print(json.dumps([states.count("SUCCEED"), sorted(hosts), sorted(messages), left, log()]))
    """
        )
    )
    succeeded, hosts, messages, left, log = found
    print(found)
    assert [succeeded, hosts] == [60, ["n1"]]
    assert any(
        "node n2: cannot start: no working directory" in message and "it is started elsewhere" in message
        for message in messages
    )
    assert [left["total_nodes"], left["total_cores"], left["free_cores"]] == [1, 2, 2]
    assert "node n2 takes no more jobs: " in log


def test_jobs_fail_with_the_reason_when_no_node_is_left(with_own_nodes):
    found = findings(
        with_own_nodes(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        os.mkdir("shared")
        hide(os.path.abspath("shared"), "n1", "n2")
        jobs = [
            {"name": f"j{n}", "execution": {"script": "hostname", "wd": f"shared/{n}"}} for n in range(20)
        ]  # taken together: what comes when no node is left is refused
        future = executor.submit(lambda: json.dumps(jobs))
        states = list(future.result(60).values())
        messages = [info.get("messages") or "" for info in future.info().values()]
    print(json.dumps([states, messages]))
    """
        )
    )
    states, messages = found
    print(found)
    assert states == ["FAILED"] * 20
    assert all("cannot start: no working directory" in message for message in messages)
    told = "node n1 takes no more jobs: cannot start: no working directory"
    assert sum(told in message for message in messages) >= 16  # those that were not tried


def test_what_is_the_fault_of_jobs_is_not_that_of_the_node(in_allocation):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        faults = [{"exec": "no-such-program"}, {"exec": "/etc/passwd"}] * 6
        jobs = [executor.submit(BasicTemplate, fault, name=f"j{n}") for n, fault in enumerate(faults)]
        states = {job.result(60)[job.ids[0]] for job in jobs}
        left = executor.qcgpj_manager.resources()["total_cores"]
    print(json.dumps([sorted(states), left]))
    """
        )
    )
    assert found == [["FAILED"], 4]


def test_a_job_that_cannot_be_bound_runs_all_the_same(in_allocation, tmp_path):
    found = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        job = executor.submit(ScriptTemplate, name="a", script="taskset -cp $$ | cut -d: -f2")
        job.raise_for_status(30)
        agent = next(Path(".").glob(".qcgpjm-service-*/nl-agent-n1.log"))
        print(json.dumps([Path("a.out").read_text().strip(), agent.read_text()]))
    """,
            env={"PYTHONPATH": _refusing(tmp_path)},
        )
    )
    assert found[0] == "0,1"
    assert (
        found[1].count("cannot bind to the CPUs [0]: Invalid argument; what would run there may use all of [0, 1]") == 1
    )


def _refusing(directory: Path) -> str:
    """Return a directory for PYTHONPATH where the kernel refuses each binding, as when CPUs were taken off line."""
    (directory / "site").mkdir()
    (directory / "site" / "sitecustomize.py").write_text(
        "import errno, os\n"
        "def refuse(pid, cpus):\n"
        "    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))\n"
        "os.sched_setaffinity = refuse\n"
    )
    return str(directory / "site")
