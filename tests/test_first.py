"""The first script of the README."""

from qcg.pilotjob.executor_api import BasicTemplate


def test_a_job_runs_and_its_result_comes(executor, tmp_path):
    future = executor.submit(BasicTemplate.template, name="tj", exec="date")
    assert future.result(timeout=20) == {"tj": "SUCCEED"}
    assert (tmp_path / "stdout").read_text().strip()
