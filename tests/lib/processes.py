"""A look at processes that may end at any moment: one that has ended does not live, and has nothing else to say."""

from __future__ import annotations

import os
import time

import psutil

__all__ = [
    "agents",
    "assert_none_left",
    "children",
    "directory",
    "environment",
    "gone",
    "kill",
    "lives",
    "living",
    "name",
    "session",
    "words",
]

# psutil raises FileNotFoundError when the directory of a process in /proc goes between two of its looks
_ENDED = (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, ProcessLookupError)


def _ask(question, otherwise):
    try:
        return question()
    except _ENDED:
        return otherwise


def lives(process):
    """Whether a process, or the one with this process id, has not ended; one that nobody has waited for has."""
    if isinstance(process, int):
        process = _ask(lambda: psutil.Process(process), None)
    return process is not None and _ask(
        lambda: process.is_running() and process.status() != psutil.STATUS_ZOMBIE, False
    )


def gone(process):
    """Whether it has ended."""
    return not lives(process)


def name(process):
    """Return its name."""
    return _ask(process.name, "")


def words(process):
    """Return the words of its command."""
    return _ask(process.cmdline, [])


def environment(process):
    """Return the environment that it was started with."""
    return _ask(process.environ, {})


def directory(process):
    """Return the directory that it works in."""
    return _ask(process.cwd, "")


def session(process):
    """Return the id of its session; 0 is nobody's."""
    return _ask(lambda: os.getsid(process.pid), 0)


def kill(process):
    """End it, if it has not ended."""
    _ask(process.kill, None)


def children(process):
    """Return what comes from it, and lives."""
    return [each for each in _ask(lambda: process.children(recursive=True), []) if lives(each)]


def living(**variables):
    """Return the processes of this machine that live and have these variables in their environment."""

    def wanted(process):
        found = environment(process)
        return all(found.get(key) == value for key, value in variables.items()) and lives(process)

    return [process for process in psutil.process_iter() if wanted(process)]


def assert_none_left(directory):
    """Wait for the ends of all processes that have a path in this directory in their command; fail after 40 s."""

    def left():
        return [process for process in living() if any(str(directory) in word for word in words(process))]

    end = time.monotonic() + 40
    while left() and time.monotonic() < end:
        time.sleep(0.01)
    assert list(map(words, left())) == []


def agents(node, **variables):
    """Return the guard of a node's agent, and then the agent: neither their srun, nor the process that starts jobs."""
    found = [process for process in living(**variables) if words(process)[-2:] == ["qcgpj-agent", node]]
    found = [process for process in found if name(process) not in ("", "srun", "qcgpj-starter")]
    return sorted(found, key=lambda process: (process.create_time(), process.pid))
