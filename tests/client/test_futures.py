"""QCGPJFuture as a future of the standard library, and beyond."""

import asyncio
import concurrent.futures
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import processes
import psutil
import pytest

from qcg.pilotjob.executor_api import BasicTemplate, JobFailed, QCGPJExecutor, QCGPJFuture, ScriptTemplate
from qcg.pilotjob.executor_api._shared.job_info import is_named_after


def start_sleeping(executor, name="sleeper", **parameters):
    """Submit a job that has surely begun when this returns, and would run for ever."""
    return executor.submit(ScriptTemplate, parameters, name=name, script=f"echo > {name}.begun; sleep 1000 & wait")


def begun(directory, name="sleeper"):
    return lambda: Path(directory, f"{name}.begun").exists()


def processes_of(name):
    # a script gets its name by an export: its shell has it in its script, what it starts in its environment
    text = f"export QCG_PM_EXEC_API_JOB_ID={name}\n"

    def named(process):
        environment = processes.environment(process)
        return environment.get("QCG_PM_EXEC_API_JOB_ID") == name or text in environment.get("QCG_PM_SCRIPT", "")

    return list(filter(named, processes.children(psutil.Process())))


def test_done_running_and_status(executor, tmp_path, wait_until):
    blocker = start_sleeping(executor, cores=4)
    queued = executor.submit(BasicTemplate, name="queued", exec="true")
    wait_until(begun(tmp_path))
    assert blocker.status() == {"sleeper": "EXECUTING"}
    assert queued.status() == {"queued": "QUEUED"}
    for future in (blocker, queued):
        assert future.running()
        assert not future.done()
        assert not future.cancelled()
    assert blocker.cancel()
    assert queued.result(20) == {"queued": "SUCCEED"}
    assert queued.done()
    assert not queued.running()
    assert queued.status() == {"queued": "SUCCEED"}


def test_the_status_is_the_result_also_when_the_job_fails(executor):
    future = executor.submit(BasicTemplate, name="bad", exec="false")
    assert future.result(20) == {"bad": "FAILED"}
    assert future.exception() is None
    assert not future.cancelled()


@pytest.mark.parametrize("error", [TimeoutError, concurrent.futures.TimeoutError])
def test_a_timeout_leaves_the_job_alone(executor, error):
    future = start_sleeping(executor)
    with pytest.raises(error, match="sleeper"):
        future.result(timeout=0.05)
    with pytest.raises(error):
        future.exception(timeout=0.05)
    assert future.running()
    future.cancel()


@pytest.mark.parametrize("moment", range(5))
def test_an_end_wakes_everybody_who_waits_and_those_who_come_late(moment):
    future = QCGPJFuture("a", None)
    woken = []

    def wait_for_it(number):
        with contextlib.suppress(TimeoutError, concurrent.futures.TimeoutError):
            concurrent.futures.Future.result(future, 0.0005 * (number % 3))  # some have waited in vain before
        woken.append(concurrent.futures.Future.result(future, 20))

    threads = [threading.Thread(target=wait_for_it, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.0005 * moment)  # the moment itself is what is varied
    future.set_result({"a": "SUCCEED"})
    for thread in threads:
        thread.join(20)
    assert woken == [{"a": "SUCCEED"}] * 8
    assert future._condition._waited_for is None  # nothing is held that nobody needs


def test_wait_and_as_completed(executor):
    slow = start_sleeping(executor)
    quick = [executor.submit(BasicTemplate, name=f"quick{n}", exec="true") for n in range(5)]
    assert set(concurrent.futures.as_completed(quick, timeout=20)) == set(quick)
    done, not_done = concurrent.futures.wait([slow, *quick], return_when=concurrent.futures.FIRST_COMPLETED, timeout=20)
    assert done == set(quick)
    assert not_done == {slow}
    threading.Timer(0.05, slow.cancel).start()
    done, not_done = concurrent.futures.wait([slow, *quick], timeout=20)
    assert not not_done


def test_callbacks_run_in_order_and_see_the_future_done(executor):
    calls = []
    finished = threading.Event()
    future = executor.submit(BasicTemplate, name="a", exec="true")
    future.add_done_callback(lambda it: calls.append((1, it.done(), it.result())))
    future.add_done_callback(lambda _: finished.set())
    assert finished.wait(20)
    future.add_done_callback(lambda it: calls.append((2, it.done(), it.result())))
    assert calls == [(1, True, {"a": "SUCCEED"}), (2, True, {"a": "SUCCEED"})]


def test_a_callback_may_ask_why_its_job_failed(executor):
    asked = concurrent.futures.Future()

    def explain(future):
        try:
            future.raise_for_status()
        except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
            asked.set_result((error, future.info()))

    executor.submit(ScriptTemplate, name="bad", script="echo broken >&2; exit 3").add_done_callback(explain)
    error, info = asked.result(20)
    assert isinstance(error, JobFailed)
    assert error.exit_code == 3
    assert info["bad"]["status"] == "FAILED"


def test_a_callback_that_raises_disturbs_nobody(executor, caplog):
    future = executor.submit(BasicTemplate, name="a", exec="true")
    future.add_done_callback(lambda _: 1 / 0)
    assert future.result(20) == {"a": "SUCCEED"}
    assert executor.submit(BasicTemplate, name="b", exec="true").result(20) == {"b": "SUCCEED"}
    assert "ZeroDivisionError" in caplog.text


def test_waiting_in_a_callback_for_another_job_is_an_error_not_a_hang(executor):
    sleeper = start_sleeping(executor)
    caught = concurrent.futures.Future()

    def wait_for_the_other(_):
        try:
            sleeper.result()
        except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
            caught.set_result(error)

    executor.submit(BasicTemplate, name="a", exec="true").add_done_callback(wait_for_the_other)
    assert "done-callback" in str(caught.result(20))
    sleeper.cancel()


def test_asyncio(executor):
    async def main():
        futures = [executor.submit(BasicTemplate, name=f"a{n}", exec="true") for n in range(10)]
        return await asyncio.wait_for(asyncio.gather(*map(asyncio.wrap_future, futures)), 20)

    assert asyncio.run(main()) == [{f"a{n}": "SUCCEED"} for n in range(10)]


def test_asyncio_cancel_does_not_block_the_loop(executor, tmp_path, wait_until):
    # ignores SIGTERM: cancelling it takes the whole grace period
    stubborn = executor.submit(
        ScriptTemplate, name="stubborn", script="trap '' TERM; echo > stubborn.begun; sleep 1000 & wait; wait"
    )
    wait_until(begun(tmp_path, "stubborn"))

    async def main():
        waiting = asyncio.ensure_future(asyncio.wrap_future(stubborn))
        await asyncio.sleep(0)
        began = time.monotonic()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return time.monotonic() - began

    assert asyncio.run(main()) < 4.5  # the grace period is 5 s
    assert stubborn.cancelled()
    wait_until(lambda: stubborn.status() == {"stubborn": "CANCELED"})
    assert not processes_of("stubborn")


def test_map_yields_results_in_order(executor):
    jobs = [{"name": f"m{n}", "exec": "true" if n % 2 else "false"} for n in range(6)]
    results = list(executor.map(BasicTemplate.template, jobs, timeout=20))
    assert results == [{f"m{n}": "SUCCEED" if n % 2 else "FAILED"} for n in range(6)]


def test_cancel_ends_grandchildren_too(executor, tmp_path, wait_until):
    script = "(trap '' TERM; sleep 1000; :) & setsid sleep 1000 & echo > family.begun; sleep 1000; :"
    future = executor.submit(ScriptTemplate, name="family", script=script)
    wait_until(begun(tmp_path, "family"))
    wait_until(lambda: len(processes_of("family")) == 5)
    assert future.cancel() is True
    assert processes_of("family") == []
    assert future.cancelled()
    assert future.done()
    assert future.cancel() is True
    assert future.status() == {"family": "CANCELED"}
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)
    with pytest.raises(concurrent.futures.CancelledError):
        future.exception(0)
    assert executor.qcgpj_manager.resources()["free_cores"] == 4


def test_cancel_ends_what_is_started_meanwhile(executor, tmp_path, wait_until):
    script = "trap 'sleep 0.2; setsid sleep 1000 & sleep 0.1; exit' TERM; sleep 1000 & echo > parting.begun; wait"
    parting = executor.submit(ScriptTemplate, name="parting", script=script)
    wait_until(begun(tmp_path, "parting"))
    assert parting.cancel()
    assert processes_of("parting") == []
    for number in range(10):
        script = f"echo > s{number}.begun; while :; do setsid sleep 1000 & sleep 0.002; done"
        storm = executor.submit(ScriptTemplate, name=f"s{number}", script=script)
        wait_until(begun(tmp_path, f"s{number}"))
        assert storm.cancel()
        assert processes_of(f"s{number}") == []


def test_cancel_at_every_moment_of_a_jobs_life(executor):
    futures = []
    for number in range(30):
        future = executor.submit(BasicTemplate, name=f"c{number}", exec="sleep", args=["1000"])
        time.sleep(0.0002 * number)  # the moment itself is what is varied
        assert future.cancel()
        assert future.status() == {f"c{number}": "CANCELED"}
        assert not processes_of(f"c{number}")
        futures.append(future)
    assert executor.qcgpj_manager.resources()["free_cores"] == 4


def test_cancel_of_a_finished_job_changes_nothing(executor):
    future = executor.submit(BasicTemplate, name="a", exec="true")
    future.result(20)
    assert future.cancel() is False
    assert not future.cancelled()
    assert future.result() == {"a": "SUCCEED"}


def test_cancelling_one_job_omits_those_that_depend_on_it(executor, tmp_path, wait_until):
    first = start_sleeping(executor)
    second = executor.submit(ScriptTemplate, name="second", script="true", after=first)
    wait_until(begun(tmp_path))
    assert first.cancel()
    assert second.result(20) == {"second": "OMITTED"}
    with pytest.raises(JobFailed, match="OMITTED") as caught:
        second.raise_for_status()
    assert "depends" in str(caught.value)


def test_cancel_in_a_callback(executor, tmp_path, wait_until):
    sleeper = start_sleeping(executor)
    wait_until(begun(tmp_path))
    answers = []
    quick = executor.submit(BasicTemplate, name="quick", exec="true")
    quick.add_done_callback(lambda _: answers.append(sleeper.cancel()))
    with pytest.raises(concurrent.futures.CancelledError):
        sleeper.result(20)
    wait_until(lambda: answers)  # cancel() returns in the callback after the future has its end
    assert answers == [True]
    wait_until(lambda: not processes_of("sleeper"))
    wait_until(lambda: sleeper.status() == {"sleeper": "CANCELED"})


def test_a_job_cancelled_through_the_manager_is_a_cancelled_future(executor, tmp_path, wait_until):
    sleeper = start_sleeping(executor)
    wait_until(begun(tmp_path))
    executor.qcgpj_manager.cancel(sleeper.ids)
    with pytest.raises(concurrent.futures.CancelledError):
        sleeper.result(20)
    assert sleeper.status() == {"sleeper": "CANCELED"}


def test_raise_for_status_says_all_that_is_known(executor, tmp_path):
    future = executor.submit(ScriptTemplate, name="bad", script="echo one >&2; echo two >&2; exit 3")
    with pytest.raises(JobFailed) as caught:
        future.raise_for_status(20)
    error = caught.value
    assert (error.name, error.status, error.exit_code) == ("bad", "FAILED", 3)
    assert error.stderr == tmp_path / "bad.err"
    assert error.stdout == tmp_path / "bad.out"
    assert error.stderr_tail == "one\ntwo"
    for piece in ("'bad' FAILED with exit code 3", str(tmp_path / "bad.err"), "| two", "next:"):
        assert piece in str(error)
    assert isinstance(error, RuntimeError)


def failed_job_sharing_a_file(executor, **options):
    """Return the failure of a job whose last line is of another job that was given the same files."""
    futures = [
        executor.submit(BasicTemplate, name=name, exec="ls", args=[f"/missing-{name}"], **options) for name in "xy"
    ]
    concurrent.futures.wait(futures, 20)
    with pytest.raises(JobFailed) as caught:
        futures[0].raise_for_status(20)
    return caught.value


def test_lines_of_a_file_that_jobs_share_are_not_said_to_be_the_job_s(executor):
    error = failed_job_sharing_a_file(executor)
    assert error.may_be_others
    label, *quoted = str(error).partition("stderr:  ")[2].splitlines()[1:-1]
    assert "these lines may be theirs" in label
    assert quoted
    assert all(line.startswith("    | ") for line in quoted)


def test_lines_of_a_file_that_is_named_after_the_job_are_its_own(executor):
    error = failed_job_sharing_a_file(executor, stdout="${jname}.out", stderr="${jname}.err")
    assert not error.may_be_others
    assert "/missing-x" in error.stderr_tail
    assert "may be theirs" not in str(error)


@pytest.mark.parametrize(
    ("name", "iteration", "path", "is_own"),
    [
        ("x", None, "wd/x.err", True),
        ("x", None, "wd/stderr", False),
        ("stderr", None, "wd/stderr", False),
        ("x", None, "wd/x1.err", False),
        ("x.y", None, "wd/xzy.err", False),
        ("group/x", None, "wd/group/x.err", True),
        ("x", 3, "wd/x.3.err", True),
        ("x", 3, "wd/x.13.err", False),
        ("x", 3, "wd/x.err", False),
        ("x3", 3, "wd/x3.err", False),
    ],
)
def test_which_files_are_named_after_a_job(name, iteration, path, is_own):
    assert is_named_after(name, iteration, Path(path)) is is_own


def test_a_signal_is_called_by_its_name(executor):
    future = executor.submit(ScriptTemplate, name="killed", script="kill -SEGV $$")
    with pytest.raises(JobFailed, match="ended by SIGSEGV") as caught:
        future.raise_for_status(20)
    assert caught.value.exit_code == -signal.SIGSEGV


_SEGV = "kill -SEGV $$"
_BY_SHELL = "FAILED with exit code 139 (128 + SIGSEGV)"


def python(code):
    return {"exec": sys.executable, "args": ["-Sc", f"import os; {code}"]}


@pytest.mark.parametrize(
    ("execution", "said", "exit_code", "name"),
    [
        (python("os.kill(os.getpid(), 11)"), "FAILED, ended by SIGSEGV", -11, "SIGSEGV"),
        (python("os.kill(os.getpid(), 40)"), "FAILED, ended by signal 40", -40, "signal 40"),
        (python("os._exit(139)"), "FAILED with exit code 139", 139, None),
        ({"script": f"sh -c '{_SEGV}'; exit"}, _BY_SHELL, 139, "SIGSEGV"),
        ({"exec": "sh", "args": ["-c", f"sh -c '{_SEGV}'; exit"]}, _BY_SHELL, 139, "SIGSEGV"),
        ({"script": _SEGV, "login": True}, _BY_SHELL, 139, "SIGSEGV"),
        ({"script": "exit 250"}, "FAILED with exit code 250", 250, None),
    ],
)
def test_an_end_by_a_signal_is_named_everywhere(executor, execution, said, exit_code, name):
    job = {"name": "job", "execution": {**execution, "stderr": "job.err"}}
    text = json.dumps(job).replace("$", "$$")
    with pytest.raises(JobFailed) as caught:
        executor.submit(lambda: text).raise_for_status(20)
    assert str(caught.value).splitlines()[0] == f"job 'job' {said}"
    assert (caught.value.exit_code, caught.value.signal) == (exit_code, name)
    (row,) = executor.record()
    assert (row["exit_code"], row["signal"]) == (exit_code, name)
    assert f"  job: {said.partition('with ')[2] or said.partition(', ')[2]}" in str(executor.record().summary())
    with pytest.raises(JobFailed, match=re.escape(f"iteration 0 {said}")):
        executor.submit(
            lambda: text.replace('"job"', '"array"').replace("{", '{"iteration": {"stop": 1}, ', 1)
        ).raise_for_status(20)


def test_a_program_that_is_not_there(executor):
    future = executor.submit(BasicTemplate, name="none", exec="/no/such/program")
    with pytest.raises(JobFailed, match="no program '/no/such/program'") as caught:
        future.raise_for_status(20)
    assert caught.value.exit_code == 127


@pytest.mark.parametrize(
    ("job", "message", "advice"),
    [
        ({"exec": "./absent"}, r"no program '\./absent' in '/.*'", "give the program's full path"),
        ({"exec": "absent"}, "no program 'absent'\n", "check PATH"),
        ({"exec": "echo hello"}, "no program 'echo hello'", "arguments go into 'args'"),
        ({"exec": "/no/such thing"}, "no program '/no/such thing'", "look at that path"),
        ({"exec": "./windows"}, "no interpreter for './windows'", "first line"),
        ({"exec": "./data"}, "Permission denied", "chmod"),
        ({"exec": "true", "stdout": "absent/out"}, "cannot open stdout", "make the directory"),
        ({"exec": "bash", "args": ["-c", "kill -KILL $$"]}, "ended by SIGKILL", "memory"),
    ],
)
def test_what_to_do_about_it(executor, tmp_path, job, message, advice):
    (tmp_path / "data").write_text("data")
    (tmp_path / "windows").write_text("#!/bin/sh\r\n")
    (tmp_path / "windows").chmod(0o755)
    with pytest.raises(JobFailed, match=message) as caught:
        executor.submit(BasicTemplate, name="a", **job).raise_for_status(20)
    assert advice in str(caught.value).partition("next:")[2]


def test_an_omitted_job_tells_because_of_which(executor):
    good, bad = (executor.submit(ScriptTemplate, name=f"exit{n}", script=f"exit {n}") for n in (0, 1))
    omitted = executor.submit(ScriptTemplate, name="omitted", script="true", after=[good, bad])
    later = executor.submit(ScriptTemplate, name="later", script="true", after=[omitted])
    with pytest.raises(JobFailed, match="OMITTED\n  message: it was to come after 'exit1', which is FAILED"):
        omitted.raise_for_status(20)
    with pytest.raises(JobFailed, match="it was to come after 'omitted', which is OMITTED"):
        later.raise_for_status(20)


def test_a_job_over_its_walltime_is_ended(executor):
    future = executor.submit(ScriptTemplate, name="long", script="sleep 1000 & sleep 1000", walltime="1s")
    with pytest.raises(JobFailed, match="walltime of 0:00:01 is over"):
        future.raise_for_status(20)
    assert not processes_of("long")


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ('mpirun: Error: unknown option "-env"', "stderr"),
        ("An unrecognized option was included on the mpirun command line:\n\n  Option: --env\n", "stdout"),
        ("An unrecognized option was included on the mpirun command line:\n\n  Option: --env\n", "stderr"),
    ],
    ids=["Open MPI 4", "Open MPI 5", "Open MPI 6"],
)
def test_an_mpirun_that_is_not_intels_is_told(executor, words, where):
    script = f"echo '{words}' >&{['stdout', 'stderr'].index(where) + 1}; exit 1"
    future = executor.submit(ScriptTemplate, name="a", script=script)
    with pytest.raises(JobFailed) as caught:
        future.raise_for_status(20)
    assert "this mpirun is not Intel MPI's" in str(caught.value).partition("next:")[2]


def test_raise_for_status_returns_the_result_of_a_good_job(executor):
    assert executor.submit(BasicTemplate, name="a", exec="true").raise_for_status(20) == {"a": "SUCCEED"}


def test_info_is_the_same_before_and_after_shutdown(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        good = executor.submit(BasicTemplate, name="good", exec="true")
        array = executor.submit(
            lambda: "{'name': 'array', 'iteration': {'stop': 3}, 'execution': {'script': 'exit ${it}'}}"
        )
        good.result(20)
        assert array.result(20) == {"array": "FAILED"}
        before = good.info(), array.info()
        live = executor.qcgpj_manager.info(["good"])["jobs"]["good"]["data"]
    assert (good.info(), array.info()) == before
    assert good.info()["good"]["runtime"] == live["runtime"]
    assert good.info()["good"]["status"] == live["status"] == "SUCCEED"
    assert good.info()["good"]["history"].split() == live["history"].split()
    assert [child["runtime"]["exit_code"] for child in array.info()["array"]["childs"]] == ["0", "1", "2"]
    with pytest.raises(JobFailed, match="iteration 1 FAILED with exit code 1; iteration 2"):
        array.raise_for_status()


def test_info_of_a_running_job(executor, tmp_path, wait_until):
    sleeper = start_sleeping(executor)
    wait_until(begun(tmp_path))
    info = sleeper.info()["sleeper"]
    assert info["status"] == "EXECUTING"
    assert info["runtime"]["wd"] == str(tmp_path) + os.sep + "." or info["runtime"]["wd"] == str(tmp_path)
    sleeper.cancel()


def test_an_array_tells_the_state_of_the_whole(executor, tmp_path, wait_until):
    text = """{'name': 'array', 'iteration': {'stop': 4},
               'execution': {'script': 'echo > ${it}.begun; if [ ${it} = 3 ]; then sleep 1000; else exit ${it}; fi'}}"""
    array = executor.submit(lambda: text)
    wait_until(lambda: Path(tmp_path, "3.begun").exists())
    assert array.status() == {"array": "EXECUTING"}
    executor.qcgpj_manager.cancel("array:3")
    assert array.result(20) == {"array": "FAILED"}
    assert array.result(20) == {"array": "FAILED"}


def test_a_successful_array_whose_first_iteration_fails_is_a_failure(executor):
    # the last iteration to end succeeds: the state of the whole is not its state
    text = """{'name': 'a', 'iteration': {'stop': 2},
               'execution': {'script': '[ ${it} = 1 ] && sleep 0.2; exit $((1-${it}))'}}"""
    assert executor.submit(lambda: text).result(20) == {"a": "FAILED"}


def test_a_job_reads_end_of_file_from_standard_input(executor):
    assert executor.submit(BasicTemplate, name="cat", exec="cat").result(20) == {"cat": "SUCCEED"}


def test_what_a_job_leaves_in_its_session_ends_with_it(executor):
    future = executor.submit(ScriptTemplate, name="leaver", script="sleep 1000 & exit 0")
    assert future.result(20) == {"leaver": "SUCCEED"}
    assert not processes_of("leaver")


def test_the_signal_mask_of_the_user_does_not_reach_the_jobs(tmp_path):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
            future = executor.submit(ScriptTemplate, name="a", script="kill -TERM $$; echo survived")
            assert future.result(20) == {"a": "FAILED"}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def test_a_program_that_complains_on_standard_output_is_heard_too(executor):
    future = executor.submit(ScriptTemplate, name="bad", script="echo ERROR: no such atom; exit 1")
    with pytest.raises(JobFailed, match=r"\| ERROR: no such atom"):
        future.raise_for_status(20)


def test_what_a_failed_job_wrote_moves_no_cursor(executor):
    script = r"printf 'first\033[2J\033]0;title\007\rlast\n' >&2; exit 1"
    job = executor.submit(ScriptTemplate, name="a", script=script)
    with pytest.raises(JobFailed) as failed:
        job.raise_for_status(20)
    assert "    | first [2J ]0;title" in str(failed.value)
    assert all(line.isprintable() for line in str(failed.value).splitlines())
    assert "\x1b" in failed.value.stderr_tail  # as it was written
