"""The agent on a node of an allocation: starts the jobs that the manager sends there, and ends them.

::

    manager's node                     node
    --------------                     ---------------------------------------------------------------
    nodes.NodeLink -- stdin of srun -> guard: waits for the agent's end, kills what that leaves behind
                   <- stdout of srun - agent: in a session of its own; processes.Children -> the jobs

srun's own streams carry the messages (see _agent/messages.py), so no port is opened, and Slurm sees to it that nobody
else speaks there. The end of standard input means that the manager has gone, however it went: the agent ends its jobs
and itself.

To the agent: ``{"run": id, ...}``, ``{"end": id, "grace": seconds}`` and ``{"sweep": id}`` (end what is left here of a
job whose first process has ended, on whichever node), each answered with ``{"did": id}``, the first with the ``"pid"``
too; when the start takes long, that comes behind the answer, with ``"late": true``. From it: ``{"ready": {...}}``
first, with the cores and the GPUs (see _processes/resources.py); ``{"ended": id, "code": n}`` for each job, with
``"blames_node": true`` for one that has not started here and may elsewhere; ``{"swept": id}`` when nothing of a job is
left here; ``{"leaving": reason}`` before it ends its jobs by itself; what it does not report after that went with the
node.

What ``srun`` or a daemon of MPI has started for a job does not come from the agent, so only the mark in the environment
of a process tells whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

import psutil

from qcg.pilotjob.executor_api._agent.messages import Lines
from qcg.pilotjob.executor_api._processes import descendants
from qcg.pilotjob.executor_api._processes.children import Child, Children
from qcg.pilotjob.executor_api._processes.cpus import parse_cpus
from qcg.pilotjob.executor_api._processes.descendants import become_subreaper, kill_descendants, kill_marked
from qcg.pilotjob.executor_api._processes.resources import find_cores, gpus_here
from qcg.pilotjob.executor_api._processes.run_times import Measures
from qcg.pilotjob.executor_api._processes.spawning import NODE, NOT_EXECUTABLE, CannotStart, Order
from qcg.pilotjob.executor_api._processes.starter import fork_starter
from qcg.pilotjob.executor_api._shared.proc import kill_jobs_of
from qcg.pilotjob.executor_api._shared.python_process import take_standard_input

__all__ = ["Sweeper"]

_logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LATE_SECONDS = 5.0  # after which an order is answered although the start has not returned: a file system may hang
_ANSWER_DELAY = 0.1  # seconds in which the end of a short job can go with the answer
ORPHAN_GRACE = 0.5  # seconds between SIGTERM and SIGKILL for jobs whose manager, or node, is going


def main(orders: Dict[str, Any]) -> None:
    """Run an agent until the manager closes its standard input or a signal ends it.

    `orders` holds ``name`` (the node's), ``address`` (the manager's, which marks its jobs), ``env`` (what the jobs'
    environments differ from), ``umask`` (the jobs'), ``log_level``, ``granted`` (what the scheduler says of this node),
    ``earlier`` (the sockets of a manager that was killed, whose agent and jobs may still be here),
    ``run_times`` and ``process_times`` (whether to measure), ``wrapper`` (what measures run times) and ``wd`` (where
    measurements go).
    """
    os.umask(orders["umask"])
    logging.basicConfig(level=orders["log_level"].upper(), format="%(asctime)-15s: %(message)s")
    left = kill_jobs_of(orders["earlier"]) if orders["earlier"] else []
    if left:
        sys.exit(f"what an earlier manager has left on this node does not end after SIGKILL: {left}")
    found = find_cores(**orders["granted"])
    gpus = gpus_here(os.environ, found, orders["granted"])
    _fork_guarded(QCG_PM_ZMQ_ADDRESS=orders["address"], SLURMD_NODENAME=orders["name"])
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # what is blocked here would be blocked in every job
    starter = fork_starter(orders["env"], umask=orders["umask"])
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    NodeAgent(orders, {**found.report, "gpus": gpus}, loop, starter).run()
    os._exit(0)


def _fork_guarded(**marks: str) -> None:
    """Return in a child, in a session of its own; the parent stays behind as its guard.

    Slurm may track the processes of a step by their group, which jobs leave. So neither a SIGKILL for the agent nor one
    for what Slurm takes for the step may leave jobs behind: the guard outlives the first, the agent the second. `marks`
    are those of processes that Slurm has started here for jobs; it does not end them when srun is killed.
    """
    become_subreaper()
    guard = os.getpid()
    agent = os.fork()
    if agent == 0:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != guard:
            os._exit(1)
        return

    def terminate(*_: Any) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended this moment
            os.kill(agent, signal.SIGTERM)

    for number in _SIGNALS:
        signal.signal(number, terminate)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    code = os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1])
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _collect_rest()
    kill_marked(**marks)
    if code < 0:  # so that srun can tell what has ended the agent
        with contextlib.suppress(OSError):  # SIGKILL has no handler to set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(guard, -code)
    os._exit(code)


def _collect_rest() -> None:
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            kill_descendants()
            os.waitpid(-1, 0)


class NodeAgent:
    """Runs jobs on this node as the manager says.

    In place of the core's agent, which ends a job's direct child only, loses a cancel that comes before there is one,
    outlives its manager, and takes orders on a TCP port from whoever sends them. Can go when that one does none of it.
    """

    def __init__(
        self,
        orders: Dict[str, Any],
        found: Dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        starter: Tuple[int, socket.socket],
    ) -> None:
        self._loop = loop
        self._found = found
        self._children = Children(loop, *starter)
        self._children.on_starter_lost = self._starter_lost
        self._children.on_failure = lambda error: self._fail(f"it failed: {error!r}")
        self._jobs: Dict[str, Child] = {}
        self._leaving = False
        self._is_told_to_end = False
        self._measures = Measures(orders, loop)
        self._sweeper = Sweeper(loop, lambda job: self._lines.send({"swept": job}))
        self._lines = Lines(loop, *_take_streams(), self._handle, self._leave, to_agent=False)
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._terminated, number)
            # the loop reads before it calls that: one that was stopped and goes on would begin with old orders
            signal.signal(number, self._note_end)

    def run(self) -> None:
        """Serve until the manager, or this node, is going and no job is left."""
        self._lines.send({"ready": self._found})
        try:
            self._loop.run_forever()
        finally:
            self._lines.close()
            self._children.close()
            self._measures.close()

    def _handle(self, message: Dict[str, Any]) -> None:
        if self._leaving or self._is_told_to_end:
            return
        if "run" in message:
            try:
                self._start(message["run"], message)
            except Exception as error:
                _logger.exception("an order could not be followed")
                self._jobs.pop(message["run"], None)
                self._lines.send({"did": message["run"]})
                self._lines.send({"ended": message["run"], "code": NOT_EXECUTABLE, "message": f"cannot start: {error}"})
        elif "end" in message:
            job = message["end"]
            if job in self._jobs:  # otherwise it has ended meanwhile: what starts it came before this, in order
                self._children.end(self._jobs[job], message["grace"])
            self._lines.send({"did": job}, _ANSWER_DELAY)
        elif "sweep" in message:
            self._sweeper.sweep(message["sweep"])
            self._lines.send({"did": message["sweep"]}, _ANSWER_DELAY)

    def _start(self, job: str, order: Dict[str, Any]) -> None:
        name: str = order["name"]
        env: Dict[str, Optional[str]] = order["env"]
        command = self._measures.wrapped(order["command"], env, name)
        cpus = frozenset(parse_cpus(",".join(order["cores"]))) if self._found["binds"] else frozenset()

        answers = [{"did": job}]  # one is due
        late = self._loop.call_later(_LATE_SECONDS, lambda: self._lines.send(answers.pop()))

        def started() -> None:
            late.cancel()
            self._lines.send({"did": job, "pid": child.pid, **({} if answers else {"late": True})}, _ANSWER_DELAY)

        def failed(error: CannotStart) -> None:
            late.cancel()
            if answers:
                self._lines.send(answers.pop())
            self._ended(job, error.exit_code, message=str(error), blames_node=error.blames == NODE)

        def ended(code: int) -> None:
            assert child.started is not None
            assert child.ended is not None
            self._measures.ended(name, child.started, child.ended)
            self._ended(job, code)

        child = self._jobs[job] = Child(job, ended, started, failed)
        self._children.start(Order(command, order["cwd"], env, order["files"], cpus), child)

    def _ended(self, job: str, code: int, **more: Any) -> None:
        del self._jobs[job]
        if not self._leaving:
            self._lines.send({"ended": job, "code": code, **more})
        elif not self._jobs:
            self._loop.stop()

    def _note_end(self, *_: Any) -> None:
        self._is_told_to_end = True

    def _terminated(self, number: signal.Signals) -> None:
        self._fail(f"its agent got {number.name}")

    def _starter_lost(self) -> None:
        self._fail("the process that starts jobs has ended")

    def _fail(self, reason: str) -> None:
        self._lines.send({"leaving": reason})
        self._leave()

    def _leave(self) -> None:
        self._leaving = True
        for child in list(self._jobs.values()):  # those of which the end is heard of meanwhile are taken out
            self._children.end(child, ORPHAN_GRACE)
        if not self._jobs:
            self._loop.stop()


def _take_streams() -> Tuple[int, int]:
    """Move the manager's two streams out of the reach of jobs and of stray prints."""
    streams = take_standard_input(), os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return streams


_GATHER_SECONDS = 0.002  # one look, which is at every process there is, is for all jobs that end meanwhile
_AGAIN_SECONDS = 0.02
_TERM_SECONDS = 1.0  # for a daemon of MPI to clean up; its job has ended
_GIVE_UP_SECONDS = _TERM_SECONDS + descendants.LINGER_SECONDS + 1.0  # for what not even SIGKILL ends


class Sweeper:
    """Ends the processes of jobs on this node, and tells when none is left. Belongs to the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_swept: Callable[[str], None]) -> None:
        """`on_swept` gets the mark of each job of which nothing is left."""
        self._loop = loop
        self._on_swept = on_swept
        self._since: Dict[str, float] = {}
        self._timer: Optional[asyncio.TimerHandle] = None

    def sweep(self, job: str) -> None:
        """End what has the mark `job`: with SIGTERM, and what is left a second later with SIGKILL."""
        self._since.setdefault(job, self._loop.time())
        self._look_in(_GATHER_SECONDS)

    def _look_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        found = descendants.all_marked(set(self._since))
        for job, processes in found.items():
            age = now - self._since[job]
            if processes and age > _GIVE_UP_SECONDS:
                _logger.warning("processes %s do not end after SIGKILL", [process.pid for process in processes])
            if not processes or age > _GIVE_UP_SECONDS:
                del self._since[job]
                self._on_swept(job)
            else:
                _signal(processes, signal.SIGTERM if age < _TERM_SECONDS else signal.SIGKILL)
        if self._since:
            self._look_in(_AGAIN_SECONDS)


def _signal(processes: List[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        descendants.send(process, number)
