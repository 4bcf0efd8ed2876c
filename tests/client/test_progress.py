"""The bar, in a terminal of its own."""

import concurrent.futures
import fcntl
import importlib.util
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import threading

import pytest

from qcg.pilotjob.executor_api import BasicTemplate, IterationTemplate, progress

pytest.importorskip("tqdm")
needs_psij = pytest.mark.skipif(importlib.util.find_spec("psij") is None, reason="psij-python is not installed")

HEAD = """
import os, signal, sys, time, warnings
from qcg.pilotjob.executor_api import *

def job(executor, name, script="true", **more):
    return executor.submit(ScriptTemplate, name=name, script=script, **more)

def until(file):
    return f"until [ -e {os.getcwd()}/{file} ]; do sleep 0.05; done"

def wait_for(file):
    while not os.path.exists(file):
        time.sleep(0.01)
"""
RATE = r"[^],]*(job/s|s/job)"  # which of them depends on how fast this machine is


@pytest.fixture
def in_terminal(tmp_path):
    """Run Python source with a terminal as standard error; return its exit code and all that was shown there.

    Each step is a pattern and what is done when it is shown: a function that is called with the process, or the name of
    a file that is made. One comes after the other, and all have to come.
    """

    def run(source, *steps, columns=150):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", HEAD + textwrap.dedent(source)]
        with subprocess.Popen(command, stderr=theirs, cwd=tmp_path) as process:
            timer = threading.Timer(60, process.kill)
            timer.start()
            os.close(theirs)
            shown, left = "", list(steps)
            for text in iter(lambda: _read(ours), ""):
                shown += text
                while left and re.search(left[0][0], shown):
                    _, act = left.pop(0)
                    (tmp_path / act).touch() if isinstance(act, str) else act(process)
            code = process.wait()
            timer.cancel()
            timer.join()
        os.close(ours)
        assert not left, shown
        return code, shown

    return run


def _read(descriptor):
    try:
        return os.read(descriptor, 65536).decode(errors="replace")
    except OSError:  # the other end is closed
        return ""


def _lines(shown):
    return [line.strip() for line in re.split(r"[\r\n]+", shown) if line.strip()]


def test_the_last_line_has_the_counts_and_nothing_follows(in_terminal):
    code, shown = in_terminal(
        """
        with QCGPJExecutor(resources=2, progress=True) as executor:
            for number in range(5):
                job(executor, f"good{number}")
            bad = job(executor, "bad", "exit 3")
            job(executor, "omitted", after=[bad])
            job(executor, "cancelled", "sleep 60").cancel()
        time.sleep(1.2)
        print("after", file=sys.stderr)
        """
    )
    assert code == 0
    *_, last, after = _lines(shown)
    assert last.startswith("100%")
    assert re.search(rf"8/8 \[.*, {RATE}, 1 failed, 1 omitted, 1 cancelled\]$", last)
    assert after == "after"


def test_what_runs_and_waits_is_shown(in_terminal):
    code, shown = in_terminal(
        """
        with QCGPJExecutor(resources=2, progress=True) as executor:
            for number in range(4):
                job(executor, f"job{number}", until("most"))
            job(executor, "last", until("all"))
        """,
        (r"0/5 \[[^]]*, 2 running, 3 queued, 2/2 cores\]", "most"),
        (r"4/5 \[[^]]*, 1 running, 1/2 cores\]", "all"),
    )
    assert code == 0
    assert re.search(rf"5/5 \[[^],]*, {RATE}\]", _lines(shown)[-1])


def test_a_core_that_is_kept_for_the_manager_is_none_of_theirs(in_terminal):
    code, _ = in_terminal(
        """
        with QCGPJExecutor(resources=2, reserve_core=True, progress=True) as executor:
            job(executor, "job", until("go"))
        """,
        (r"1 running, 1/1 cores\]", "go"),
    )
    assert code == 0


def test_jobs_of_a_list_count_one_by_one_and_an_array_as_one(in_terminal):
    _, shown = in_terminal(
        """
        TWO = '''[{"name": "a", "execution": {"exec": "true"}},
                  {"name": "b", "execution": {"script": "%s"}}]''' % until("go")
        with QCGPJExecutor(resources=4, progress=True) as executor:
            executor.submit(lambda: TWO)
            executor.submit(IterationTemplate, name="c", exec="true", stop=3)
        """,
        (r" 2/3 \[", "go"),
    )
    assert " 3/3 [" in _lines(shown)[-1]


def test_an_attached_job_of_ones_own_counts_once(in_terminal):
    _, shown = in_terminal(
        """
        with QCGPJExecutor(resources=1, progress=True) as executor:
            job(executor, "a")
            executor.attach("a").result()
        """
    )
    assert " 1/1 [" in _lines(shown)[-1]


def test_no_terminal_no_bar(run_script):
    source = """
        with QCGPJExecutor(resources=1, progress=True) as executor:
            job(executor, "a", "sleep 0.7")
            assert list(progress([job(executor, "b")]))
        """
    assert run_script(HEAD + textwrap.dedent(source)).stderr == ""


def test_no_jobs_no_bar(in_terminal):
    assert in_terminal("QCGPJExecutor(resources=1, progress=True).shutdown()") == (0, "")


def test_a_manager_that_is_killed_closes_the_bar(in_terminal):
    code, shown = in_terminal(
        """
        executor = QCGPJExecutor(resources=2, progress=True)
        futures = [job(executor, "short"), *(job(executor, f"long{number}", "sleep 60") for number in range(3))]
        futures[0].result()
        os.kill(executor._connection.dispatcher.link.process.pid, signal.SIGKILL)
        assert isinstance(futures[1].exception(), ManagerDied)
        executor._connection._progress.join()
        print("after", file=sys.stderr)
        executor.shutdown()
        """
    )
    assert code == 0
    *_, last, after = _lines(shown)
    assert re.search(r"4/4 \[.*, 3 failed\]$", last)
    assert after == "after"


def test_ctrl_c_closes_the_bar(in_terminal):
    code, shown = in_terminal(
        """
        try:
            with QCGPJExecutor(resources=2, progress=True) as executor:
                for number in range(4):
                    job(executor, f"long{number}", "sleep 60")
        except KeyboardInterrupt:
            print("after", file=sys.stderr)
            time.sleep(1)
        """,
        ("2 running, 2 queued", lambda process: process.send_signal(signal.SIGINT)),
    )
    assert code == 0
    *_, last, after = _lines(shown)
    assert re.search(r"4/4 \[.*, 4 cancelled\]$", last)
    assert after == "after"


@pytest.mark.parametrize("way", ["executor.shutdown(wait=False)", "del executor", "pass"])
def test_the_bar_goes_on_in_the_background(in_terminal, way):
    code, shown = in_terminal(
        f"""
        executor = QCGPJExecutor(resources=1, progress=True)
        job(executor, "a", "sleep 1")
        {way}
        """
    )
    assert code == 0
    assert " 1/1 [" in _lines(shown)[-1]


def test_a_terminal_that_goes_away_harms_nothing(in_terminal, tmp_path):
    in_terminal(
        """
        with QCGPJExecutor(resources=1, progress=True) as executor:
            job(executor, "a", until("closed"))
            wait_for("shown")
            sys.stderr.close()
            open("closed", "w").close()
        os.mkdir("left")
        """,
        ("1 running", "shown"),
    )
    assert (tmp_path / "left").exists()


def test_a_forked_child_shows_nothing(in_terminal, tmp_path):
    code, shown = in_terminal(
        """
        with QCGPJExecutor(resources=1, progress=True) as executor:
            job(executor, "a", until("forked"))
            wait_for("shown")
            warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on, of threads and forks
            if os.fork() == 0:
                os.dup2(os.open("child", os.O_CREAT | os.O_WRONLY), 2)
                executor._connection._progress._bar.refresh()
                executor._connection._progress._bar.__del__()
                executor.shutdown()
                os._exit(0)
            status = os.wait()[1]
            open("forked", "w").close()
            assert status == 0
        """,
        ("1 running", "shown"),
    )
    assert code == 0, shown
    assert (tmp_path / "child").read_text() == ""
    assert " 1/1 [" in _lines(shown)[-1]


@needs_psij
def test_where_the_allocation_stands(in_terminal):
    code, shown = in_terminal(
        """
        waits = Allocation(scheduler="local", cores_per_node=2, setup=until("asked"))
        with QCGPJExecutor(allocation=waits, progress=True) as executor:
            for number in range(3):
                job(executor, f"job{number}", until("go"))
        """,
        (r"0/3 \[[^]]*allocation (asked|queued|starting)\]", "asked"),
        (r"2 running, 1 queued, 2/2 cores\]", "go"),
    )
    assert code == 0, shown
    assert re.search(r"3/3 \[[^],]*, [^],]*\]", _lines(shown)[-1])


@needs_psij
def test_several_allocations_count_together(in_terminal):
    code, shown = in_terminal(
        """
        two = Allocation(scheduler="local", cores_per_node=1, count=2)
        with QCGPJExecutor(allocation=two, progress=True) as executor:
            for number in range(4):
                job(executor, f"job{number}", until("go"))
        """,
        (r"2 running, 2 queued, 2/2 cores\]", "go"),
    )
    assert code == 0, shown
    assert " 4/4 [" in _lines(shown)[-1]


@needs_psij
def test_jobs_that_are_left_to_themselves_have_not_failed(in_terminal, tmp_path):
    code, shown = in_terminal(
        """
        executor = QCGPJExecutor(allocation=Allocation(scheduler="local", cores_per_node=2, idle=0.1), progress=True)
        job(executor, "short").result()
        job(executor, "long", until("go") + "; touch done")
        directory = executor.detach()
        print("after", file=sys.stderr)
        long = QCGPJExecutor(manager=directory).attach("long")
        open("go", "w").close()
        long.result(30)
        """
    )
    assert code == 0, shown
    *_, last, after = _lines(shown)
    assert re.search(r"1/2 \[[^],]*, [^],]*\]$", last)
    assert after == "after"
    assert (tmp_path / "done").exists()


def test_without_tqdm_nothing_is_started(run_script, tmp_path):
    run_script(
        """
        import sys, threading
        from qcg.pilotjob.executor_api import QCGPJExecutor, progress
        sys.modules["tqdm"] = None
        for make in (lambda: QCGPJExecutor(progress=True), lambda: progress([])):
            try:
                make()
            except ImportError as error:
                assert "[progress]" in str(error) and error.name == "tqdm"
            else:
                raise AssertionError
        assert threading.active_count() == 1
        """
    )
    assert list(tmp_path.iterdir()) == []


def test_without_progress_there_is_no_tqdm_and_no_thread(run_script):
    run_script(
        """
        import sys, threading
        from qcg.pilotjob.executor_api import BasicTemplate, QCGPJExecutor
        with QCGPJExecutor(resources=1) as executor:
            executor.submit(BasicTemplate, name="a", exec="true").result()
            assert [thread.name for thread in threading.enumerate()] == ["MainThread", "qcgpj-dispatcher"]
        assert "tqdm" not in sys.modules
        """
    )


# ---- progress(futures)


def test_futures_of_any_executor_are_yielded_beside_a_bar(in_terminal):
    code, shown = in_terminal(
        """
        from concurrent.futures import ThreadPoolExecutor
        with QCGPJExecutor(resources=2) as executor, ThreadPoolExecutor() as pool:
            futures = [pool.submit(pow, 2, -1), pool.submit(pow, 0, -1), pool.submit(int, "x")]
            futures += [job(executor, "good"), job(executor, "bad", "exit 1"), job(executor, "long", "sleep 60")]
            futures[-1].cancel()
            assert set(progress(futures + futures[:1], desc="all")) == set(futures)
        print("after", file=sys.stderr)
        """
    )
    assert code == 0, shown
    *_, last, after = _lines(shown)
    assert re.search(r"^all: 100%.* 6/6 \[.*, 3 failed, 1 cancelled\]$", last)
    assert after == "after"


def test_an_iteration_that_is_left_closes_the_bar(in_terminal):
    code, shown = in_terminal(
        """
        from concurrent.futures import Future
        futures = [Future(), Future()]
        futures[0].set_result(1)
        for _ in progress(futures):
            break
        try:
            list(progress(futures, timeout=0.1))
        except Exception as error:
            assert "unfinished" in str(error)
        import threading
        assert threading.active_count() == 1
        """
    )
    assert code == 0, shown
    assert shown.count("1/2") >= 2


def test_futures_are_yielded_where_nothing_is_shown(executor):
    futures = [executor.submit(BasicTemplate, name=name, exec="true") for name in "ab"]
    futures.append(executor.submit(IterationTemplate, name="c", exec="true", stop=2))
    assert set(progress(futures)) == set(futures)
    with pytest.raises(concurrent.futures.TimeoutError):
        list(progress([concurrent.futures.Future()], timeout=0.01))
