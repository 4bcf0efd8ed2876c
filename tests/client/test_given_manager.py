"""A manager that somebody else has started: manager=..., and futures made by hand."""

import textwrap

import pytest

from qcg.pilotjob.executor_api import BasicTemplate, InvalidOption, QCGPJExecutor, QCGPJFuture

# The core's LocalManager forks, and is deprecated in the words of Python 3.12; so each of these is a program.
HEAD = r"""
    import asyncio, os, re, sys, time
    from concurrent.futures import as_completed, CancelledError
    from pathlib import Path
    from qcg.pilotjob.api.job import Jobs
    from qcg.pilotjob.api.manager import LocalManager, Manager
    from qcg.pilotjob.executor_api import *
    # The core asks for the loop of its forked process, and from Python 3.14 on there is one only if somebody sets it.
    os.register_at_fork(after_in_child=lambda: asyncio.set_event_loop(asyncio.new_event_loop()))
    local = LocalManager(["--nodes", "2", "--wd", "."], {"wdir": "."})
    def launched(name):  # returns its process id; the bare core loses a cancel that comes before it knows that
        while True:
            log, = Path(".").glob(".qcgpjm-service-*/service.log")
            found = re.search(rf"local process (\d+) for job {name} launched", log.read_text())
            if found:
                return int(found[1])
            time.sleep(0.01)
"""
RUN = """
    with QCGPJExecutor(manager=given) as executor:
        assert executor.qcgpj_manager is given
        futures = [executor.submit(BasicTemplate, name=f"a{n}", exec="true") for n in range(20)]
        bad = executor.submit(ScriptTemplate, name="bad", script="echo $QCG_PM_EXEC_API_JOB_ID; exit 7")
        assert [f.result(30) for f in futures] == [{f"a{n}": "SUCCEED"} for n in range(20)]
        assert bad.result(30) == {"bad": "FAILED"}
        assert open("bad.out").read() == "bad\\n"
        try:
            bad.raise_for_status()
        except JobFailed as failed:
            assert failed.exit_code == 7, failed
        try:
            executor.submit(lambda: "{'name': 'x', 'execution': {'exec': 'true'}, 'resources': {'numCores': 3}}")
        except InvalidJob as error:
            print(error)
        try:
            executor.submit(ParallelTemplate, name="x", exec="true", model="openmpi", cores=2, ranks=1)
        except InvalidJob as error:
            assert "which the given manager knows nothing of" in str(error), error
        else:
            raise AssertionError("it starts a rank for each core")
        array = executor.submit(IterationTemplate, name="array", exec="false", stop=3)
        assert array.result(30) == {"array": "FAILED"}
        local.submit(Jobs().add(name="taken", exec="true"))
        taken = executor.submit(BasicTemplate, name="taken", exec="true")
        assert isinstance(taken.exception(30), JobRefused)
        sleeper = executor.submit(ScriptTemplate, name="sleeper", script="exec sleep 1000")
        launched("sleeper")
        assert sleeper.cancel()
        assert sleeper.status() == {"sleeper": "CANCELED"}
    assert local.resources()["total_cores"] == 2  # it is not stopped
"""
TAIL = """
    local.finish()
    print("finished")
"""


@pytest.fixture
def run_program(run_script):
    def run(*parts):
        # whoever runs these tests with warnings as errors means this package's, not the core's
        return run_script("".join(map(textwrap.dedent, parts)), env={"PYTHONWARNINGS": "", "PYTHONDEVMODE": ""})

    return run


@pytest.mark.parametrize("given", ["local", "Manager(local._address, {'log_file': 'client.log'})"])
def test_a_given_manager_is_used_and_not_stopped(run_program, given):
    completed = run_program(HEAD, f"given = {given}\n", RUN, TAIL)
    assert "3 cores" in completed.stdout
    assert completed.stdout.endswith("finished\n")


def test_leaving_a_given_manager_by_an_interrupt_cancels_our_jobs_only(run_program):
    completed = run_program(
        HEAD,
        """
        local.submit(Jobs().add(name="theirs", script="until [ -e go ]; do sleep 0.01; done"))
        launched("theirs")
        try:
            with QCGPJExecutor(manager=local) as executor:
                ours = executor.submit(BasicTemplate, name="ours", exec="sleep", args=[1000])
                launched("ours")
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            print(ours.cancelled(), local.status("theirs")["jobs"]["theirs"]["data"]["status"])
        open("go", "w").close()
        print(local.wait4("theirs"))
        """,
        TAIL,
    )
    assert completed.stdout == "True EXECUTING\n{'theirs': 'SUCCEED'}\nfinished\n"


def test_a_given_manager_that_dies_breaks_what_is_pending(run_program):
    completed = run_program(
        HEAD,
        """
        import signal
        with QCGPJExecutor(manager=local) as executor:
            pending = executor.submit(BasicTemplate, name="pending", exec="sleep", args=[1000])
            job = launched("pending")
            os.kill(local.qcgpm_process.pid, signal.SIGKILL)
            began = time.monotonic()
            print(type(pending.exception(20)).__name__, time.monotonic() - began < 15)
        os.kill(job, signal.SIGKILL)  # the bare core leaves its jobs behind
        local.cleanup()
        """,
    )
    assert completed.stdout == "ManagerDied True\n"


def test_a_future_made_by_hand_asks_its_manager(run_program):
    completed = run_program(
        HEAD,
        """
        script = "until [ -e go ]; do sleep 0.01; done"
        ids = local.submit(Jobs().add(name="slow", script=script).add(name="b", exec="false"))
        future = QCGPJFuture(ids, local)
        assert future.ids == ["slow", "b"]
        assert future.qcgpjm is local
        assert not future.done() and future.running() and not future.cancelled()
        try:
            future.result(timeout=0.1)
        except TimeoutError as error:
            print(error)
        open("go", "w").close()
        calls = []
        future.add_done_callback(calls.append)
        print(future.result(20), future.status())
        assert future.done() and not future.running() and calls == [future]
        assert future.cancel() is False
        print(future.info()["b"]["runtime"]["exit_code"])
        other = QCGPJFuture(local.submit(Jobs().add(name="c", script="exec sleep 1000")), local)
        launched("c")
        assert other.cancel() and other.cancelled()
        """,
        TAIL,
    )
    states = "{'slow': 'SUCCEED', 'b': 'FAILED'}"
    assert completed.stdout == f"slow, b: not finished after 0.1 s\n{states} {states}\n1\nfinished\n"


def test_a_future_made_by_hand_from_an_executors_manager(executor):
    executor.submit(BasicTemplate, name="a", exec="true")
    assert QCGPJFuture(["a"], executor.qcgpj_manager).result(20) == {"a": "SUCCEED"}
    assert QCGPJFuture("a", executor.qcgpj_manager).result(20) == {"a": "SUCCEED"}


def test_what_is_no_manager(tmp_path):
    with pytest.raises(InvalidOption, match="manager is 'here'"):
        QCGPJExecutor(manager="here")
    with pytest.raises(InvalidOption, match="leave those out"):
        QCGPJExecutor(manager="here", resources=2)
