"""What the core's own ``qcg-pm-report`` (of qcg-pilotjob-cmds) makes of our runs; all of it but the options is in the
core."""

import pytest
from qcg.pilotjob.utils.reportstats import JobsReportStats

from qcg.pilotjob.executor_api import BasicTemplate, IterationTemplate, QCGPJExecutor, ScriptTemplate

# It is the core's source, as it is: patterns with unknown escapes.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")


@pytest.fixture
def statistics(tmp_path):
    """What the tool reads from a run with run times: jobs that succeed and fail, and an array."""
    with QCGPJExecutor(wd=tmp_path, resources=2, enable_rt_stats=True) as executor:
        for name in ("a", "b"):
            executor.submit(BasicTemplate, name=name, exec="sleep", args=["0.1"])
        executor.submit(ScriptTemplate, name="bad", script="exit 3")
        executor.submit(IterationTemplate, name="array", start=0, stop=3, exec="sleep", args=["0.05"])
    return JobsReportStats.from_workdir(str(tmp_path))


def test_it_has_all_jobs_with_their_states_and_places(statistics):
    jobs = statistics.job_stats()["jobs"]
    assert {name: job["state"] for name, job in jobs.items() if name != "array"} == {
        "a": "SUCCEED", "b": "SUCCEED", "bad": "FAILED", "array:0": "SUCCEED", "array:1": "SUCCEED",
        "array:2": "SUCCEED",
    }  # fmt: skip
    assert jobs["bad"]["runtime"]["exit_code"] == "3"
    assert all(job["nodes"] and job["r_time"] for name, job in jobs.items() if name != "array")
    totals = statistics.global_stats()
    assert (totals["total_cores"], totals["total_iterations"], totals["failed_iterations"]) == (2, 6, 1)
    assert totals["service_start"] < statistics.job_stats()["first_start"] < totals["service_finish"]


def test_it_finds_the_times_of_the_processes(statistics):
    assert statistics.has_realtime_stats()
    assert statistics.job_start_finish_launch_overheads()["analyzed_jobs"] == 6
    use = statistics.resource_usage(details=True)
    assert use["total_cores"] == 2
    assert 0 < use["avg_core_utilization"] <= 100
    assert 0 < statistics.efficiency()["avg_core_utilization"] <= 100
    (node,) = use["nodes"]
    assert {job["name"] for core in "01" for job in statistics.allocation_jobs(node, core)} == {
        "a", "b", "bad", "array:0", "array:1", "array:2",
    }  # fmt: skip


def test_its_chart_has_a_bar_for_each_core_of_each_job(statistics):
    chart = statistics._generate_gantt_dataframe("real_start", "real_finish")
    assert (chart["total_jobs"], chart["total_cores"]) == (6, 2)
    assert all(bar["Start"] < bar["Finish"] for bar in chart["chart_data"])
