"""What CPython's own tests ask of executors and futures, asked of ours; docs/concurrent_futures.md has the list."""

import concurrent.futures
import contextlib
import gc
import itertools
import re
import sys
import threading
import traceback
import weakref
from concurrent.futures import CancelledError, InvalidStateError, ThreadPoolExecutor, as_completed, wait

import psutil
import pytest

from qcg.pilotjob.executor_api import (
    BasicTemplate,
    InvalidJob,
    JobFailed,
    JobRefused,
    ManagerDied,
    QCGPJExecutor,
    QCGPJFuture,
    ScriptTemplate,
)

DEADLINE = 20
CANCELS_WHOSE_TURN_IT_WAS = sys.version_info >= (3, 10)  # the map() of 3.9 cancels only those after it
UNTIL_GO = "until [ -e go ]; do sleep 0.01; done"


def manager_of(executor):
    return psutil.Process(executor._connection.dispatcher.link.process.pid)


def unfinished_job(executor, name="unfinished"):
    return executor.submit(BasicTemplate, name=name, exec="sleep", args=[1000])


def refused_job(executor, name="refused"):
    return executor.submit(ScriptTemplate, name=name, script="true", after=["nobody"])


def states_of(executor, *names):
    return [QCGPJFuture(name, executor.qcgpj_manager).status()[name] for name in names]


def comes_back(call):
    """Whether `call` returns: what hangs must not keep the tests."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    return not thread.is_alive()


@pytest.fixture
def ends(executor):
    """A future for each way to end, all of them ended."""
    futures = {
        "succeeded": executor.submit(BasicTemplate, name="succeeded", exec="true"),
        "failed": executor.submit(BasicTemplate, name="failed", exec="false"),
        "refused": refused_job(executor),
        "cancelled": unfinished_job(executor, "cancelled"),
    }
    assert futures["cancelled"].cancel()
    assert not wait(futures.values(), DEADLINE).not_done
    return futures


@pytest.fixture
def counted_references():
    """Without the collector of cycles, an object goes with its last reference or not at all."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# ---- wait


def test_wait_takes_a_future_twice_and_tells_it_once(executor):
    future = executor.submit(BasicTemplate, name="a", exec="true")
    assert wait([future, future], DEADLINE) == ({future}, set())


def test_wait_for_the_first_tells_of_every_end_that_is_there(executor, ends):
    unfinished = unfinished_job(executor)
    futures = {unfinished, *ends.values()}
    assert wait(futures, DEADLINE, concurrent.futures.FIRST_COMPLETED) == ({*ends.values()}, {unfinished})


def test_wait_for_the_first_ends_with_a_job_that_ends_meanwhile(executor, tmp_path, wait_until):
    first = executor.submit(ScriptTemplate, name="first", script=UNTIL_GO)
    unfinished = unfinished_job(executor)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait, [first, unfinished], DEADLINE, concurrent.futures.FIRST_COMPLETED)
        wait_until(lambda: first._waiters)
        (tmp_path / "go").touch()
        assert waiting.result(DEADLINE) == ({first}, {unfinished})


def test_a_refused_job_is_an_exception_to_wait_and_a_failed_or_cancelled_one_is_not(executor, ends, wait_until):
    unfinished = unfinished_job(executor)
    refused = ends.pop("refused")
    arguments = (0.05, concurrent.futures.FIRST_EXCEPTION)
    assert wait([unfinished, *ends.values()], *arguments).not_done == {unfinished}
    assert wait([unfinished, refused], None, concurrent.futures.FIRST_EXCEPTION) == ({refused}, {unfinished})
    manager_of(executor).suspend()
    late = refused_job(executor, "late")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait, [unfinished, late, *ends.values()], DEADLINE, concurrent.futures.FIRST_EXCEPTION)
        wait_until(lambda: late._waiters)
        manager_of(executor).resume()
        assert waiting.result(DEADLINE) == ({late, *ends.values()}, {unfinished})


def test_wait_for_all_counts_every_end(executor, ends):
    more = [executor.submit(BasicTemplate, name="good", exec="true"), refused_job(executor, "bad")]
    assert wait([*more, *ends.values()], DEADLINE) == ({*more, *ends.values()}, set())


def test_wait_for_all_gives_up_in_time(executor, ends):
    unfinished = unfinished_job(executor)
    assert wait([unfinished, *ends.values()], timeout=0.05) == ({*ends.values()}, {unfinished})
    assert unfinished.running()


def test_wait_misses_no_end_while_threads_switch_all_the_time(executor, tmp_path):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        futures = {executor.submit(BasicTemplate, name=f"a{n}", exec="true") for n in range(100)}
        assert wait(futures, 60) == (futures, set())
    finally:
        sys.setswitchinterval(interval)


def test_futures_of_several_executors_are_waited_for_together(executor, tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as another, ThreadPoolExecutor(1) as pool:
        futures = {pool.submit(int), *(it.submit(BasicTemplate, name="a", exec="true") for it in (executor, another))}
        assert wait(futures, DEADLINE) == (futures, set())
        assert set(as_completed(futures, DEADLINE)) == futures


# ---- as_completed


def test_as_completed_yields_every_kind_of_end(executor, ends):
    futures = {*ends.values(), executor.submit(BasicTemplate, name="a", exec="true"), refused_job(executor, "b")}
    told = list(as_completed(futures, DEADLINE))
    assert len(told) == len(futures)
    assert set(told) == futures


def test_as_completed_takes_any_iterable_and_yields_a_future_once(executor):
    future = executor.submit(ScriptTemplate, name="a", script="sleep 0.1")
    assert list(as_completed(itertools.repeat(future, 3), DEADLINE)) == [future]


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_as_completed_gives_up_in_time_and_says_how_many_are_left(executor, ends, timeout):
    unfinished = [unfinished_job(executor, f"u{n}") for n in range(2)]
    told = set()
    with pytest.raises(concurrent.futures.TimeoutError) as caught:  # noqa: PT012
        for future in as_completed([*unfinished, *ends.values()], timeout):
            told.add(future)
    assert told == {*ends.values()}
    assert str(caught.value) == "2 (of 6) futures unfinished"
    assert all(future.running() for future in unfinished)


def test_as_completed_keeps_no_future_that_it_has_yielded(executor, wait_until, counted_references):
    futures = [executor.submit(BasicTemplate, name=f"a{n}", exec="true") for n in range(8)]
    futures.append(refused_job(executor))
    for future in as_completed(futures, DEADLINE):
        futures.remove(future)
        look = weakref.ref(future)
        del future
        wait_until(lambda: look() is None, "the end of a yielded future")  # noqa: B023  # it is called in the loop only
    assert futures == []


# ---- futures


def test_a_callback_is_called_once_at_every_kind_of_end(executor, wait_until):
    manager_of(executor).suspend()  # so that no job ends before the callbacks are there
    futures = [
        executor.submit(BasicTemplate, name="succeeded", exec="true"),
        executor.submit(BasicTemplate, name="failed", exec="false"),
        refused_job(executor),
        unfinished_job(executor, "cancelled"),
    ]
    calls = []
    for future in futures:
        future.add_done_callback(lambda it: calls.append((it, it.done(), it.cancelled())))
    manager_of(executor).resume()
    assert futures[-1].cancel()
    wait_until(lambda: len(calls) == 4)
    assert set(calls) == {(future, True, future is futures[-1]) for future in futures}


@pytest.mark.parametrize("end", ["succeeded", "failed", "refused", "cancelled"])
def test_a_callback_that_comes_after_the_end_is_called_at_once(ends, end):
    calls = []
    ends[end].add_done_callback(lambda it: calls.append((it, threading.current_thread())))
    assert calls == [(ends[end], threading.current_thread())]


def test_a_callback_that_raises_does_not_keep_the_next_one(executor, wait_until, caplog):
    manager_of(executor).suspend()
    future = executor.submit(BasicTemplate, name="a", exec="true")
    calls = []
    future.add_done_callback(lambda _: {}["no such key"])
    future.add_done_callback(calls.append)
    manager_of(executor).resume()
    wait_until(lambda: calls == [future])
    assert "exception calling callback" in caplog.text
    assert "KeyError: 'no such key'" in caplog.text


def test_a_callback_that_comes_after_the_end_and_raises_does_not_disturb_its_owner(ends, caplog):
    ends["succeeded"].add_done_callback(lambda _: {}["no such key"])
    assert "exception calling callback" in caplog.text
    assert "KeyError: 'no such key'" in caplog.text


def test_the_states_of_a_future(executor, ends):
    unfinished = unfinished_job(executor)
    for future in (unfinished, *ends.values()):
        assert future.done() is (future is not unfinished)
        assert future.running() is (future is unfinished)
        assert future.cancelled() is (future is ends["cancelled"])
    for future in ends.values():
        assert future.cancel() is (future is ends["cancelled"])
        assert future.cancelled() is (future is ends["cancelled"])


def test_a_future_has_what_every_future_has():
    # it sets the attributes of its base class by itself: a Python where that has more of them must be noticed
    bare, ours = concurrent.futures.Future(), QCGPJFuture("a", None)
    assert [name for name in vars(bare) if not hasattr(ours, name)] == []
    ours.note = "a user's"
    assert vars(ours) == {"note": "a user's"}


def test_repr_tells_how_a_future_ended(executor, ends):
    told = {end: re.sub("0x[0-9a-f]+", "0x", repr(future)) for end, future in ends.items()}
    assert told == {
        "succeeded": "<QCGPJFuture at 0x state=finished returned dict>",
        "failed": "<QCGPJFuture at 0x state=finished returned dict>",
        "refused": "<QCGPJFuture at 0x state=finished raised JobRefused>",
        "cancelled": "<QCGPJFuture at 0x state=cancelled>",
    }
    assert "finished" not in repr(unfinished_job(executor))


@pytest.mark.parametrize("ask", [QCGPJFuture.result, QCGPJFuture.exception, QCGPJFuture.raise_for_status])
def test_a_time_out_of_nothing_tells_what_is_there(executor, ends, ask):
    with pytest.raises(concurrent.futures.TimeoutError):
        ask(unfinished_job(executor), timeout=0)
    with pytest.raises(CancelledError):
        ask(ends["cancelled"], timeout=0)
    if ask is QCGPJFuture.exception:
        assert isinstance(ask(ends["refused"], timeout=0), JobRefused)
        assert ask(ends["succeeded"], timeout=0) is None
    else:
        with pytest.raises(JobRefused):
            ask(ends["refused"], timeout=0)
        assert ask(ends["succeeded"], timeout=0) == {"succeeded": "SUCCEED"}


@pytest.mark.parametrize("end", ["succeed", "cancel", "refuse", "die"])
def test_whoever_waits_for_a_future_is_woken_by_its_end(executor, tmp_path, wait_until, end):
    manager = manager_of(executor)
    if end == "refuse":
        manager.suspend()
        future = refused_job(executor)
    else:
        future = executor.submit(ScriptTemplate, name="a", script=UNTIL_GO)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, DEADLINE) for ask in (future.result, future.exception)]
        wait_until(lambda: len(getattr(future._condition._waited_for, "_waiters", ())) == 2)
        {
            "succeed": (tmp_path / "go").touch,
            "cancel": future.cancel,
            "refuse": manager.resume,
            "die": manager.kill,
        }[end]()
        result, exception = asked
        if end == "succeed":
            assert (result.result(DEADLINE), exception.result(DEADLINE)) == ({"a": "SUCCEED"}, None)
        elif end == "cancel":
            for asking in asked:
                assert isinstance(asking.exception(DEADLINE), CancelledError)
        else:
            error = JobRefused if end == "refuse" else ManagerDied
            assert isinstance(result.exception(DEADLINE), error)
            assert isinstance(exception.result(DEADLINE), error)


@pytest.mark.parametrize("end", ["succeeded", "refused", "cancelled"])
def test_an_end_is_final(ends, end):
    before = repr(ends[end])
    with pytest.raises(InvalidStateError):
        ends[end].set_result({})
    with pytest.raises(InvalidStateError):
        ends[end].set_exception(ZeroDivisionError())
    assert repr(ends[end]) == before


# ---- submit and map


def test_a_template_is_given_by_its_place(executor):
    with pytest.raises(TypeError, match="positional argument"):
        executor.submit(fn=BasicTemplate, name="a", exec="true")
    with pytest.raises(TypeError, match="positional argument"):
        executor.submit(name="a", exec="true")
    assert executor.submit(BasicTemplate, name="a", exec="true").result(DEADLINE) == {"a": "SUCCEED"}


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_takes_dictionaries_from_each_iterable_and_later_ones_beat_earlier_ones(executor, tmp_path, chunksize):
    common = itertools.repeat({"exec": "echo", "args": ["lost"]})
    own = ({"name": f"m{n}", "args": [n], "stdout": f"{n}.out"} for n in range(10))
    told = executor.map(BasicTemplate, common, own, timeout=DEADLINE, chunksize=chunksize)
    assert list(told) == [{f"m{n}": "SUCCEED"} for n in range(10)]
    assert [(tmp_path / f"{n}.out").read_text() for n in range(10)] == [f"{n}\n" for n in range(10)]


def test_map_tells_a_bad_description_before_anything_is_asked(executor):
    with pytest.raises(InvalidJob, match="5 cores"):
        executor.map(ScriptTemplate, [{"name": "a", "script": "true", "cores": 5}])


def test_map_raises_when_it_is_the_turn_of_a_refused_job(executor):
    jobs = [{"name": f"m{n}", "script": f"exit {n}", "after": ["nobody"] if n == 2 else []} for n in range(4)]
    told = executor.map(ScriptTemplate, jobs, timeout=DEADLINE)
    assert [next(told), next(told)] == [{"m0": "SUCCEED"}, {"m1": "FAILED"}]
    with pytest.raises(JobRefused, match="m2"):
        next(told)
    assert list(told) == []


def test_map_gives_up_in_time_and_cancels_what_it_has_not_told(executor):
    jobs = [{"name": f"m{n}", "script": "true" if n < 2 else "exec sleep 1000"} for n in range(5)]
    told = []
    results = executor.map(ScriptTemplate, jobs, timeout=0.5)
    assert executor.attach("m0", "m1").result(DEADLINE) == {"m0": "SUCCEED", "m1": "SUCCEED"}
    with pytest.raises(concurrent.futures.TimeoutError, match="m2"):  # noqa: PT012
        for result in results:
            told.append(result)  # noqa: PERF402  # a list() would lose what comes before the error
    assert told == [{"m0": "SUCCEED"}, {"m1": "SUCCEED"}]
    left = ["m2", "m3", "m4"] if CANCELS_WHOSE_TURN_IT_WAS else ["m3", "m4"]
    assert set(states_of(executor, *left)) == {"CANCELED"}


def test_map_that_gives_up_touches_no_other_job(executor, tmp_path):
    whole_machine = executor.submit(ScriptTemplate, name="first", script=UNTIL_GO, cores=4)
    jobs = [{"name": f"m{n}", "script": f"touch m{n}.begun"} for n in range(2)]
    told = executor.map(ScriptTemplate, jobs, timeout=0)
    with pytest.raises(concurrent.futures.TimeoutError, match="m0: not finished after 0 s"):
        next(told)
    (tmp_path / "go").touch()
    assert whole_machine.result(DEADLINE) == {"first": "SUCCEED"}
    executor.shutdown()
    assert not (tmp_path / "m1.begun").exists()
    assert (tmp_path / "m0.begun").exists() is not CANCELS_WHOSE_TURN_IT_WAS


def test_map_that_is_left_half_way_cancels_the_rest(executor):
    jobs = [{"name": f"m{n}", "script": "true" if n < 1 else "exec sleep 1000"} for n in range(3)]
    told = executor.map(ScriptTemplate, jobs)
    assert next(told) == {"m0": "SUCCEED"}
    del told
    assert set(states_of(executor, "m1", "m2")) == {"CANCELED"}


def test_map_runs_its_jobs_whether_or_not_anybody_asks(executor, tmp_path):
    executor.map(ScriptTemplate, [{"name": f"m{n}", "script": f"touch {n}.ran"} for n in range(10)])
    executor.shutdown()
    assert len(list(tmp_path.glob("*.ran"))) == 10


@pytest.mark.parametrize("way_out", ["shutdown", "del"])
def test_map_has_its_results_after_the_end_of_the_executor(tmp_path, way_out):
    executor = QCGPJExecutor(wd=tmp_path, resources=2)
    told = executor.map(ScriptTemplate, [{"name": f"m{n}", "script": "sleep 0.05"} for n in range(8)], timeout=DEADLINE)
    if way_out == "shutdown":
        executor.shutdown(wait=False)
    look = weakref.ref(executor)
    del executor
    assert look() is None
    assert list(told) == [{f"m{n}": "SUCCEED"} for n in range(8)]


class Watched(QCGPJExecutor):
    """Knows the futures that are still there."""

    def submit(self, *args, **kwargs):
        future = super().submit(*args, **kwargs)
        self.alive = getattr(self, "alive", weakref.WeakSet())
        self.alive.add(future)
        return future


def test_map_keeps_no_future_whose_result_it_has_told(tmp_path, wait_until, counted_references):
    with Watched(wd=tmp_path, resources=2) as executor:
        jobs = [{"name": f"m{n}", "exec": "true"} for n in range(10)]
        for number, _ in enumerate(executor.map(BasicTemplate, jobs, timeout=DEADLINE), start=1):
            left = 10 - number
            wait_until(lambda: len(executor.alive) == left, "the end of a told future")  # noqa: B023  # as above


# ---- references


class Text(str):
    """Text that can be looked at from afar."""

    __slots__ = ("__weakref__",)


class Parameters(dict):
    """A dictionary that can be looked at from afar."""


class OwnTemplate:
    def template(self):
        return "{'name': '${name}', 'execution': {'exec': '${exec}'}}"


def test_nothing_of_a_submission_is_held_when_its_job_has_ended(executor, wait_until, counted_references):
    template, parameters, value = OwnTemplate(), Parameters(name="a"), Text("true")
    future = executor.submit(template, parameters, exec=value)
    future.add_done_callback(str)
    looks = [weakref.ref(thing) for thing in (template, parameters, value, future)]
    del template, parameters, value, future
    wait_until(lambda: [look() for look in looks] == [None] * 4)


@pytest.mark.parametrize("ask", [QCGPJFuture.result, QCGPJFuture.raise_for_status])
@pytest.mark.parametrize("end", ["refused", "cancelled", "failed"])
def test_an_exception_that_was_raised_does_not_hold_its_future(ends, wait_until, counted_references, ask, end):
    future = ends.pop(end)
    with contextlib.suppress(JobRefused, CancelledError, JobFailed):
        ask(future)
    look = weakref.ref(future)
    del future
    wait_until(lambda: look() is None)


def test_whoever_is_told_that_the_manager_died_has_an_exception_of_its_own(executor):
    futures = [unfinished_job(executor, f"a{n}") for n in range(3)]
    manager_of(executor).kill()
    assert not wait(futures, DEADLINE).not_done
    errors = []
    for attempt in [*(future.result for future in futures), *[lambda: unfinished_job(executor, "late")] * 3]:
        try:
            attempt()
        except ManagerDied as error:
            errors.append(error)
    assert len(set(map(id, errors))) == 6
    for error in errors:  # one that is shared grows with each raise, and holds the frames of all
        frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert frames.count("test_whoever_is_told_that_the_manager_died_has_an_exception_of_its_own") == 1


# ---- shutdown


def test_cancel_futures_leaves_no_future_open(executor, tmp_path, wait_until):
    futures = [executor.submit(ScriptTemplate, name=f"a{n}", script=UNTIL_GO) for n in range(50)]
    executor.shutdown(wait=False, cancel_futures=True)
    wait_until(lambda: sum(future.cancelled() for future in futures) >= 46)  # all but one for each core
    (tmp_path / "go").touch()
    executor.shutdown()
    assert all(future.done() for future in futures)
    others = [future for future in futures if not future.cancelled()]
    assert [future.result(0) for future in others] == [{future.ids[0]: "SUCCEED"} for future in others]


@pytest.mark.parametrize("cancel_futures", [False, True])
def test_the_interpreter_ends_after_a_shutdown_that_did_not_wait(run_script, cancel_futures):
    completed = run_script(
        f"""
        from qcg.pilotjob.executor_api import *
        executor = QCGPJExecutor(resources=1)
        future = executor.submit(ScriptTemplate, name="a", script="sleep 0.2")
        future.add_done_callback(lambda it: print(it.status()["a"]))
        executor.shutdown(wait=False, cancel_futures={cancel_futures})
        """,
        options=["-X", "dev", "-W", "error"],
    )
    assert completed.stderr == ""
    assert completed.stdout in (["SUCCEED\n", "CANCELED\n"] if cancel_futures else ["SUCCEED\n"])


@pytest.mark.parametrize("where", ["thread", "callback"])
def test_a_job_that_is_cancelled_at_once_does_not_keep_shutdown(executor, where):
    warm = executor.submit(BasicTemplate, name="warm", exec="true")
    future = unfinished_job(executor)
    if where == "callback":  # cancel() does not wait there
        warm.add_done_callback(lambda _: future.cancel())
    else:
        assert future.cancel()
    assert comes_back(executor.shutdown)
    assert future.cancelled()


def test_a_manager_that_dies_does_not_keep_a_shutdown_that_waits(executor, wait_until):
    future = unfinished_job(executor)
    leaving = threading.Thread(target=executor.shutdown, daemon=True)
    leaving.start()
    wait_until(lambda: executor.finished)
    manager_of(executor).kill()
    leaving.join(DEADLINE)
    assert not leaving.is_alive()
    assert isinstance(future.exception(0), ManagerDied)


def test_a_job_that_crashes_after_shutdown_fails_alone(executor, tmp_path):
    crashing = executor.submit(ScriptTemplate, name="crashing", script=f"{UNTIL_GO}; kill -SEGV $$")
    good = executor.submit(ScriptTemplate, name="good", script=f"{UNTIL_GO}; sleep 0.1")
    executor.shutdown(wait=False)
    (tmp_path / "go").touch()
    assert comes_back(executor.shutdown)
    assert (crashing.result(0), good.result(0)) == ({"crashing": "FAILED"}, {"good": "SUCCEED"})


def test_a_job_that_is_refused_after_shutdown_does_not_keep_it(executor):
    manager_of(executor).suspend()
    refused = refused_job(executor)
    executor.shutdown(wait=False)
    manager_of(executor).resume()
    assert comes_back(executor.shutdown)
    assert isinstance(refused.exception(0), JobRefused)


# ---- what might hang


def test_a_manager_that_dies_with_much_unread_breaks_all(executor):
    manager = manager_of(executor)
    manager.suspend()
    much = "# " + "x" * 1_000_000
    futures = [executor.submit(ScriptTemplate, name=f"a{n}", script=much) for n in range(10)]
    manager.kill()
    for future in futures:
        assert isinstance(future.exception(DEADLINE), ManagerDied)
    assert comes_back(executor.shutdown)


def test_submit_returns_however_much_is_queued(executor):
    held, go_on = threading.Event(), threading.Event()
    in_time = []

    def hold_the_dispatcher(_):
        held.set()
        in_time.append(go_on.wait(DEADLINE))

    manager_of(executor).suspend()  # a callback that comes after the end would be called here
    executor.submit(BasicTemplate, name="first", exec="true").add_done_callback(hold_the_dispatcher)
    manager_of(executor).resume()
    assert held.wait(DEADLINE)
    futures = [executor.submit(BasicTemplate, name=f"a{n}", exec="true") for n in range(600)]
    go_on.set()
    assert wait(futures, 60) == (set(futures), set())
    assert in_time == [True]


FORKS = """
    import itertools, os, signal, sys
    from qcg.pilotjob.executor_api import *
    numbers = itertools.count()
    def again(_=None):
        try:
            executor.submit(BasicTemplate, name=f"a{next(numbers)}", exec="true").add_done_callback(again)
        except ExecutorClosed:
            print("closed")
    with QCGPJExecutor(resources=2) as executor:
        again()
        codes = set()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # ends a child that hangs
                sys.exit(7)
            codes.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(codes)
"""


def test_a_child_that_is_forked_while_jobs_are_submitted_ends(run_script):
    assert run_script(FORKS).stdout == "{7}\nclosed\n"


def test_a_process_that_is_started_in_a_callback_ends(run_script):
    completed = run_script(
        """
        import multiprocessing
        from qcg.pilotjob.executor_api import *
        def start(_):
            child = multiprocessing.get_context("fork").Process(target=print, args=("in the child",))
            child.start()
            child.join(20)
            print(child.exitcode)
        with QCGPJExecutor(resources=1) as executor:
            executor.submit(BasicTemplate, name="a", exec="true").add_done_callback(start)
        """
    )
    assert completed.stdout == "in the child\n0\n"


@pytest.mark.parametrize("way_out", ["sys.exit()", "os._exit(0)"])
def test_a_child_that_is_forked_in_a_callback_does_no_harm(run_script, way_out):
    completed = run_script(
        f"""
        import os, signal, sys
        from qcg.pilotjob.executor_api import *
        def fork(_):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # ends a child that hangs
                {way_out}
            print(os.waitpid(child, 0)[1])
        with QCGPJExecutor(resources=1) as executor:
            executor.submit(BasicTemplate, name="a", exec="true").add_done_callback(fork)
            print(executor.submit(BasicTemplate, name="b", exec="true").result(30))
            print(executor.qcgpj_manager.resources()["total_cores"])
        """
    )
    assert completed.stdout == "0\n{'b': 'SUCCEED'}\n1\n"


def test_an_executor_that_gets_no_thread_is_an_error_and_leaves_nothing(run_script):
    completed = run_script(
        """
        import threading
        import psutil
        from qcg.pilotjob.executor_api import *
        threading.stack_size(1 << 50)  # no machine has the room
        try:
            QCGPJExecutor(resources=1)
        except RuntimeError as error:
            kept = error  # and with it its frames, and what is in them
        print(psutil.Process().children())
        """,
        options=["-X", "dev", "-W", "error"],
    )
    assert (completed.stdout, completed.stderr) == ("[]\n", "")


def test_the_first_executor_at_the_interpreters_end_is_refused_as_any_other(run_script):
    completed = run_script(
        """
        import atexit
        from qcg.pilotjob.executor_api import *
        def late():
            try:
                QCGPJExecutor(resources=1)
            except ExecutorClosed as error:
                print("closed")
        atexit.register(late)
        """,
        options=["-X", "dev", "-W", "error"],
    )
    assert completed.stderr == ""
    assert completed.stdout == "closed\n"


COLLECTS = """
    import gc, sys, threading
    from qcg.pilotjob.executor_api import *
    from qcg.pilotjob.executor_api._client import dispatcher, dispatching, inbox
    class Cycle:
        pass
    spare, seen = [], set()
    def collect(frame, event, _):
        if frame.f_code.co_filename not in (dispatcher.__file__, dispatching.__file__, inbox.__file__):
            return None
        place = frame.f_code.co_name, frame.f_lineno
        if event == "line" and spare and place not in seen:
            seen.add(place)
            garbage = Cycle()
            garbage.itself, garbage.results = garbage, spare.pop()
            del garbage
            gc.collect()
        return collect
    gc.disable()
    threading.settrace(collect)
    with QCGPJExecutor(resources=2) as executor:
        first = executor.submit(ScriptTemplate, name="first", script="exec sleep 1000")
        for n in range(100):
            jobs = [{"name": f"a{n}", "script": "true"}, {"name": f"b{n}", "script": "true", "after": [first]}]
            spare.append(executor.map(ScriptTemplate, jobs))
            next(spare[-1])
        sys.settrace(collect)
        print(executor.submit(BasicTemplate, name="last", exec="true").result())
        first.cancel()
        sys.settrace(None)
    print(len(seen) > 20)
"""


def test_garbage_that_cancels_jobs_may_be_collected_at_any_moment(run_script):
    # a half-read map() is such garbage; the collector may come upon it in any line, also where a lock is held
    assert run_script(COLLECTS).stdout == "{'last': 'SUCCEED'}\nTrue\n"
