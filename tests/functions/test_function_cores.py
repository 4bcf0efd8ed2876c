"""Cores that workers of a pool have go to others that wait for them: jobs, and workers of other pools."""

import time

import pytest

from qcg.pilotjob.executor_api import BasicTemplate, QCGPJExecutor, ScriptTemplate


@pytest.fixture
def on_cores(tmp_path):
    """A function that makes an executor on so many cores."""
    made = []

    def on_cores(number):
        made.append(QCGPJExecutor(wd=tmp_path, resources=number))
        return made[-1]

    yield on_cores
    for executor in made:
        executor.__exit__(KeyboardInterrupt, None, None)  # what a failed test left running must not be waited for


def many_calls(pool):
    """Submit calls of several seconds, of which each takes a moment."""
    return [pool.submit(time.sleep, 0.02) for _ in range(200)]


def names(executor):
    return [row["name"] for row in executor.record()]


def test_attributes_of_jobs_do_not_change_their_order(on_cores, tmp_path):
    executor = on_cores(1)
    executor.submit(ScriptTemplate, name="holds", script=f"until [ -e {tmp_path}/go ]; do sleep 0.01; done")
    text = '{"name": "${name}", "execution": {"exec": "true"}, "attributes": {"qcgpj_returns": ${value}}}'
    ordinary = executor.submit(BasicTemplate, name="first", exec="true")
    values = [True, "", None, ["x"], "functions."]
    jobs = [executor.submit(lambda: text, name=f"n{n}", value=[value]) for n, value in enumerate(values)]
    text = text.replace("${value}", '"${value}"')
    jobs += [
        executor.submit(lambda: text, name=f"m{n}", value=value) for n, value in enumerate(["", "x", "functions."])
    ]
    text = text.replace('"${value}"', "true")
    jobs.append(executor.submit(lambda: text, name="last"))
    assert len(executor.qcgpj_manager.list()) == 11
    (tmp_path / "go").touch()
    assert all(job.result(20) for job in (ordinary, *jobs))
    assert names(executor) == ["holds", "first", *(f"n{n}" for n in range(5)), "m0", "m1", "m2", "last"]


# ---- workers without calls


def test_idle_workers_give_their_cores_to_a_job_and_to_another_pool(on_cores):
    executor = on_cores(2)
    pool, wide = executor.functions(idle_seconds=1000), executor.functions(cores=2, idle_seconds=1000)
    for turn in range(2):
        assert list(pool.map(abs, range(-4, 0))) == [4, 3, 2, 1]
        job = executor.submit(ScriptTemplate, name=f"job{turn}", script="true", cores=2)
        assert job.result(30) == {f"job{turn}": "SUCCEED"}
        assert wide.submit(pow, 2, 3).result(30) == 8


def test_many_pools_with_a_call_each(on_cores):
    executor = on_cores(2)
    pools = [executor.functions(idle_seconds=1000) for _ in range(12)]
    futures = [pool.submit(pow, 2, number) for number, pool in enumerate(pools)]
    assert [future.result(60) for future in futures] == [2**number for number in range(12)]


def test_idle_workers_stay_when_nobody_waits(on_cores):
    executor = on_cores(3)
    pool = executor.functions(2, idle_seconds=1000)
    list(pool.map(abs, range(10)))
    for number in range(3):
        executor.submit(BasicTemplate, name=f"job{number}", exec="sleep", args=["0.3"]).result(30)
    list(pool.map(abs, range(10)))
    assert sum(name.startswith("functions.") for name in names(executor)) <= 2


def test_a_worker_that_waits_without_a_call_keeps_nobody_out(on_cores, tmp_path, gate, wait_until):
    executor = on_cores(2)
    held = executor.functions(1).submit(gate.wait)
    wait_until(gate.is_waited_for)
    pool = executor.functions(idle_seconds=1000)
    assert list(pool.map(abs, range(-40, 0))) == [*range(40, 0, -1)]  # by one worker; another one waits for a core
    assert executor.submit(BasicTemplate, name="job", exec="true").result(30) == {"job": "SUCCEED"}
    assert pool.submit(pow, 2, 3).result(30) == 8
    gate.open()
    assert held.result(30) is None


# ---- workers with calls


@pytest.mark.parametrize("cores", [1, 2])
def test_a_pool_with_many_calls_lets_a_job_in(on_cores, cores):
    executor = on_cores(2)
    pool = executor.functions()
    futures = [*many_calls(pool), *many_calls(pool)]
    futures[0].result(30)
    job = executor.submit(ScriptTemplate, name="job", script="true", cores=cores)
    assert job.result(60) == {"job": "SUCCEED"}
    assert not futures[-1].done()
    assert [future.result(60) for future in futures] == [None] * len(futures)


def test_a_pool_that_lets_jobs_in_goes_on_between_them(on_cores):
    executor = on_cores(1)
    futures = many_calls(executor.functions())
    futures[0].result(30)
    jobs = [executor.submit(BasicTemplate, name=f"job{number}", exec="sleep", args=["0.2"]) for number in range(30)]
    done = []
    for job in jobs[:3]:
        job.result(60)
        done.append(sum(future.done() for future in futures))
    assert done[0] < done[1] < done[2] < len(futures)
    assert [future.result(60) for future in futures] == [None] * len(futures)
    assert not jobs[-1].done()


def test_two_pools_with_many_calls_take_turns(on_cores):
    executor = on_cores(1)
    first, second = (many_calls(executor.functions()) for _ in range(2))
    second[0].result(60)
    assert not first[-1].done()
    first[-1].result(60)
    second[-1].result(60)


def test_a_job_that_cannot_start_takes_the_cores_of_no_pool(on_cores, gate, wait_until):
    executor = on_cores(2)
    held = executor.functions(1).submit(gate.wait)
    wait_until(gate.is_waited_for)
    futures = many_calls(executor.functions(1))
    futures += many_calls(executor.functions(1))
    wide = executor.submit(ScriptTemplate, name="wide", script="true", cores=2)
    assert [future.result(120) for future in futures] == [None] * len(futures)
    assert not wide.done()
    gate.open()
    assert held.result(30) is None
    assert wide.result(30) == {"wide": "SUCCEED"}


def test_an_array_comes_in_one_iteration_at_a_time(on_cores):
    executor = on_cores(1)
    futures = many_calls(executor.functions())
    futures[0].result(30)
    array = executor.submit(
        lambda: (
            '{"name": "array", "iteration": {"stop": 3}, "execution": {"exec": "true"}, "resources": {"numCores": 1}}'
        )
    )
    assert [future.result(60) for future in futures] == [None] * len(futures)
    assert array.result(60) == {"array": "SUCCEED"}
