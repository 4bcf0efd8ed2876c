"""What the tests see of a process that ends while they look at it."""

import subprocess

import processes
import psutil
import pytest

QUESTIONS = {
    "name": "",
    "words": [],
    "environment": {},
    "directory": "",
    "session": 0,
    "kill": None,
    "children": [],
    "lives": False,
    "gone": True,
}


@pytest.fixture
def sleeper():
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("question", QUESTIONS)
def test_one_that_has_ended_has_nothing_to_say(sleeper, question):
    process = psutil.Process(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    assert getattr(processes, question)(process) == QUESTIONS[question]


def test_one_that_ends_between_two_looks_does_not_live(sleeper, monkeypatch):
    process = psutil.Process(sleeper.pid)
    assert processes.lives(process)
    assert processes.lives(sleeper.pid)

    def look_and_end():
        sleeper.kill()
        sleeper.wait()
        return True

    monkeypatch.setattr(process, "is_running", look_and_end)
    assert not processes.lives(process)
    assert not processes.lives(sleeper.pid)


def test_one_that_nobody_has_waited_for_does_not_live(sleeper, wait_until):
    process = psutil.Process(sleeper.pid)
    assert process in processes.living()
    sleeper.kill()
    wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    assert not processes.lives(process)
    assert processes.environment(process) == {}
    assert process not in processes.living()
