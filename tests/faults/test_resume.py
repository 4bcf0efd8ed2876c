"""An interrupted run is taken up: what has ended is not run again, all else is."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait

import psutil
import pytest

from qcg.pilotjob.executor_api import (
    BasicTemplate,
    ExecutorClosed,
    InvalidOption,
    IterationTemplate,
    JobFailed,
    JobRefused,
    JobUnknown,
    ManagerDied,
    ManagerStartError,
    QCGPJExecutor,
    ScriptTemplate,
)

REPETITIONS = int(os.environ.get("REPETITIONS", "4"))
SEED = os.environ.get("SEED", "")


def ran(directory):
    """How often each job has run to its end: their scripts note it."""
    path = directory / "ran"
    return Counter(path.read_text().split()) if path.exists() else Counter()


def run_of(directory):
    (run,) = directory.glob(".qcgpjm-service-*")
    return run


def ended_before(executor):
    """The names of what had ended when the executor took up its run; its manager has written to the same file since."""
    report = executor._connection.dispatcher.link.report
    lines = report.path.read_bytes()[: report._resumed_at].splitlines() if report._resumed_at else []
    return {line["name"] for line in map(json.loads, lines) if "interrupted" not in line["runtime"]}


def kill_manager(executor):
    psutil.Process(executor._connection.dispatcher.link.process.pid).kill()


@pytest.fixture
def interrupted(tmp_path, wait_until):
    """A run whose manager was killed when two of its jobs had ended, one ran and one waited; in tmp_path."""
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        executor.submit(ScriptTemplate, name="good", script="echo good >> ran").result(20)
        executor.submit(ScriptTemplate, name="bad", script="echo bad >> ran; echo so it is >&2; exit 3").result(20)
        running = executor.submit(
            ScriptTemplate,
            name="running",
            script="touch begun; until [ -e go ]; do sleep 0.01; done; echo running >> ran",
        )
        waiting = executor.submit(ScriptTemplate, name="waiting", script="echo waiting >> ran")
        assert waiting.status() == {"waiting": "QUEUED"}  # so it has arrived
        wait_until((tmp_path / "begun").exists)
        kill_manager(executor)
        with pytest.raises(ManagerDied, match="resume="):
            running.result(20)
    (tmp_path / "go").touch()
    return tmp_path


ALL = Counter(["good", "bad", "running", "waiting"])


def test_what_has_ended_is_not_run_again_and_all_else_is(interrupted):
    with QCGPJExecutor(resume=interrupted, resources=1) as executor:
        good = executor.attach("good")
        assert good.done()
        assert good.result(0) == {"good": "SUCCEED"}
        assert good.info()["good"]["runtime"]["exit_code"] == "0"
        assert executor.attach("running", "waiting").result(20) == {"running": "SUCCEED", "waiting": "SUCCEED"}
    assert ran(interrupted) == ALL


def test_nobody_need_attach(interrupted):
    QCGPJExecutor(resume=interrupted, resources=1).shutdown()
    assert ran(interrupted) == ALL


def test_a_failure_of_before_still_tells_why(interrupted):
    with QCGPJExecutor(resume=interrupted, resources=1) as executor:
        with pytest.raises(JobFailed, match="so it is") as failed:
            executor.attach("bad").raise_for_status(0)
        assert failed.value.exit_code == 3


def test_a_run_is_interrupted_and_resumed_twice(interrupted, wait_until):
    (interrupted / "go").unlink()
    (interrupted / "begun").unlink()
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(resume=interrupted, resources=1) as executor:  # noqa: PT012
        late = executor.submit(ScriptTemplate, name="late", script="echo late >> ran")
        assert late.status() == {"late": "QUEUED"}  # so it has arrived
        wait_until((interrupted / "begun").exists)
        raise KeyboardInterrupt
    assert ran(interrupted) == Counter(["good", "bad"])
    (interrupted / "go").touch()
    with QCGPJExecutor(resume=run_of(interrupted), resources=1) as executor:
        future = executor.attach("late", "running")
        assert future.result(20) == {"late": "SUCCEED", "running": "SUCCEED"}
    assert future.info()["running"]["status"] == "SUCCEED"
    assert ran(interrupted) == ALL + Counter(["late"])


def test_the_clients_death_ends_what_the_next_one_takes_up(tmp_path, wait_until):
    source = """
        from qcg.pilotjob.executor_api import *
        with QCGPJExecutor(resources=2) as executor:
            executor.submit(ScriptTemplate, name="first", script="echo first >> ran").result()
            script = "[ -e go ] || (touch begun; sleep 1000); echo long >> ran"
            executor.submit(ScriptTemplate, name="long", script=script)
            after = executor.submit(ScriptTemplate, name="after", script="echo after >> ran", after=["long"])
            after.status()
            open("all", "w").close()
    """
    client = subprocess.Popen([sys.executable, "-c", textwrap.dedent(source)], cwd=tmp_path)
    wait_until(lambda: (tmp_path / "begun").exists() and (tmp_path / "all").exists())
    client.kill()
    client.wait()
    (tmp_path / "go").touch()
    with QCGPJExecutor(resume=tmp_path, resources=2) as executor:  # at once: it waits for the end of the old manager
        assert executor.attach("first").result(0) == {"first": "SUCCEED"}
        assert executor.attach("long", "after").result(20) == {"long": "SUCCEED", "after": "SUCCEED"}
    assert ran(tmp_path) == Counter(["first", "long", "after"])


def test_what_the_user_has_cancelled_stays_cancelled(tmp_path, wait_until, patient):
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(wd=tmp_path, resources=1) as executor:  # noqa: PT012
        unwanted = executor.submit(ScriptTemplate, name="unwanted", script="touch begun; sleep 1000; :")
        executor.submit(ScriptTemplate, name="wanted", script="echo wanted >> ran")
        wait_until((tmp_path / "begun").exists)
        assert unwanted.cancel()
        running = executor.submit(
            ScriptTemplate, name="r", script="[ -e go ] || (touch second; sleep 1000); echo r >> ran"
        )
        wait_until((tmp_path / "second").exists)
        raise KeyboardInterrupt
    assert running.info()["r"]["status"] == "CANCELED"
    (tmp_path / "go").touch()
    with QCGPJExecutor(resume=tmp_path, resources=1) as executor:
        with pytest.raises(CancelledError):
            executor.attach("unwanted").result(0)
        assert executor.attach("r").result(20) == {"r": "SUCCEED"}
    assert ran(tmp_path) == Counter(["wanted", "r"])


# ---- arrays


def test_iterations_that_ended_out_of_order(tmp_path, wait_until):
    script = "[ ${it} = 1 ] && until [ -e go ]; do sleep 0.01; done; echo ${it} >> ran"
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        array = executor.submit(IterationTemplate, name="a", exec="bash", args=["-c", script], stop=5)
        wait_until(lambda: sum(one.state == "SUCCEED" for one in array.iterations()["a"]) == 4)
        kill_manager(executor)
        array.exception(20)
    (tmp_path / "go").touch()
    with QCGPJExecutor(resume=tmp_path, resources=2) as executor:
        array = executor.attach("a")
        assert array.result(20) == {"a": "SUCCEED"}
    assert ran(tmp_path) == Counter("01234")
    assert [one.state for one in array.iterations()["a"]] == ["SUCCEED"] * 5
    assert all(one.started < one.ended for one in array.iterations()["a"])


def track(directory, job, ends, name="a"):
    """Write what a manager keeps of a run with one job, some of whose iterations have ended."""
    run = directory / ".qcgpjm-service-made"
    run.mkdir(mode=0o700)
    (run / "track.reqs").write_text(json.dumps(job) + "\n")
    lines = [{"task": f"{name}:{number}", "iteration": number, "state": state} for number, state in ends.items()]
    (run / "track.states").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def array_job(stop, **others):
    return {
        "name": "a",
        "execution": {"exec": "bash", "args": ["-c", "echo ${it} >> ran"]},
        "resources": {"numCores": {"exact": 1}},
        "iteration": {"start": 0, "stop": stop, "values": None},
        **others,
    }


@pytest.mark.parametrize("seed", range(3))
def test_any_iterations_of_a_large_array(tmp_path, seed):
    ended = random.Random(seed).sample(range(250), 200)
    track(tmp_path, array_job(250), {number: random.Random(number).choice(["SUCCEED", "FAILED"]) for number in ended})
    with QCGPJExecutor(resume=tmp_path, resources=4) as executor:
        array = executor.attach("a")
        assert array.result(60) == {"a": "FAILED"}
        states = [one.state for one in array.iterations()["a"]]
    assert ran(tmp_path) == Counter(str(number) for number in range(250) if number not in ended)
    assert states == [
        random.Random(number).choice(["SUCCEED", "FAILED"]) if number in ended else "SUCCEED" for number in range(250)
    ]


def test_all_iterations_but_a_whole_block_have_ended(tmp_path):
    # the core prepares iterations in blocks of a hundred
    track(tmp_path, array_job(300), {number: "SUCCEED" for number in range(300) if not 220 <= number < 230})
    with QCGPJExecutor(resume=tmp_path, resources=4) as executor:
        assert executor.attach("a").result(60) == {"a": "SUCCEED"}
    assert ran(tmp_path) == Counter(map(str, range(220, 230)))


def test_the_end_of_the_last_iteration_is_all_that_is_on_record(tmp_path):
    track(tmp_path, array_job(3), {0: "SUCCEED", 1: "FAILED", 2: "SUCCEED"})
    with QCGPJExecutor(resume=tmp_path, resources=1) as executor:
        array = executor.attach("a")
        assert array.result(0) == {"a": "FAILED"}
        assert array.info()["a"]["status"] == "FAILED"
    assert ran(tmp_path) == Counter()


# ---- files that have suffered


@pytest.mark.parametrize("name", ["track.reqs", "track.states", "jobs.report"])
@pytest.mark.parametrize("torn", ["cut", "begun"])
def test_a_torn_last_line(interrupted, name, torn):
    path = run_of(interrupted) / name
    content = path.read_text()
    path.write_text(content[:-10] if torn == "cut" else content + '{"name": "wai')
    QCGPJExecutor(resume=interrupted, resources=1).shutdown()
    expected = ALL - Counter(["waiting"]) if (name, torn) == ("track.reqs", "cut") else ALL
    assert ran(interrupted) == expected
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_line_that_cannot_be_read(interrupted):
    path = run_of(interrupted) / "track.states"
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(ManagerStartError, match=r"line 1 of .*track.states cannot be read .* remove it") as refused:
        QCGPJExecutor(resume=interrupted, resources=1)
    assert "Traceback" not in str(refused.value)
    path.write_text("\n".join(path.read_text().splitlines()[1:]) + "\n")
    QCGPJExecutor(resume=interrupted, resources=1).shutdown()
    assert ran(interrupted) == ALL


def test_one_of_the_records_is_lost(interrupted):
    (run_of(interrupted) / "track.states").unlink()
    QCGPJExecutor(resume=interrupted, resources=1).shutdown()
    assert ran(interrupted) == ALL


def test_a_run_that_had_not_begun(tmp_path):
    QCGPJExecutor(wd=tmp_path, resources=1).shutdown()
    with QCGPJExecutor(resume=tmp_path, resources=1) as executor:
        assert executor.qcgpj_manager.list() == {}
        assert executor.submit(BasicTemplate, name="a", exec="true").result(20) == {"a": "SUCCEED"}


# ---- names


def test_a_name_of_the_run_is_taken(interrupted):
    with QCGPJExecutor(resume=interrupted, resources=1) as executor:
        again = executor.submit(BasicTemplate, name="good", exec="true")
        with pytest.raises(JobRefused, match=r"good already exist; attach\(\) follows it, .*remove\(\[name\]\)"):
            again.result(20)
        assert executor.attach("good").result(0) == {"good": "SUCCEED"}
        with pytest.raises(JobUnknown, match="nobody"):
            executor.attach("nobody")


def test_a_name_that_was_used_twice(tmp_path, wait_until):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        executor.submit(ScriptTemplate, name="a", script="echo one >> ran").result(20)
        executor.qcgpj_manager.remove("a")
        second = executor.submit(
            ScriptTemplate, name="a", script="[ -e go ] || (touch begun; sleep 9); echo two >> ran"
        )
        wait_until((tmp_path / "begun").exists)
        kill_manager(executor)
        second.exception(20)
    (tmp_path / "go").touch()
    QCGPJExecutor(resume=tmp_path, resources=1).shutdown()
    assert ran(tmp_path) == Counter(["one", "two"])
    QCGPJExecutor(resume=tmp_path, resources=1).shutdown()
    assert ran(tmp_path) == Counter(["one", "two"])


# ---- refusals


def test_a_manager_that_still_lives(executor, tmp_path):
    with pytest.raises(ManagerStartError, match=r"its manager still lives: process \d+ on "):
        QCGPJExecutor(resume=tmp_path, resources=1)
    assert executor.submit(BasicTemplate, name="a", exec="true").result(20) == {"a": "SUCCEED"}


def test_a_job_that_does_not_fit_in_here(interrupted):
    job = array_job(1, name="wide", resources={"numCores": {"exact": 3}}, iteration=None)
    with (run_of(interrupted) / "track.reqs").open("a") as file:
        file.write(json.dumps({key: value for key, value in job.items() if value is not None}) + "\n")
    with pytest.raises(ManagerStartError, match="job wide asks for 3 cores; jobs can use 2 here"):
        QCGPJExecutor(resume=interrupted, resources=2)
    with QCGPJExecutor(resume=interrupted, resources=3) as executor:
        assert executor.attach("wide").result(20) == {"wide": "SUCCEED"}


def test_options_that_have_no_meaning(tmp_path):
    with pytest.raises(InvalidOption, match=r"resume is .*has none in it"):
        QCGPJExecutor(resume=tmp_path)
    with pytest.raises(InvalidOption, match="resume is 3"):
        QCGPJExecutor(resume=3)
    (tmp_path / ".qcgpjm-service-x").mkdir()
    with pytest.raises(InvalidOption, match="leave wd out"):
        QCGPJExecutor(resume=tmp_path, wd=tmp_path / "other")
    with pytest.raises(InvalidOption, match="--id"):
        QCGPJExecutor("--id", "y", resume=tmp_path)
    with pytest.raises(InvalidOption, match="leave those out"):
        QCGPJExecutor(resume=tmp_path, manager=tmp_path)
    with pytest.raises(InvalidOption, match="give resume= to the executor"):
        QCGPJExecutor("--resume", str(tmp_path))
    assert not (tmp_path / "other").exists()


def test_the_id_is_kept_for_the_next_time(tmp_path):
    QCGPJExecutor("--id", "study", wd=tmp_path, resources=1).shutdown()
    with pytest.raises(ManagerStartError, match="resume="):
        QCGPJExecutor("--id", "study", wd=tmp_path, resources=1)
    QCGPJExecutor(resume=tmp_path / ".qcgpjm-service-study", wd=tmp_path, resources=1).shutdown()
    assert run_of(tmp_path).name == ".qcgpjm-service-study"


# ---- at any moment

STUDY = """
from qcg.pilotjob.executor_api import *
with QCGPJExecutor(resources=2) as executor:
    for n in range(30):
        script = f"sleep 0.0$((RANDOM % 5)); echo n{n} >> ran"
        executor.submit(BasicTemplate, name=f"n{n}", exec="bash", args=["-c", script])
    last = executor.submit(IterationTemplate, name="a", stop=30, exec="bash",
                    args=["-c", "sleep 0.0$((RANDOM % 5)); echo a:${it} >> ran"])
    last.status()
    print("submitted", flush=True)
"""


@pytest.mark.parametrize("repetition", range(REPETITIONS))
def test_no_job_is_lost_and_none_that_had_ended_runs_twice(tmp_path, wait_until, repetition):
    chance = random.Random(f"{SEED}{repetition}")
    client = subprocess.Popen([sys.executable, "-c", STUDY], cwd=tmp_path, stdout=subprocess.PIPE)
    assert client.stdout.readline() == b"submitted\n"
    moment = chance.randrange(1, 55)
    wait_until(lambda: sum(ran(tmp_path).values()) >= moment or client.poll() is not None)
    client.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))
    client.communicate()
    names = [*(f"n{n}" for n in range(30)), "a"]
    with QCGPJExecutor(resume=tmp_path, resources=2) as executor:
        ended = ended_before(executor) - {"a"}
        futures = [executor.attach(name) for name in names]
        wait(futures, 60)
    assert [future.result(0) for future in futures] == [{name: "SUCCEED"} for name in names]
    assert set(ran(tmp_path)) == {*names[:-1], *(f"a:{n}" for n in range(30))}
    assert all(ran(tmp_path)[task] == 1 for task in ended)
    # what ran to its end while that could not be put on record any more has to run again: at most a job a core
    assert sum(ran(tmp_path).values()) - 60 <= 2


# ---- runs that end in peace before their time is over


def test_a_run_is_stopped_by_a_signal_and_goes_on_in_the_next(tmp_path, wait_until):
    before = signal.getsignal(signal.SIGUSR1)
    with QCGPJExecutor(wd=tmp_path, resources=1, stop_on=signal.SIGUSR1) as executor:
        script = "touch begun; until [ -e go ]; do sleep 0.01; done; echo running >> ran"
        running = executor.submit(ScriptTemplate, name="running", script=script)
        waiting = executor.submit(ScriptTemplate, name="waiting", script="echo waiting >> ran")
        after = executor.submit(ScriptTemplate, name="after", script="echo after >> ran", after=[waiting])
        assert after.status() == {"after": "QUEUED"}
        wait_until((tmp_path / "begun").exists)
        signal.raise_signal(signal.SIGUSR1)
        wait([waiting, after], 20)
        assert waiting.cancelled()
        assert after.cancelled()
        with pytest.raises(ExecutorClosed):
            executor.submit(BasicTemplate, name="late", exec="true")
        assert running.status() == {"running": "EXECUTING"}
        (tmp_path / "go").touch()
    assert running.result(0) == {"running": "SUCCEED"}
    assert signal.getsignal(signal.SIGUSR1) == before
    with QCGPJExecutor(resume=tmp_path, resources=1) as executor:
        assert executor.attach("running").result(0) == {"running": "SUCCEED"}
        assert executor.attach("waiting", "after").result(20) == {"waiting": "SUCCEED", "after": "SUCCEED"}
    assert ran(tmp_path) == Counter(["running", "waiting", "after"])


def test_an_array_that_was_stopped_half_way(tmp_path, wait_until):
    script = "touch begun.${it}; until [ -e go ]; do sleep 0.01; done; echo ${it} >> ran"
    executor = QCGPJExecutor(wd=tmp_path, resources=2)
    array = executor.submit(IterationTemplate, name="a", exec="bash", args=["-c", script], stop=6)
    after = executor.submit(ScriptTemplate, name="after", script="echo after >> ran", after=[array])
    wait_until(lambda: len(list(tmp_path.glob("begun.*"))) == 2)
    executor.shutdown(wait=False, cancel_futures=True)
    wait_until(after.cancelled)
    assert not array.done()
    (tmp_path / "go").touch()
    executor.shutdown()
    assert array.cancelled()
    assert [one.state for one in array.iterations()["a"]] == ["SUCCEED"] * 2 + ["CANCELED"] * 4
    with QCGPJExecutor(resume=tmp_path, resources=2) as executor:
        array = executor.attach("a")
        assert array.result(20) == {"a": "SUCCEED"}
        assert [one.state for one in array.iterations()["a"]] == ["SUCCEED"] * 6
        assert executor.attach("after").result(20) == {"after": "SUCCEED"}
    assert ran(tmp_path) == Counter([*"012345", "after"])


def test_a_stop_becomes_an_interrupt(tmp_path, wait_until):
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(wd=tmp_path, resources=1) as executor:  # noqa: PT012
        running = executor.submit(
            ScriptTemplate, name="a", script="[ -e go ] || (touch begun; sleep 99); echo a >> ran"
        )
        wait_until((tmp_path / "begun").exists)
        executor.shutdown(wait=False, cancel_futures=True)
        raise KeyboardInterrupt
    assert running.cancelled()
    (tmp_path / "go").touch()
    QCGPJExecutor(resume=tmp_path, resources=1).shutdown()
    assert ran(tmp_path) == Counter(["a"])


def test_a_cancel_by_the_user_is_none_by_the_end_of_the_run(tmp_path, wait_until, patient):
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(wd=tmp_path, resources=1) as executor:  # noqa: PT012
        script = "trap '' TERM; touch begun; sleep 60; :"
        unwanted = executor.submit(ScriptTemplate, name="a", script=script)
        wait_until((tmp_path / "begun").exists)
        canceller = threading.Thread(target=unwanted.cancel)
        canceller.start()
        wait_until(lambda: "cancelJob" in (run_of(tmp_path) / "service.log").read_text())
        raise KeyboardInterrupt
    canceller.join()
    with QCGPJExecutor(resume=tmp_path, resources=1) as executor:
        assert executor.attach("a").cancelled()


@pytest.mark.parametrize("wrong", ["USR1", True, 0, 999, signal.SIGKILL, [signal.SIGUSR1, "x"]])
def test_what_is_no_signal_to_stop_on(tmp_path, wrong):
    with pytest.raises(InvalidOption, match="stop_on is"):
        QCGPJExecutor(wd=tmp_path, stop_on=wrong)


def test_signals_are_for_the_main_thread(tmp_path):
    with ThreadPoolExecutor(1) as threads:
        opened = threads.submit(QCGPJExecutor, wd=tmp_path, stop_on=signal.SIGUSR1)
        with pytest.raises(InvalidOption, match="main thread"):
            opened.result()


def test_a_signal_means_what_it_meant_when_the_executor_has_ended(tmp_path, wait_until):
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append("mine"))
    try:
        executor = QCGPJExecutor(wd=tmp_path, resources=1, stop_on=[signal.SIGUSR2])
        executor.shutdown(wait=False)
        wait_until(lambda: executor._connection.has_ended)
        signal.raise_signal(signal.SIGUSR2)
        wait_until(lambda: heard == ["mine"])
    finally:
        signal.signal(signal.SIGUSR2, before)
