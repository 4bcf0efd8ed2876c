"""How long a job, a call or an allocation may take: the ways in which a walltime may be written."""

from datetime import timedelta
from fractions import Fraction
from importlib.util import find_spec

import pytest

from qcg.pilotjob.executor_api import (
    Allocation,
    InvalidJob,
    InvalidOption,
    IterationTemplate,
    JobFailed,
    ParallelTemplate,
    QCGPJExecutor,
    ScriptTemplate,
)
from qcg.pilotjob.executor_api._allocation.own_allocation import wanted
from qcg.pilotjob.executor_api._description.validation import validated
from qcg.pilotjob.executor_api._description.walltimes import as_manager_has_it, seconds_in

WRITTEN = {
    "90": 90, "0600": 600, "0.5": 0.5, 90: 90, 0.5: 0.5, 1.5: 1.5, Fraction(7, 2): 3.5,
    "1h": 3600, "1.5h": 5400, "0.1m": 6, "1h30m": 5400, "90s": 90, "1d": 86400, "1d12h": 129600, "2d1s": 172801,
    "01:30:00": 5400, "1:30:00": 5400, "100:00:00": 360000, "0:00:30": 30, "0:00:00.5": 0.5,
    "1-00:00:00": 86400, "1-12:00:00": 129600, "10-1:02:03": 867723,
    timedelta(hours=1.5): 5400, timedelta(milliseconds=500): 0.5, timedelta(days=2, seconds=1): 172801,
}  # fmt: skip


@pytest.mark.parametrize("walltime", WRITTEN, ids=repr)
def test_the_seconds_of_a_walltime(walltime):
    assert seconds_in(walltime) == pytest.approx(WRITTEN[walltime])
    assert seconds_in(str(walltime) if isinstance(walltime, timedelta) else walltime) == seconds_in(walltime)


@pytest.mark.parametrize("walltime", ["1h", "90s", "10m", "1h30m", "1h2m3s", "0h1s", "60m"])
def test_what_the_manager_takes_stays_as_it_is(walltime):
    assert as_manager_has_it(walltime) == walltime


@pytest.mark.parametrize(
    ("walltime", "sent"),
    [(600, "10m"), ("0.5", "1s"), (5401, "1h30m1s"), ("1.1h", "1h6m"), ("1-00:00:00", "24h"), ("0.3s", "1s")],
)
def test_other_ways_become_whole_seconds_rounded_up(walltime, sent):
    job = {"name": "a", "execution": {"exec": "true"}, "resources": {"wt": walltime}}
    assert validated(job, None)["resources"]["wt"] == sent


@pytest.mark.parametrize(
    ("walltime", "said"),
    [
        ("10:30", r"write '10m30s' or '10h30m'$"),
        ("soon", "write seconds, like 90, or '1h30m', '01:30:00', '1-00:00:00' with the days before it$"),
        *((bad, "write seconds, like 90") for bad in (
            "1m1h", "-1s", "1 h", "h", "1h\n", "1:60:00", "1:00:61", "1:00:100", "1-24:00:00", "1-0", "1e3", "\u0663s",
            ".", [90], True, "1H", "-1", str(timedelta(-1)),
        )),
        *((nothing, "write more than 0, or leave it out for no limit$") for nothing in (
            0, -5, "0", "0s", "0h0m", "0:00:00", timedelta(0), timedelta(-1),
        )),
        *((endless, "leave it out for no limit$") for endless in (
            float("inf"), float("nan"), 10**11, "9" * 400, "9" * 5000 + "h", "99999999999:00:00", timedelta.max,
        )),
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_is_none_is_refused_with_what_to_write(walltime, said):
    job = {"name": "a", "execution": {"exec": "true"}, "resources": {"wt": walltime}}
    with pytest.raises(InvalidJob, match=said) as refused:
        validated(job, None)
    assert refused.value.path == ("resources", "wt")
    if find_spec("psij") is None:  # looked for only: what it imports starts a thread
        pytest.skip("psij is not installed")
    with pytest.raises(InvalidOption, match=f"Allocation's walltime is .*{said}"):
        wanted(Allocation(walltime=walltime, scheduler="local"))


@pytest.mark.parametrize("walltime", ["45s", 45, "45", "0:00:45", timedelta(seconds=45)], ids=repr)
def test_an_allocation_takes_the_same(walltime):
    if find_spec("psij") is None:
        pytest.skip("psij is not installed")
    assert wanted(Allocation(walltime=walltime, scheduler="local"))["seconds"] == 45


@pytest.mark.parametrize("walltime", [1, 0.4, "1", "0:00:01", timedelta(seconds=1)], ids=repr)
def test_jobs_end_when_it_is_over(tmp_path, walltime):
    templates = {
        ScriptTemplate: {"script": "sleep 1000"},
        ParallelTemplate: {"exec": "sleep", "args": [1000]},
        IterationTemplate: {"exec": "sleep", "args": [1000], "stop": 1},
    }
    bare = "{'name': 'bare', 'execution': {'exec': 'sleep', 'args': [1000]}, 'resources': {'wt': ${walltime}}}"
    with QCGPJExecutor(wd=tmp_path, resources=4) as executor:
        ends = [
            executor.submit(template, values, name=template.__name__, walltime=walltime)
            for template, values in templates.items()
        ]
        if not isinstance(walltime, (str, timedelta)):
            ends.append(executor.submit(lambda: bare, walltime=walltime))
        for end in ends:
            with pytest.raises(JobFailed, match=r"walltime of 0:00:01 is over"):
                end.raise_for_status(60)


def test_calls_of_functions_take_the_same(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        assert executor.functions(walltime=timedelta(minutes=1)).submit(pow, 2, 3).result(60) == 8
        assert executor.functions(walltime=60).submit(pow, 2, 3).result(60) == 8
        with pytest.raises(InvalidJob, match=r"the pool's walltime is '10:30', which may be"):
            executor.functions(walltime="10:30")
