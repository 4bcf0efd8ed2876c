"""Python functions as jobs: what a pool promises beside what every executor does."""

import asyncio
import itertools
import os
import pickle
import signal
import stat
import sys
import threading
import time
from concurrent.futures import CancelledError, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import processes
import psutil
import pytest

from qcg.pilotjob.executor_api import (
    BasicTemplate,
    CallFailed,
    CallTimeout,
    ExecutorClosed,
    FunctionPool,
    InvalidJob,
    InvalidOption,
    ManagerDied,
    QCGPJExecutor,
    RemoteTraceback,
    WorkerDied,
)
from qcg.pilotjob.executor_api._functions import messages, workers
from qcg.pilotjob.executor_api._functions.hub import Hub
from qcg.pilotjob.executor_api._functions.rendezvous import Rendezvous
from qcg.pilotjob.executor_api._functions.workers import WorkerSet


@pytest.fixture
def pool(executor):
    return executor.functions()


def workers_of(executor, jobs_of):
    jobs = jobs_of(psutil.Process(executor._connection.dispatcher.link.process.pid))
    return [job for job in jobs if "functions." in " ".join(processes.words(job))]


def submit_together(pool, *calls):
    """Submit calls so that a worker gets them in one message, as it does when calls are short and there are many."""
    pool._hub._most_together = lambda: len(calls)
    with pool._hub._waiting.lock:
        return [pool.submit(*call) for call in calls]


# ---- what goes there and comes back


def test_a_script_as_in_the_readme(run_script):
    completed = run_script(
        """
        from qcg.pilotjob.executor_api import QCGPJExecutor
        class Point:
            def __init__(self, x):
                self.x = x
        def simulate(point, steps=1):
            return Point(point.x * steps)
        with QCGPJExecutor(resources=2) as executor:
            pool = executor.functions()
            print(pool.submit(simulate, Point(0.5), steps=1000).result().x)
            factor = 3
            print(list(pool.map(lambda number: factor * number, range(5))))
        """
    )
    assert completed.stdout == "500.0\n[0, 3, 6, 9, 12]\n"
    assert completed.stderr == ""


def test_arrays_arrive_as_they_were(pool):
    array = np.arange(3_000_000, dtype=float)[::2]
    future = pool.submit(lambda given: (given.flags.writeable, given + 1), array)
    array[:] = 0  # it was pickled before
    writeable, result = future.result(30)
    assert writeable
    assert result.flags.writeable
    assert np.array_equal(result, np.arange(3_000_000, dtype=float)[::2] + 1)


def test_large_values_come_from_processes_that_end_with_their_calls(executor):
    class Large:
        def __reduce_ex__(self, protocol):
            return len, (pickle.PickleBuffer(bytearray(5_000_000)),)

    pool = executor.functions(fresh=True)
    assert list(pool.map(lambda _: Large(), range(30), timeout=60)) == [5_000_000] * 30


def test_map_in_chunks(pool):
    assert list(pool.map(pow, range(20), range(20), chunksize=7)) == list(map(pow, range(20), range(20)))
    with pytest.raises(ValueError, match="chunksize"):
        pool.map(pow, [1], [1], chunksize=0)


def test_what_a_call_writes_is_kept_for_it(pool):
    def speak(word):
        os.write(1, b"raw ")
        print(word)
        print(f"not {word}", file=sys.stderr)

    futures = [pool.submit(speak, word) for word in ("one", "two")]
    for future, word in zip(futures, ("one", "two")):
        future.result(30)
        assert future.stdout == f"raw {word}\n"
        assert future.stderr == f"not {word}\n"


# ---- exceptions


def test_an_exception_has_the_remote_traceback_and_stderr(pool):
    def fail():
        print("the last words", file=sys.stderr)
        return 1 / 0

    error = pool.submit(fail).exception(30)
    assert isinstance(error, ZeroDivisionError)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "return 1 / 0" in str(error.__cause__)
    assert "the last words" in str(error.__cause__)


def test_exceptions_and_values_that_cannot_be_brought_here(pool):
    class Lock(Exception):
        def __init__(self):
            super().__init__("held")
            self.lock = threading.Lock()

    class TwoArguments(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    def fail(how):
        raise how()

    with pytest.raises(CallFailed, match="Lock: held") as caught:
        pool.submit(fail, Lock).result(30)
    assert "raise how()" in str(caught.value.__cause__)
    with pytest.raises(CallFailed, match="TwoArguments: 1 2"):
        pool.submit(fail, lambda: TwoArguments(1, 2)).result(30)
    with pytest.raises(TypeError, match="cannot pickle"):
        pool.submit(threading.Lock).result(30)
    with pytest.raises(TypeError, match="cannot pickle"):
        pool.submit(str, threading.Lock()).result(30)
    assert pool.submit(pow, 2, 3).result(30) == 8


@pytest.mark.parametrize(
    ("death", "said"),
    [
        (lambda: os._exit(3), "exit code 3"),
        (lambda: os._exit(0), "exit code 0"),
        (lambda: os.kill(os.getpid(), 9), "SIGKILL"),
        (lambda: os.kill(os.getpid(), 11), "SIGSEGV"),
    ],
    ids=["exit", "exit with 0", "killed", "crash"],
)
def test_a_process_that_ends_fails_its_own_call_alone(executor, death, said):
    pool = executor.functions(2)
    before, dead = pool.submit(time.sleep, 0.3), pool.submit(death)
    after = [pool.submit(pow, 2, number) for number in range(5)]
    with pytest.raises(WorkerDied, match=said) as caught:
        dead.result(30)
    assert isinstance(caught.value, BrokenProcessPool)
    assert before.result(30) is None
    assert [future.result(30) for future in after] == [1, 2, 4, 8, 16]


def test_a_call_is_made_again_as_often_as_asked(executor, tmp_path):
    def die_twice():
        with (tmp_path / "times").open("a") as file:
            file.write("x")
        if (tmp_path / "times").stat().st_size < 3:
            os._exit(1)
        return "third time"

    with executor.functions(1, retries=2) as pool:
        assert pool.submit(die_twice).result(30) == "third time"
        (tmp_path / "times").unlink()
        after_the_shutdown = pool.submit(die_twice)
    assert after_the_shutdown.result(0) == "third time"
    (tmp_path / "times").unlink()
    with executor.functions(1, retries=1) as pool:
        dead = pool.submit(die_twice)
        with pytest.raises(WorkerDied):
            dead.result(30)
    assert (tmp_path / "times").read_text() == "xx"


def test_a_call_that_waits_to_be_made_again_can_be_cancelled(executor, gate, wait_until):
    pool = executor.functions(cores=4, retries=1)
    future = pool.submit(gate.wait)
    wait_until(gate.is_waited_for)
    executor.submit(BasicTemplate, name="other", exec="sleep", args=["1000"])  # has a core before another worker can
    pool._hub._worker_set.workers[1].job.cancel()
    wait_until(lambda: not future.running())
    assert future.cancel()


def test_a_crash_among_short_calls_that_were_sent_together(executor, tmp_path):
    def note(number):
        with (tmp_path / "begun").open("a") as file:
            file.write(f"{number}\n")
        if number == 20:
            os.kill(os.getpid(), 9)
        return number

    pool = executor.functions(1)
    assert list(pool.map(pow, range(200), [1] * 200)) == list(range(200))  # so it is known that calls are short
    futures = [pool.submit(note, number) for number in range(100)]
    found = [type(future.exception(30)) if future.exception(30) else future.result() for future in futures]
    assert [each for each in found if each is not WorkerDied] == [n for n in range(100) if found[n] is not WorkerDied]
    assert found[20] is WorkerDied
    # the answers of calls before that one may be lost with the process, but no call is made twice
    assert all(number <= 20 for number in range(100) if found[number] is WorkerDied)
    assert sorted(map(int, (tmp_path / "begun").read_text().split())) == list(range(100))


def test_a_long_call_among_short_ones_holds_none_of_them_up(executor, gate):
    pool = executor.functions(2)
    assert list(pool.map(pow, range(200), [1] * 200)) == list(range(200))
    futures = [pool.submit(pow, 2, number) for number in range(20)]
    long = pool.submit(gate.wait)
    futures += [pool.submit(pow, 2, number) for number in range(20, 60)]
    assert [future.result(20) for future in futures] == [2**number for number in range(60)]
    assert not long.done()
    gate.open()
    assert long.result(20) is None


def test_what_was_sent_with_a_long_call_is_free_when_its_worker_can_be_asked_late(
    executor, gate, monkeypatch, wait_until
):
    greet, ask_back, asked, late = Hub._greet, WorkerSet._ask_back, [], []

    def greet_late(hub, sender, message):
        if message[0] == messages.CONTROL and not asked:
            late.append((hub, sender, message))
        else:
            greet(hub, sender, message)

    def ask_too_early(crew_of_it, worker):
        ask_back(crew_of_it, worker)
        asked.append(worker)
        while late:
            greet(*late.pop())

    monkeypatch.setattr(Hub, "_greet", greet_late)
    monkeypatch.setattr(WorkerSet, "_ask_back", ask_too_early)
    long, *others = submit_together(executor.functions(1), (gate.wait,), (pow, 2, 2), (pow, 2, 3))
    wait_until(gate.is_waited_for)
    wait_until(lambda: not any(other.running() for other in others))
    gate.open()
    assert [long.result(20), *(other.result(20) for other in others)] == [None, 4, 8]


def test_what_was_sent_with_a_long_call_is_free_when_its_worker_is_asked_before_it_reads(
    executor, gate, monkeypatch, wait_until
):
    send, held = Rendezvous.send, []

    def send_calls_after_the_question(place, receiver, *frames):
        if frames[0] == messages.CALLS and not held:
            held.append((receiver, *frames))
            return
        send(place, receiver, *frames)
        if frames[0] == messages.TAKE_BACK and len(held) == 1:
            assert place.socket.poll(20_000)  # its answer, that there is nothing to give back
            send(place, *held[0])
            held.append("sent")

    pool = executor.functions(1, idle_seconds=1000)
    assert pool.submit(pow, 2, 1).result(30) == 2
    wait_until(lambda: pool._hub._worker_set.workers[1].control)
    monkeypatch.setattr(Rendezvous, "send", send_calls_after_the_question)
    long, *others = submit_together(pool, (gate.wait,), (pow, 2, 2), (pow, 2, 3))
    wait_until(gate.is_waited_for)
    wait_until(lambda: not any(other.running() for other in others))
    gate.open()
    assert [long.result(20), *(other.result(20) for other in others)] == [None, 4, 8]


def test_a_worker_that_gives_all_back_before_it_has_begun_is_used_again(executor):
    def be_late():
        from qcg.pilotjob.executor_api._functions.worker import _Worker

        make_all = _Worker._make_all

        def make_all_late(worker, **options):
            _Worker._make_all = make_all
            while worker._waiting:
                time.sleep(0.001)
            make_all(worker, **options)

        _Worker._make_all = make_all_late

    pool = executor.functions(1)
    pool.submit(be_late).result(30)
    futures = submit_together(pool, *((pow, 2, number) for number in range(5)))
    assert [future.result(20) for future in futures] == [1, 2, 4, 8, 16]


# ---- the life of calls and workers


def test_a_running_call_is_cancelled_with_its_process(executor, tmp_path, wait_until, jobs_of):
    pool = executor.functions(1)
    future = pool.submit(lambda: [(tmp_path / "begun").touch(), time.sleep(1000)])
    waiting = pool.submit(pow, 2, 3)
    wait_until((tmp_path / "begun").exists)
    (worker,) = workers_of(executor, jobs_of)
    assert future.running()
    assert future.cancel()
    assert future.cancelled()
    assert not worker.is_running()
    with pytest.raises(CancelledError):
        future.result(0)
    assert waiting.result(30) == 8
    assert not waiting.cancel()


def test_a_call_can_be_cancelled_as_soon_as_it_runs(executor, monkeypatch):
    give, submitted, answers = WorkerSet.give, threading.Event(), []

    def give_late(crew_of_it, calls):
        submitted.wait(20)
        canceller.start()
        canceller.join(0.2)  # until then it has its answer, when there is a moment in which it gets the wrong one
        give(crew_of_it, calls)

    pool = executor.functions(1)
    pool.submit(pow, 2, 3).result(30)
    monkeypatch.setattr(WorkerSet, "give", give_late)
    future = pool.submit(time.sleep, 1000)
    canceller = threading.Thread(target=lambda: answers.append(future.cancel()))
    submitted.set()
    with pytest.raises(CancelledError):
        future.result(30)
    canceller.join()
    assert answers == [True]


def test_a_cancelled_call_that_its_worker_has_not_begun_is_not_made(executor, wait_until):
    def be_late():
        from qcg.pilotjob.executor_api._functions import messages

        messages.cut = lambda _: time.sleep(1000)

    pool = executor.functions(1)
    pool.submit(be_late).result(30)
    first, *others = submit_together(pool, (time.sleep, 1000), (pow, 2, 2), (pow, 2, 3))
    wait_until(first.running)
    assert first.cancel()
    assert [other.result(20) for other in others] == [4, 8]


def test_a_call_is_cancelled_no_more_when_its_worker_has_begun_the_next_one(executor, gate, wait_until):
    cancelled = threading.Event()
    pool = executor.functions(1)
    pool.submit(pow, 2, 1).result(30)
    with pool._hub._waiting.lock:
        before, call, after = submit_together(pool, (pow, 2, 2), (pow, 2, 3), (gate.wait,))
        before.add_done_callback(lambda _: cancelled.wait(20))  # the hub does not hear that the call has ended
    assert before.result(30) == 4
    wait_until(gate.is_waited_for)
    assert not call.cancel()
    cancelled.set()
    gate.open()
    assert call.result(30) == 8
    assert after.result(30) is None


@pytest.mark.parametrize("over", ["cancel", "walltime"])
def test_no_call_begins_twice_when_workers_are_ended_over_others(executor, tmp_path, monkeypatch, over):
    path = tmp_path / "begun"

    def note(number):
        with path.open("a") as file:
            file.write(f"{number}\n")
        time.sleep(0.001)
        return number

    pool = executor.functions(2, walltime="1s" if over == "walltime" else None)
    monkeypatch.setattr(pool._hub, "_most_together", lambda: 20)
    if over == "walltime":  # which is over as soon as it is looked at, for one call in three
        begin, turns = WorkerSet._begin, itertools.count()

        def begin_late(crew_of_it, worker):
            begin(crew_of_it, worker)
            if next(turns) % 3 == 0:
                worker.end_at = time.monotonic() + 0.001

        monkeypatch.setattr(WorkerSet, "_begin", begin_late)
    futures = [pool.submit(note, number) for number in range(120)]
    if over == "cancel":
        for future in futures[::3]:
            while not (future.running() and future.cancel()) and not future.done():
                time.sleep(0.0005)
    ends = [None if future.cancelled() else future.exception(60) for future in futures]
    assert {type(end) for end in ends} <= {type(None), CallTimeout}
    numbers = path.read_text().split()
    assert len(set(numbers)) == len(numbers)


def test_the_walltime_is_that_of_each_call(executor, tmp_path, monkeypatch, wait_until):
    ahead = 0.0
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead))
    pool = executor.functions(1, walltime="60s", idle_seconds=1000)

    def hold(number):
        (tmp_path / f"begun{number}").touch()
        while not (tmp_path / f"go{number}").exists():
            time.sleep(0.005)

    for number in range(3):
        call = pool.submit(hold, number)
        wait_until((tmp_path / f"begun{number}").exists)
        ahead += 40
        (tmp_path / f"go{number}").touch()
        assert call.result(30) is None
    slow = pool.submit(hold, "slow")
    wait_until((tmp_path / "begunslow").exists)
    ahead += 59
    after = pool.submit(pow, 2, 3)  # with it the hub looks at its clock
    with pytest.raises(CallTimeout, match="60 s") as caught:
        slow.result(30)
    assert isinstance(caught.value, TimeoutError)
    assert after.result(30) == 8


def test_workers_are_kept_and_give_their_cores_back(executor, jobs_of, wait_until):
    with executor.functions(2, idle_seconds=1000) as pool:
        assert len({pool.submit(os.getpid).result(30) for _ in range(20)}) <= 2
    pool = executor.functions(2, idle_seconds=0.3)
    assert pool.submit(pow, 2, 2).result(30) == 4
    wait_until(lambda: not workers_of(executor, jobs_of))
    wait_until(lambda: executor.qcgpj_manager.resources()["free_cores"] == 4)  # the manager hears of it a moment later
    assert pool.submit(pow, 2, 3).result(30) == 8


def test_a_fresh_process_for_each_call(executor):
    pool = executor.functions(2, fresh=True)
    assert len(set(pool.map(lambda _: os.getpid(), range(6)))) == 6


def test_calls_and_jobs_share_the_cores(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        pool = executor.functions(idle_seconds=0.1)
        for number in range(3):
            assert pool.submit(pow, 2, number).result(30) == 2**number
            assert executor.submit(BasicTemplate, name=f"n{number}", exec="true").result(30)


def test_what_workers_are_given(executor, tmp_path):
    (tmp_path / "below").mkdir()
    pool = executor.functions(1, cores=2, env={"NEW": "new"}, wd="below")
    found = pool.submit(lambda: (os.environ["NEW"], os.getcwd(), os.environ["QCG_PM_NPROCS"])).result(30)
    assert found == ("new", str(tmp_path / "below"), "2")


@pytest.mark.skipif(not Path(sys.prefix, "bin", "activate").exists(), reason="this Python is in no environment")
@pytest.mark.parametrize("given", [{"venv": sys.prefix}, {"python": sys.executable}], ids=["venv", "python"])
def test_an_environment_or_an_interpreter_by_name(executor, given):
    assert executor.functions(**given).submit(lambda: sys.prefix).result(30) == sys.prefix


def test_options_that_have_no_meaning(executor):
    for number in (0, -1):
        with pytest.raises(InvalidOption, match="max_workers must be greater than 0"):
            executor.functions(number)
    with pytest.raises(InvalidJob, match="walltime"):
        executor.functions(walltime="an hour")
    with pytest.raises(InvalidJob, match="99"):
        executor.functions(cores=99)
    with pytest.raises(InvalidJob, match="model"):
        executor.functions(model="no-model")


def test_an_interpreter_that_cannot_serve(executor):
    missing = executor.functions(python="/no/such/python").submit(pow, 2, 3)
    with pytest.raises(WorkerDied, match="/no/such/python"):
        missing.result(30)
    pool = executor.functions(python="/bin/true")
    assert all(isinstance(pool.submit(pow, 2, 3).exception(30), WorkerDied) for _ in range(3))


def test_another_version_of_python_is_a_clear_error(executor, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.version_info = (3, 1, 4, 'final', 0)")
    pool = executor.functions(env={"PYTHONPATH": str(tmp_path)})
    with pytest.raises(WorkerDied, match=r"workers run Python 3\.1 and this program"):
        pool.submit(pow, 2, 3).result(30)


# ---- the ends


def test_leaving_the_executor_waits_for_the_calls(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        futures = [executor.functions().submit(time.sleep, 0.2) for _ in range(4)]
    assert all(future.done() for future in futures)
    with pytest.raises(ExecutorClosed):
        executor.functions()


def test_a_shutdown_that_does_not_wait(tmp_path):
    executor = QCGPJExecutor(wd=tmp_path, resources=2)
    pool = executor.functions()
    futures = [pool.submit(pow, 2, number) for number in range(10)]
    executor.shutdown(wait=False)
    with pytest.raises(ExecutorClosed):
        pool.submit(pow, 2, 3)
    assert [future.result(30) for future in futures] == [2**number for number in range(10)]
    executor.shutdown()


def test_no_job_is_taken_after_a_shutdown_although_calls_are_being_made(tmp_path, gate):
    executor = QCGPJExecutor(wd=tmp_path, resources=2)
    held = executor.functions(max_workers=1).submit(gate.wait)
    executor.submit(BasicTemplate, name="a", exec="true").result(30)
    executor.shutdown(wait=False)
    for submit in (
        lambda: executor.submit(BasicTemplate, name="late", exec="true"),
        lambda: executor.map(BasicTemplate, [{"name": "late", "exec": "true"}]),
        lambda: next(executor.map(BasicTemplate, [{"name": "late", "exec": "true"}], buffersize=1)),
        lambda: executor.attach("a"),
        executor.functions,
    ):
        with pytest.raises(ExecutorClosed):
            submit()
    gate.open()
    assert held.result(30) is None
    executor.shutdown()
    assert [row["name"] for row in executor.record() if not row["name"].startswith("functions")] == ["a"]


def test_an_executor_whose_detach_was_refused_goes_on(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        with pytest.raises(InvalidOption, match="detach"):
            executor.detach()
        assert not executor.finished
        assert executor.functions().submit(pow, 2, 3).result(30) == 8
        assert executor.submit(BasicTemplate, name="a", exec="true").result(30) == {"a": "SUCCEED"}


def test_an_interrupt_cancels_the_calls(tmp_path, wait_until):
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(wd=tmp_path, resources=1) as executor:  # noqa: PT012
        pool = executor.functions()
        running = pool.submit(lambda: [(tmp_path / "begun").touch(), time.sleep(1000)])
        waiting = pool.submit(pow, 2, 3)
        wait_until((tmp_path / "begun").exists)
        raise KeyboardInterrupt
    assert running.cancelled()
    assert waiting.cancelled()


def test_an_interrupt_waits_until_the_calls_are_cancelled(tmp_path, monkeypatch, wait_until):
    cancel_all, looked = Hub._cancel_all, threading.Event()

    def cancel_all_late(hub):
        wait_until(lambda: executor._connection.has_ended)
        looked.wait(0.2)  # when it is not waited for, it has been looked at until then
        cancel_all(hub)

    monkeypatch.setattr(Hub, "_cancel_all", cancel_all_late)
    executor = QCGPJExecutor(wd=tmp_path, resources=1)
    call = executor.functions().submit(time.sleep, 1000)
    executor.__exit__(KeyboardInterrupt, None, None)
    was_cancelled = call.cancelled()
    looked.set()
    assert was_cancelled


def test_an_interrupt_cancels_the_calls_that_were_sent_together(tmp_path, monkeypatch, gate, wait_until):
    monkeypatch.setattr(workers, "_PATIENCE_SECONDS", 1000)
    executor = QCGPJExecutor(wd=tmp_path, resources=1)
    futures = submit_together(executor.functions(), (gate.wait,), (pow, 2, 2), (pow, 2, 3))
    wait_until(gate.is_waited_for)
    executor.__exit__(KeyboardInterrupt, None, None)
    assert all(future.cancelled() for future in futures)


def test_a_pool_that_is_dropped_makes_its_calls(executor):
    future = executor.functions().submit(pow, 2, 3)
    assert future.result(30) == 8


def test_a_script_that_never_shuts_down(run_script):
    completed = run_script(
        """
        from qcg.pilotjob.executor_api import QCGPJExecutor
        pool = QCGPJExecutor(resources=1).functions()
        pool.submit(pow, 2, 3).add_done_callback(lambda future: print(future.result()))
        """
    )
    assert (completed.stdout, completed.stderr) == ("8\n", "")


def test_a_forked_child_gets_an_error_and_ends(run_script):
    completed = run_script(
        """
        import os, time, warnings
        warnings.simplefilter("ignore")  # from Python 3.12 on, of threads and forks
        from qcg.pilotjob.executor_api import ExecutorClosed, QCGPJExecutor
        with QCGPJExecutor(resources=1) as executor:
            pool = executor.functions()
            future = pool.submit(time.sleep, 0.5)
            child = os.fork()
            if child == 0:
                try:
                    pool.submit(pow, 2, 3)
                except ExecutorClosed as error:
                    print(error, flush=True)
                raise SystemExit
            os.waitpid(child, 0)
            print(future.result())
        """
    )
    assert "needs one of its own" in completed.stdout
    assert completed.stdout.endswith("None\n")


def test_a_forked_child_cannot_cancel_and_does_not_wait_for_a_lock(run_script):
    completed = run_script(
        """
        import os, signal, threading, time, warnings
        warnings.simplefilter("ignore")
        from qcg.pilotjob.executor_api import QCGPJExecutor
        with QCGPJExecutor(resources=1) as executor:
            future = executor.functions().submit(pow, 2, 3)
            held, forked = threading.Event(), threading.Event()
            def hold():
                with future._condition:  # as whoever gives it its value
                    held.set()
                    forked.wait()
            thread = threading.Thread(target=hold)
            thread.start()
            held.wait()
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                os._exit(future.cancel())
            forked.set()
            thread.join()
            print(os.waitpid(child, 0)[1], future.result())
        """
    )
    assert completed.stdout == "0 8\n"


@pytest.mark.parametrize("way_out", ["raise SystemExit", "executor.shutdown()", "pool.shutdown()", "future.cancel()"])
def test_children_that_are_forked_while_calls_are_made_end(run_script, way_out):
    completed = run_script(
        f"""
        import os, warnings
        warnings.simplefilter("ignore")
        from qcg.pilotjob.executor_api import QCGPJExecutor
        with QCGPJExecutor(resources=1) as executor:
            pool = executor.functions()
            futures = []
            for turn in range(15):
                futures += [pool.submit(pow, 2, number) for number in range(turn)]
                future = pool.submit(pow, 2, 3)
                futures.append(future)
                child = os.fork()
                if child == 0:
                    {way_out}
                    raise SystemExit
                os.waitpid(child, 0)
            print(sum(future.result() for future in futures))
        """
    )
    expected = sum(2**number - 1 + 8 for number in range(15))
    assert completed.stdout.split() == [str(expected)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_manager_fails_the_calls(tmp_path, wait_until, number):
    executor = QCGPJExecutor(wd=tmp_path, resources=1)
    pool = executor.functions()
    futures = [pool.submit(lambda: [(tmp_path / "begun").touch(), time.sleep(1000)]) for _ in range(3)]
    wait_until((tmp_path / "begun").exists)
    psutil.Process(executor._connection.dispatcher.link.process.pid).send_signal(number)
    for future in futures:
        with pytest.raises((WorkerDied, ManagerDied)):
            future.result(30)
    executor.shutdown()


def test_nobody_else_can_call(executor, pool, tmp_path):
    pool.submit(pow, 2, 3).result(30)
    place = pool._hub._place
    assert stat.S_IMODE(place._orders.stat().st_mode) == 0o600
    assert stat.S_IMODE(place._sockets.stat().st_mode) == 0o700
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        assert place.token not in " ".join(processes.words(process))
        assert place.token not in str(processes.environment(process))
    pool.shutdown()
    assert not place._orders.exists()
    assert not place._sockets.exists()


# ---- code that takes an executor


def test_asyncio_run_in_executor(pool):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(pool, pow, 2, number) for number in range(5)))

    assert asyncio.run(main()) == [1, 2, 4, 8, 16]


def test_as_completed(pool, tmp_path):
    go = tmp_path / "go"

    def wait_for_it():
        while not os.path.exists(go):
            time.sleep(0.005)

    slow, quick = pool.submit(wait_for_it), pool.submit(pow, 2, 3)
    ended = as_completed([slow, quick], timeout=30)
    assert next(ended) is quick
    go.touch()
    assert next(ended) is slow
    assert isinstance(pool, FunctionPool)


def test_without_cloudpickle_the_error_says_what_to_install(run_script):
    completed = run_script(
        """
        import sys
        sys.modules["cloudpickle"] = None
        from qcg.pilotjob.executor_api import QCGPJExecutor
        with QCGPJExecutor(resources=1) as executor:
            try:
                executor.functions()
            except ImportError as error:
                print(error)
        """
    )
    assert "pip install 'qcg-pilotjob-executor-api[functions]'" in completed.stdout
