"""What is said when the manager cannot start, and what it advises."""

import pytest

from qcg.pilotjob.executor_api import ManagerStartError, QCGPJExecutor

SLURM = {"SLURM_JOB_ID": "17", "SLURM_NODELIST": "n1", "SLURM_JOB_CPUS_PER_NODE": "2", "SLURM_TASKS_PER_NODE": "2"}


@pytest.fixture
def in_slurm(monkeypatch, tmp_path):
    """Have the variables of Slurm's job 17, and the programs that are written here alone."""
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def write(name, script):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)

    return write


def test_variables_of_slurm_in_a_container_without_it(in_slurm, tmp_path):
    with pytest.raises(ManagerStartError) as caught:
        QCGPJExecutor(wd=tmp_path / "wd")
    said = str(caught.value)
    assert "'scontrol'" in said
    assert "in a container they have to be mounted there" in said
    assert "unset SLURM_JOB_NODELIST and SLURM_NODELIST to use this machine alone" in said
    assert "FileNotFoundError" not in said.splitlines()[0]
    assert "by hand" not in said


def test_the_advice_for_a_container_is_good(in_slurm, tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_NODELIST")
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    QCGPJExecutor(wd=tmp_path / "wd").shutdown()


def test_an_allocation_that_has_ended(in_slurm, tmp_path):
    in_slurm("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    with pytest.raises(ManagerStartError) as caught:
        QCGPJExecutor(wd=tmp_path / "wd")
    said = str(caught.value)
    assert "Invalid job id specified" in said
    assert "start from a new one" in said
    assert "by hand" not in said


def test_outside_slurm_nothing_is_said_of_it(tmp_path):
    with pytest.raises(ManagerStartError) as caught:
        QCGPJExecutor("--no-such-option", wd=tmp_path)
    assert "next: read" in str(caught.value)
    assert "Slurm" not in str(caught.value)
    assert "by hand" not in str(caught.value)
