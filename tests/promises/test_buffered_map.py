"""``map(buffersize=)``, of jobs and of functions, on every Python."""

import concurrent.futures
import gc
import itertools
import operator
import weakref

import pytest

from qcg.pilotjob.executor_api import BasicTemplate, ExecutorClosed, JobRefused, QCGPJExecutor, ScriptTemplate

DEADLINE = 20


class Jobs:
    """Jobs whose results are told as their numbers."""

    def __init__(self, executor):
        self.pool = executor

    def map(self, numbers, **options):
        jobs = ({"name": f"m{n}", "exec": "true"} for n in numbers)
        told = self.pool.map(BasicTemplate, jobs, timeout=DEADLINE, **options)
        return (int(name[1:]) for result in told for name in result)


class Calls:
    """Calls of a function that returns its number."""

    def __init__(self, executor):
        self.pool = executor.functions()

    def map(self, numbers, **options):
        return self.pool.map(operator.pos, numbers, timeout=DEADLINE, **options)


@pytest.fixture(params=[Jobs, Calls])
def pool(request, executor):
    return request.param(executor)


@pytest.mark.parametrize("chunksize", [1, 3])
@pytest.mark.parametrize("buffersize", [1, 2, 10, 100])
def test_all_values_come_in_order(pool, buffersize, chunksize):
    assert list(pool.map(range(10), buffersize=buffersize, chunksize=chunksize)) == list(range(10))


def test_nothing_comes_of_nothing(pool):
    assert list(pool.map([], buffersize=2)) == []


@pytest.mark.parametrize("buffersize", [1, 3])
def test_no_more_is_read_than_fits_into_the_buffer(pool, buffersize):
    read = []
    endless = (read.append(n) or n for n in itertools.count())
    values = pool.map(endless, buffersize=buffersize)
    assert len(read) == buffersize
    for n in range(8):
        assert next(values) == n
        assert len(read) <= n + buffersize
    values.close()


def test_a_buffer_of_chunks_counts_chunks(executor):
    read = []
    endless = (read.append(n) or n for n in itertools.count())
    values = executor.functions().map(operator.pos, endless, chunksize=5, buffersize=2)
    assert len(read) == 10
    assert list(itertools.islice(values, 5)) == list(range(5))
    assert len(read) == 10
    assert next(values) == 5
    assert len(read) == 15


def test_several_iterables_end_with_the_shortest(executor):
    assert list(executor.functions().map(operator.add, range(5), itertools.count(), buffersize=2)) == [0, 2, 4, 6, 8]
    common = itertools.repeat({"exec": "true"})
    own = ({"name": f"m{n}"} for n in range(5))
    told = executor.map(BasicTemplate, common, own, timeout=DEADLINE, buffersize=2)
    assert list(told) == [{f"m{n}": "SUCCEED"} for n in range(5)]


@pytest.mark.parametrize(
    ("buffersize", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), ("a", TypeError)]
)
def test_a_meaningless_size_is_told_before_anything_is_read(pool, buffersize, error):
    numbers = iter(range(4))
    with pytest.raises(error, match="buffersize must be"):
        pool.map(numbers, buffersize=buffersize)
    assert next(numbers) == 0


def test_an_exception_comes_at_its_turn_and_cancels_the_rest(executor):
    jobs = [{"name": f"m{n}", "script": "true" if n < 2 else "exec sleep 1000"} for n in range(6)]
    jobs[2]["after"] = ["nobody"]
    values = executor.map(ScriptTemplate, jobs, timeout=DEADLINE, buffersize=3)
    assert [next(values), next(values)] == [{"m0": "SUCCEED"}, {"m1": "SUCCEED"}]
    with pytest.raises(JobRefused, match="m2"):
        next(values)
    assert list(values) == []
    assert executor.attach("m3", "m4").cancelled()
    assert executor.record().summary().jobs == 4  # m5 was never submitted, m2 not taken


def test_it_gives_up_in_time_and_cancels_the_rest(executor):
    jobs = ({"name": f"m{n}", "script": "exec sleep 1000"} for n in itertools.count())
    with pytest.raises(concurrent.futures.TimeoutError, match="m0"):
        next(executor.map(ScriptTemplate, jobs, timeout=0.1, buffersize=2))
    assert executor.attach("m0", "m1").cancelled()


def test_an_iterator_that_is_left_half_way_cancels_the_rest(executor):
    jobs = ({"name": f"m{n}", "script": "exec sleep 1000" if n else "true"} for n in itertools.count())
    values = executor.map(ScriptTemplate, jobs, timeout=DEADLINE, buffersize=2)
    assert next(values) == {"m0": "SUCCEED"}
    del values
    assert executor.attach("m1").cancelled()


def test_no_value_is_missing_when_nobody_else_holds_the_executor(tmp_path):
    executor = QCGPJExecutor(wd=tmp_path, resources=2)
    look = weakref.ref(executor)
    values = Jobs(executor).map(range(6), buffersize=2)
    del executor
    gc.collect()
    assert list(values) == list(range(6))
    del values
    assert look() is None


def test_what_cannot_be_submitted_any_more_is_an_error_not_an_end(pool):
    values = pool.map(range(6), buffersize=2)
    pool.pool.shutdown()
    with pytest.raises(ExecutorClosed):
        list(values)
