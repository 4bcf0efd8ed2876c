"""Every argument of the constructor, and what is refused."""

import json
import os
import stat
import subprocess
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from qcg.pilotjob.executor_api import (
    BasicTemplate,
    InvalidJob,
    InvalidOption,
    ManagerStartError,
    QCGPJExecutor,
    ScriptTemplate,
)
from qcg.pilotjob.executor_api._client.own_manager import PipedProcess, limit_agents
from qcg.pilotjob.executor_api._processes.resources import local_cpus


def only_aux(directory):
    (aux,) = Path(directory).glob(".qcgpjm-service-*")
    return aux


@pytest.mark.parametrize("kind", [str, Path])
def test_the_working_directory_is_made(tmp_path, kind):
    wd = tmp_path / "not" / "there"
    with QCGPJExecutor(wd=kind(wd), resources=1) as executor:
        executor.submit(BasicTemplate, name="a", exec="pwd").result(20)
    assert (wd / "stdout").read_text() == f"{wd}\n"


def test_the_working_directory_is_by_default_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with QCGPJExecutor() as executor:
        resources = executor.qcgpj_manager.resources()
        executor.submit(BasicTemplate, name="a", exec="true").result(20)
    assert resources["total_cores"] == local_cpus().number
    assert only_aux(tmp_path)


@pytest.mark.parametrize(
    ("resources", "nodes", "cores"), [(3, 1, 3), ("4", 1, 4), ("a:2,b:3", 2, 5), ("2,2", 2, 4), ("a:1", 1, 1)]
)
def test_resources(tmp_path, resources, nodes, cores):
    with QCGPJExecutor(wd=tmp_path, resources=resources) as executor:
        told = executor.qcgpj_manager.resources()
    assert (told["total_nodes"], told["total_cores"]) == (nodes, cores)


@pytest.mark.parametrize("resources", ["", 0, "0", -1, "two", "a:2,a:2", "a:", "4,", 1.5, True, "a b:2"])
def test_meaningless_resources(tmp_path, resources):
    with pytest.raises(InvalidOption, match="resources is"):
        QCGPJExecutor(wd=tmp_path, resources=resources)


@pytest.mark.parametrize("times", [-1, 1.0, "1", True, None])
def test_meaningless_numbers_of_restarts(tmp_path, times):
    with pytest.raises(InvalidOption, match="requeue_on_node_failure is"):
        QCGPJExecutor(wd=tmp_path, requeue_on_node_failure=times)
    with pytest.raises(InvalidOption, match="requeue_on_node_failure= is for a manager of the executor's own"):
        QCGPJExecutor(requeue_on_node_failure=1, manager=object())


def test_a_reserved_core_is_not_for_jobs(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2, reserve_core=True) as executor:
        assert executor.qcgpj_manager.resources()["free_cores"] == 1
        with pytest.raises(InvalidJob, match=r"2 cores.*1 core here"):
            executor.submit(lambda: "{'name': 'a', 'execution': {'exec': 'true'}, 'resources': {'numCores': 2}}")
        assert executor.submit(BasicTemplate, name="b", exec="true").result(20) == {"b": "SUCCEED"}


@pytest.mark.parametrize(("level", "seen"), [("debug", True), ("INFO", False), ("error", False)])
def test_log_level(tmp_path, level, seen):
    with QCGPJExecutor(wd=tmp_path, resources=1, log_level=level) as executor:
        executor.submit(BasicTemplate, name="a", exec="true").result(20)
    log = (only_aux(tmp_path) / "service.log").read_text()
    assert ("status changed to" in log) == seen
    assert ("job a is process" in log) == (level != "error")


def test_an_unknown_log_level(tmp_path):
    with pytest.raises(InvalidOption, match=r"'verbose'.*critical, error"):
        QCGPJExecutor(wd=tmp_path, log_level="verbose")
    assert not list(tmp_path.iterdir())


def test_run_times_measured_by_the_manager(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1, enable_rt_stats=True) as executor:
        executor.submit(BasicTemplate, name="a", exec="true").result(20)
    (times,) = tmp_path.glob("rtimes_*.log")
    assert set(json.loads(times.read_text())["rt"]["a"]) == {"s", "f"}


def test_run_times_of_one_core_follow_each_other(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1, enable_rt_stats=True) as executor:
        for n in range(50):
            executor.submit(BasicTemplate, name=f"n{n}", exec="true")
    (times,) = tmp_path.glob("rtimes_*.log")
    runs = json.loads(times.read_text())["rt"].values()
    moments = [moment for run in sorted(runs, key=str) for moment in (run["s"], run["f"])]
    assert len(moments) == 100
    assert moments == sorted(moments)


def test_run_times_measured_by_a_wrapper(tmp_path):
    wrapper = tmp_path / "wrapper"
    wrapper.write_text('#!/bin/bash\n"$@"\necho "$QCG_PM_RUNTIME_STATS_ID,1.5,2.5" > "$QCG_PM_RUNTIME_STATS_PIPE"\n')
    wrapper.chmod(0o755)
    with QCGPJExecutor(wd=tmp_path, resources=1, enable_rt_stats=True, wrapper_rt_stats=wrapper) as executor:
        executor.submit(BasicTemplate, name="a", exec="echo", args=["x y"]).result(20)
    (times,) = tmp_path.glob("rtimes_*.log")
    run = json.loads(times.read_text())["rt"]["a"]
    assert [str(datetime.fromtimestamp(moment)) for moment in (1.5, 2.5)] == [run["s"], run["f"]]
    assert (tmp_path / "stdout").read_text() == "x y\n"


def test_a_wrapper_that_is_not_there(tmp_path):
    with pytest.raises(InvalidOption, match="wrapper_rt_stats is 'nowhere'"):
        QCGPJExecutor(wd=tmp_path, wrapper_rt_stats="nowhere")


def test_further_arguments_reach_the_manager(tmp_path):
    with QCGPJExecutor("--id", "mine", "--report-file", "my.report", wd=tmp_path, resources=1) as executor:
        future = executor.submit(BasicTemplate, name="a", exec="true")
        future.result(20)
    assert only_aux(tmp_path).name == ".qcgpjm-service-mine"
    assert '"a"' in (only_aux(tmp_path) / "my.report").read_text()
    assert future.info()["a"]["status"] == "SUCCEED"


def test_an_id_that_is_taken(tmp_path):
    with QCGPJExecutor("--id", "mine", wd=tmp_path, resources=1), pytest.raises(ManagerStartError, match="--id"):
        QCGPJExecutor("--id", "mine", wd=tmp_path, resources=1)


@pytest.mark.parametrize("option", ["--net-port", "--resume=x", "--governor", "--wd"])
def test_options_that_the_executor_cannot_take(tmp_path, option):
    with pytest.raises(InvalidOption, match=option.partition("=")[0]):
        QCGPJExecutor(option, wd=tmp_path)


def test_an_option_that_the_manager_does_not_know_is_told(tmp_path):
    with pytest.raises(ManagerStartError, match="--no-such-option") as caught:
        QCGPJExecutor("--no-such-option", wd=tmp_path)
    assert isinstance(caught.value, RuntimeError)
    assert "manager.out" in str(caught.value)


def test_a_manager_that_is_not_ready_in_time_is_told_and_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(PipedProcess, "write", lambda *_: None)  # without its orders it never is
    with pytest.raises(ManagerStartError, match="start_timeout"):
        QCGPJExecutor(wd=tmp_path, resources=1, start_timeout=0.0)


def test_a_wd_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        QCGPJExecutor(wd=tmp_path / "file" / "below")
    with pytest.raises(InvalidOption, match="wd is ''"):
        QCGPJExecutor(wd="")


def test_files_of_the_user_that_are_called_like_modules_do_no_harm(tmp_path, run_script):
    for name in ("json.py", "zmq.py", "asyncio.py", "logging.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong one')")
    run_script(
        """
        import sys
        sys.path.remove("")
        from qcg.pilotjob.executor_api import *
        with QCGPJExecutor(resources=1) as executor:
            assert executor.submit(BasicTemplate, name="a", exec="true").result(20) == {"a": "SUCCEED"}
        """
    )


def test_the_package_is_found_wherever_the_client_found_it(tmp_path, run_script):
    import qcg.pilotjob.executor_api as api

    source = Path(api.__file__).parents[3]
    run_script(
        f"""
        import sys
        sys.path.insert(0, {str(source)!r})
        from qcg.pilotjob.executor_api import *
        with QCGPJExecutor(resources=1) as executor:
            assert executor.submit(BasicTemplate, name="a", exec="true").result(20) == {{"a": "SUCCEED"}}
        """,
        cwd=tmp_path,
    )


def test_nobody_else_can_read_or_connect(executor, tmp_path, jobs_of):
    process = executor._connection.dispatcher.link.process
    for directory in (Path(process.directories.aux), Path(process._sockets)):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in Path(process.directories.aux).iterdir():
        assert path.name in {"jobs.report", "track.reqs", "track.states"} or stat.S_IMODE(path.stat().st_mode) == 0o600
    manager = psutil.Process(process.pid)
    assert manager.net_connections("inet") == []
    assert jobs_of(manager) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_connect(executor):
    link = executor._connection.dispatcher.link
    path = link.address.replace("ipc://", "")
    attempts = [f"socket.socket(socket.AF_UNIX).connect({path!r})"]
    attempts += [f"open({str(path)!r})" for path in Path(link.process.directories.aux).iterdir()]
    for attempt in attempts:
        program = f"import os, socket; os.setuid(65534); {attempt}"
        done = subprocess.run(["/usr/bin/env", "python3", "-c", program], capture_output=True, text=True, check=False)
        assert "PermissionError" in done.stderr


def test_the_jobs_files_have_the_users_mode(executor, tmp_path):
    executor.submit(ScriptTemplate, name="a", script="umask; touch made").result(20)
    mask = os.umask(0)
    os.umask(mask)
    assert int((tmp_path / "a.out").read_text(), 8) == mask
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o666 & ~mask


def test_a_long_tmpdir_does_no_harm(tmp_path, run_script):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    run_script(
        """
        from qcg.pilotjob.executor_api import *
        with QCGPJExecutor(resources=1) as executor:
            assert executor.submit(BasicTemplate, name="a", exec="true").result(20) == {"a": "SUCCEED"}
        """,
        env={"TMPDIR": str(long)},
    )


def test_of_several_that_srun_has_started_one_takes_the_allocation(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(InvalidOption, match="srun has started this program 2 times"):
        QCGPJExecutor(wd=tmp_path)
    with QCGPJExecutor(wd=tmp_path, resources=1):
        QCGPJExecutor(manager=tmp_path).shutdown()
    monkeypatch.setenv("QCG_PM_EXEC_API_JOB_ID", "a")
    QCGPJExecutor(wd=tmp_path).shutdown()
    monkeypatch.delenv("QCG_PM_EXEC_API_JOB_ID")
    monkeypatch.setenv("SLURM_PROCID", "0")
    QCGPJExecutor(wd=tmp_path).shutdown()


@pytest.mark.parametrize(("timeout", "seconds"), [(0.0, "1"), (3.0, "2"), (120.0, "108"), (float("inf"), "900000")])
def test_agents_have_to_be_ready_before_the_manager(timeout, seconds):
    arguments = []
    limit_agents(arguments, timeout)
    assert arguments == ["--nl-init-timeout", seconds]
    limit_agents(arguments, 7.0)
    assert arguments == ["--nl-init-timeout", seconds]
