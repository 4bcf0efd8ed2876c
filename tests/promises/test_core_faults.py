"""Each fault of the core that we mend, in one scenario: run on the bare core, where it shows, and on ours, where not.

A failure of a ``[core]`` half is good news: the core has changed, and what mends the fault here may go. Faults that
cannot be shown on the bare core every time are not here.
"""

import contextlib
import itertools
import json
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time

import psutil
import pytest
import zmq
from processes import gone, lives
from qcg.pilotjob.api.errors import ConnectionError as CoreConnectionError
from qcg.pilotjob.api.manager import Manager

from qcg.pilotjob.executor_api import InvalidJob, ManagerStartError, QCGPJExecutor

pytestmark = pytest.mark.core

DEADLINE = 30.0
FINAL_STATES = ("SUCCEED", "FAILED", "CANCELED", "OMITTED")
NUMBERS = itertools.count()
# One process instead of a shell, which may outlive a signal that only its child has felt.
WAITER = """
import os, time
open("begun", "w").close()
while not os.path.exists("go"):
    time.sleep(0.005)
open("ended", "w").close()
"""


def job(name, exec="true", *args, **parts):
    return {"name": name, "execution": {"exec": exec, "args": list(args)}, **parts}


def script(name, text, **parts):
    return {"name": name, "execution": {"script": text}, **parts}


def waiter(name):
    return job(name, sys.executable, "-S", "-E", "-c", WAITER)


def within(seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def surely(condition):
    assert within(DEADLINE, condition)


def kill_group(number):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(number, signal.SIGKILL)


class Subject:
    """A manager, spoken to as clients do: JSON through a REQ socket.

    Attributes:
        patience: seconds after which what does not come counts as never coming.
        program: the head of a user's program that starts such a manager.
    """

    patience: float
    program: str
    address: str
    events: str
    process: psutil.Process

    def answer(self, message, deadline=DEADLINE):
        with self._request(message) as socket:
            if not socket.poll(deadline * 1000):
                raise TimeoutError(f"no answer to {str(message)[:100]} within {deadline} s")
            return json.loads(socket.recv())

    @contextlib.contextmanager
    def _request(self, message):
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self.address)
            socket.send(message if isinstance(message, bytes) else json.dumps(message).encode())
            yield socket

    def submit(self, *jobs):
        """Submit by hand, past all that the executor checks; return whether the jobs were taken."""
        return self.answer({"request": "submit", "jobs": list(jobs)})["code"] == 0

    def state(self, name):
        told = self.answer({"request": "jobStatus", "jobNames": [name]})
        return told["data"]["jobs"][name]["data"]["status"]

    def outcome(self, name, deadline=DEADLINE):
        within(deadline, lambda: self.state(name) in FINAL_STATES)
        return self.state(name)

    def cancel(self, name):
        return self.answer({"request": "cancelJob", "jobNames": [name]})["data"]


class Core(Subject):
    """The bare core, started as its documentation says."""

    patience = 2.0
    program = """
        import multiprocessing, os, signal, time
        from qcg.pilotjob.api.job import Jobs
        from qcg.pilotjob.api.manager import LocalManager
        multiprocessing.set_start_method("spawn")
        manager = LocalManager(["--nodes", "2", "--wd", ".", "--log", "critical"], {"wdir": "."})
        pid = manager.qcgpm_process.pid
        def submit(name, exec, *args):
            manager.submit(Jobs().add(name=name, exec=exec, args=list(args)))
    """

    def __init__(self, directory, cores=4, reserve_core=False, resume=None):
        options = ["--system-core"] if reserve_core else []
        options += ["--resume", str(resume)] if resume else []
        self._stack = contextlib.ExitStack()
        self._output = directory / "core.out"
        address = (resume or directory / ".qcgpjm-service-core") / "address"
        address.unlink(missing_ok=True)  # that of the one before
        with self._output.open("wb") as output:
            self._popen = subprocess.Popen(
                [
                    *(sys.executable, "-m", "qcg.pilotjob.service", "--net", "--id", "core", "--log", "critical"),
                    *("--net-port-min", "10000", "--net-port-max", "32000", "--nodes", str(cores), *options),
                ],
                cwd=directory,
                env={**os.environ, "PYTHONWARNINGS": "", "PYTHONDEVMODE": ""},  # its warnings are not ours
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.process = psutil.Process(self._popen.pid)
        try:
            self._connect(address)
        except BaseException:
            self.close()
            raise

    def _connect(self, file):
        self._await(lambda: file.exists() and file.read_text())
        # what it tells is the host's own address; the loopback does, whatever the host's network is
        self.address = re.sub("//.*:", "//127.0.0.1:", file.read_text())
        with self._request({"request": "status"}) as socket:
            self._await(lambda: socket.poll(0))  # one that cannot resume tells its address, and ends
            told = json.loads(socket.recv())["data"]["System"]["StatusPublisher"]
        self.events = re.sub("//.*:", "//127.0.0.1:", told)

    def _await(self, condition):
        surely(lambda: condition() or self._popen.poll() is not None)
        if self._popen.poll() is not None:
            raise RuntimeError(f"the core did not start: {self._output.read_text()}")

    def submit_as_user(self, *jobs):
        return self.submit(*jobs)

    def client(self, directory):
        logger = logging.getLogger("qcg.pilotjob.api")
        self._stack.callback(logger.setLevel, logger.level)
        client = Manager(self.address, {"wdir": str(directory)})
        self._stack.callback(self._close, client)
        return client

    def _close(self, client):
        client.cleanup()
        client._zmq_ctx.destroy(linger=0)

    def end(self):
        self.answer({"request": "control", "command": "finishAfterAllTasksDone"})
        return self._popen.wait(DEADLINE)

    def close(self):
        self._stack.close()
        kill_group(self._popen.pid)  # its jobs with it: it would leave them behind
        self._popen.wait()


class Ours(Subject):
    """Our executor, with the manager that it starts."""

    patience = 20.0
    program = """
        import multiprocessing, os, signal, time
        from qcg.pilotjob.executor_api import *
        multiprocessing.set_start_method("spawn")
        executor = QCGPJExecutor(resources=2)
        pid = executor._connection.dispatcher.link.process.pid
        def submit(name, exec, *args):
            executor.submit(BasicTemplate, name=name, exec=exec, args=list(args))
    """

    def __init__(self, directory, cores=4, reserve_core=False, resume=None):
        self._executor = QCGPJExecutor(wd=directory, resources=cores, reserve_core=reserve_core, resume=resume)
        link = self._executor._connection.dispatcher.link
        self.address, self.events, self._owner = link.address, link.events, link.process
        self.process = psutil.Process(self._owner.pid)

    def submit_as_user(self, *jobs):
        try:
            future = self._executor.submit(lambda: repr(list(jobs)))
        except InvalidJob:
            return False
        future.status()  # submit() does not wait for the manager; this does
        return True

    def client(self, directory):
        return self._executor.qcgpj_manager

    def end(self):
        self._executor.shutdown()
        return self._owner._piped.exit_code()

    def close(self):
        self._executor.__exit__(KeyboardInterrupt, None, None)


def differs(core, ours):
    """Run the scenario twice: on the bare core, where it sees `core`, and on our manager, where it sees `ours`."""
    both = [pytest.param(Core, core, id="core"), pytest.param(Ours, ours, id="ours")]
    return pytest.mark.parametrize(("kind", "seen"), both)


@pytest.fixture
def start(kind, tmp_path):
    """Start the manager; it is ended after the test."""
    with contextlib.ExitStack() as stack:

        def start(**options):
            manager = kind(tmp_path, **options)
            stack.callback(manager.close)
            return manager

        yield start


@pytest.fixture
def program(kind, tmp_path):
    """Start a program of a user's in a process group of its own, as a shell does; returns it and its first line."""
    with contextlib.ExitStack() as stack:

        def start(*parts):
            process = subprocess.Popen(
                [sys.executable, "-u", "-c", "".join(map(textwrap.dedent, (kind.program, *parts)))],
                cwd=tmp_path,
                env={**os.environ, "PYTHONWARNINGS": "", "PYTHONDEVMODE": ""},
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.callback(process.stdout.close)
            stack.callback(process.wait)
            stack.callback(kill_group, process.pid)
            return process, process.stdout.readline().strip()

        yield start


class Listener:
    """A subscriber to a manager's events, who knows that it is one when this is made."""

    def __init__(self, manager, stack, **options):
        self._manager = manager
        self._socket = stack.enter_context(stack.enter_context(zmq.Context()).socket(zmq.SUB))
        for option, value in options.items():
            self._socket.setsockopt(getattr(zmq, option), value)
        self._socket.setsockopt_string(zmq.SUBSCRIBE, "JFI")
        self._socket.setsockopt_string(zmq.SUBSCRIBE, "IFI")
        self._socket.connect(manager.events)
        self.states()

    def states(self):
        """Return the states that events have told since the last call, up to those published before this one."""
        found = {}
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            # events come in their order, so when one of these has come there is none before it to wait for
            probe = f"probe{next(NUMBERS)}"
            assert self._manager.submit(job(probe))
            assert self._manager.outcome(probe) == "SUCCEED"
            while self._socket.poll(50):
                topic, content = self._socket.recv_string().split(" ", 1)
                event = json.loads(content)
                if topic == "JFI":
                    found[event["job"]] = event["state"]
                    if event["job"] == probe:
                        return found
        raise TimeoutError("no event")


@pytest.fixture
def listen():
    with contextlib.ExitStack() as stack:
        yield lambda manager, **options: Listener(manager, stack, **options)


@contextlib.contextmanager
def alarm(seconds, error):
    """Raise `error` in the main thread after a while, as Ctrl-C does."""

    def ring(number, frame):
        raise error

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- states


@differs(core="SUCCEED", ours="FAILED")
def test_the_last_event_of_an_array_tells_the_state_of_the_whole(start, seen, listen, tmp_path):
    """``manager.py: change_job_state`` publishes the state of the iteration that ended last."""
    manager = start()
    listener = listen(manager)
    text = "[ ${it} = 1 ] || exit 1; until [ -e go ]; do sleep 0.01; done"
    assert manager.submit(script("a", text, iteration={"stop": 2}))
    assert manager.outcome("a:0") == "FAILED"
    (tmp_path / "go").touch()
    assert manager.outcome("a") == "FAILED"
    assert listener.states()["a"] == seen


@differs(core=None, ours="CANCELED")
def test_a_client_that_does_not_read_for_a_while_misses_no_event(start, seen, listen, tmp_path):
    """``publisher.py: setup`` leaves the high-water mark at 1000; ``api/manager.py: wait4`` never asks again.

    What the kernel holds for the client comes on top: it takes some 47,000 events of the usual size, or a few thousand
    when their job's name is as long as it is here.
    """
    manager = start(cores=1)
    quick = listen(manager, RCVHWM=0)
    slow = listen(manager, RCVHWM=1, RCVBUF=65536)
    name = "a" * 8000
    assert manager.submit(waiter("blocker"), job(name, iteration={"stop": 4000}))
    manager.cancel(name)
    assert manager.state(name) == "CANCELED"
    (tmp_path / "go").touch()
    quick.states()  # all of them have been published now
    assert slow.states().get(name) == seen


# ---- scheduling


@differs(core="QUEUED", ours="SUCCEED")
@pytest.mark.parametrize(
    "resources",
    [{"numNodes": 1, "numCores": 1, "nodeCrs": {"gpu": 1}}, {"numCores": {"exact": 1.5}}],
    ids=["a GPU that no node has", "half a core"],
)
def test_a_job_whose_resources_cannot_be_had_does_not_stop_the_others(start, seen, resources):
    """``scheduleralgo.py: allocate_job`` raises what ``manager.py: _schedule_loop`` does not expect, and ends by."""
    manager = start()
    manager.submit(job("bad", resources=resources))
    assert manager.submit(job("after"))
    assert manager.outcome("after", manager.patience) == seen


@differs(core="taken, QUEUED", ours="refused")
def test_a_job_as_wide_as_the_machine_is_refused_when_a_core_is_reserved(start, seen):
    """``resources.py: check_min_job_requirements`` looks at all cores, not at those that jobs can have."""
    manager = start(cores=2, reserve_core=True)
    assert fate(manager, job("a", resources={"numCores": {"exact": 2}})) == seen


@differs(core="taken, QUEUED", ours="refused")
@pytest.mark.parametrize("parts", [{"iteration": {"values": []}}, {"dependencies": {"after": ["a"]}}], ids=str)
def test_a_job_that_could_never_end_is_refused(start, seen, parts):
    """``joblist.py: JobIteration`` takes an empty list, ``manager.py: _prepare_jobs`` does not look at dependencies."""
    assert fate(start(), job("a", **parts)) == seen


def fate(manager, hopeless):
    if not manager.submit_as_user(hopeless) and not manager.submit(hopeless):
        return "refused"
    assert manager.submit(job("after"))
    assert manager.outcome("after") == "SUCCEED"  # so nothing is in the way of the other one
    return f"taken, {manager.state('a')}"


@differs(core=False, ours=True)
def test_the_name_of_a_job_that_was_refused_is_free(start, seen):
    """``manager.py: handle_submit_req`` registers jobs before it queues them, and leaves those that cannot be."""
    manager = start()
    bad = {"numCores": {"min": 1, "scheduler": {"no": "name"}}}
    assert not manager.submit(job("a", iteration={"stop": 2}, resources=bad))
    assert manager.submit(job("a")) == seen


# ---- cancelling


@differs(core=1, ours=0)
def test_a_cancelled_job_leaves_no_process(start, seen, tmp_path, jobs_of):
    """``executionjob.py: LocalSchemaExecutionJob.cancel`` ends the direct child only."""
    manager = start()
    assert manager.submit(script("a", "sleep 1000 & echo > begun; wait"))
    surely((tmp_path / "begun").exists)
    running = jobs_of(manager.process)
    assert len(running) == 2
    manager.cancel("a")
    assert manager.outcome("a") == "CANCELED"
    assert sum(map(lives, running)) == seen


@differs(core=True, ours=False)
def test_a_job_that_is_cancelled_before_it_has_a_process_does_not_run(start, seen, tmp_path):
    """``executionjob.py: LocalSchemaExecutionJob.cancel`` does nothing as long as there is no process.

    Here the manager is busy with the dependencies of others when it has just found that job a core; so the request to
    cancel it is most likely the next thing that it looks at.
    """
    after = [f"wide:{number}" for number in range(2000)]
    jobs = [
        script("a", f"sleep {1 if seen else 60}; echo > ended"),  # where nothing ends it, it has to end
        job("wide", iteration={"stop": len(after)}, resources={"numCores": {"exact": 2}}),
        *(job(f"busy{number}", dependencies={"after": after}) for number in range(40)),
    ]
    for _ in range(10 if seen else 1):  # on a busy machine the request may come too late for the fault, or for the job
        (tmp_path / "ended").unlink(missing_ok=True)
        manager = start(cores=2)
        assert manager.submit(*jobs)
        manager.cancel("a")
        told = manager.outcome("a"), (tmp_path / "ended").exists()
        if told == ("CANCELED", seen):
            break
        manager.close()
    assert told == ("CANCELED", seen)


@differs(core={"a": "Job a already canceled"}, ours={})
def test_a_cancel_can_be_repeated(start, seen, tmp_path):
    """``manager.py: cancel_job`` refuses the second one, also when the first one has not ended the job."""
    manager = start()
    assert manager.submit(script("a", "trap '' TERM; echo > begun; until [ -e go ]; do sleep 0.01; done"))
    surely((tmp_path / "begun").exists)
    assert "errors" not in manager.cancel("a")
    assert manager.cancel("a").get("errors", {}) == seen
    (tmp_path / "go").touch()
    assert manager.outcome("a") == "CANCELED"


# ---- what a job is made of


@differs(core="FAILED", ours="SUCCEED")
def test_a_value_with_a_quote_does_not_break_its_job(start, seen):
    """``executionjob.py: _replace_job_variables`` pastes values into JSON text."""
    manager = start()
    assert manager.submit(job("a", "test", "${itval}", "=", 'x"', iteration={"values": ['x"']}))
    assert manager.outcome("a") == seen


@differs(core=False, ours=True)
def test_an_iteration_tells_why_it_failed(start, seen):
    """``manager.py: handle_jobinfo_req`` gives the messages of the whole array, which has none."""
    manager = start()
    assert manager.submit(job("a", "/no/such/program", iteration={"stop": 1}))
    assert manager.outcome("a") == "FAILED"
    told = manager.answer({"request": "jobInfo", "jobNames": ["a:0"]})["data"]["jobs"]["a:0"]["data"]
    assert ("/no/such/program" in str(told.get("messages"))) == seen


@differs(core=True, ours=False)
def test_arguments_of_a_job_with_a_venv_are_not_read_by_a_shell(start, seen, tmp_path):
    """``executionjob.py: _resolve_mods_venv`` joins them into a shell's text, without quotes."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").touch()
    manager = start()
    execution = {"exec": "true", "args": ["`touch injected`"], "venv": str(tmp_path / "venv")}
    assert manager.submit_as_user({"name": "a", "execution": execution})
    assert manager.outcome("a") == "SUCCEED"
    assert (tmp_path / "injected").exists() == seen


@differs(core="SUCCEED", ours="FAILED")
def test_a_job_whose_venv_is_not_there_fails(start, seen, tmp_path):
    """``executionjob.py: _resolve_mods_venv`` goes on when a venv cannot be activated."""
    manager = start()
    assert manager.submit_as_user({"name": "a", "execution": {"exec": "true", "venv": str(tmp_path / "nowhere")}})
    assert manager.outcome("a") == seen


@differs(core="SUCCEED", ours="FAILED")
def test_a_job_is_ended_when_its_walltime_is_over(start, seen):
    """``executionschema.py: DirectExecution.preprocess`` does nothing with the walltime."""
    manager = start()
    resources = {"numCores": {"exact": 1}, "wt": "1s"}
    seconds = "2.5" if seen == "SUCCEED" else "60"  # a manager that is late must still find it running
    assert manager.submit_as_user(job("a", "sleep", seconds, resources=resources))
    assert manager.outcome("a") == seen


@differs(core=False, ours=True)
def test_a_job_of_an_mpi_model_is_started_by_mpirun(start, seen, tmp_path):
    """``executionschema.py: DirectExecution.preprocess`` does nothing with the model."""
    mpirun = tmp_path / "mpirun"
    mpirun.write_text("#!/bin/sh\necho > started\n")
    mpirun.chmod(0o755)
    manager = start()
    execution = {"exec": "true", "model": "openmpi", "model_opts": {"mpirun": str(mpirun)}}
    assert manager.submit_as_user({"name": "a", "execution": execution, "resources": {"numCores": {"exact": 2}}})
    assert manager.outcome("a") == "SUCCEED"
    assert (tmp_path / "started").exists() == seen


@differs(core="FAILED", ours="SUCCEED")
def test_a_number_in_the_environment_does_not_fail_its_job(start, seen):
    """``joblist.py: JobExecution`` turns arguments into text, the environment not."""
    manager = start()
    assert manager.submit_as_user({"name": "a", "execution": {"exec": "true", "env": {"THREADS": 2}}})
    assert manager.outcome("a") == seen


# ---- what others can do


@differs(core={"0.0.0.0"}, ours=set())
def test_no_port_is_open_to_other_users_and_hosts(start, seen):
    """``config.py: ZMQ_IP_ADDRESS`` is all interfaces; ``zmqinterface.py`` and ``publisher.py`` ask for no password."""
    connections = start().process.net_connections("inet")
    assert {connection.laddr.ip for connection in connections if connection.status == "LISTEN"} == seen


@differs(core=True, ours=False)
def test_other_users_cannot_read_the_environment(start, seen, tmp_path):
    """``service.py: _setup_logging`` writes it into a file for all to read, in a directory that all can enter."""
    before = os.umask(0o022)  # the usual one
    try:
        start()
    finally:
        os.umask(before)
    (log,) = tmp_path.glob(".qcgpjm-service-*/env.log")
    assert all(stat.S_IMODE(path.stat().st_mode) & stat.S_IROTH for path in (log, log.parent)) == seen


@differs(core="UnicodeEncodeError", ours="it starts")
def test_a_manager_starts_in_an_environment_that_is_not_text(start, seen, monkeypatch):
    """``service.py: _setup_logging`` writes the environment as text."""
    monkeypatch.setitem(os.environb, b"NOT_TEXT", b"\xff")
    try:
        start()
    except RuntimeError as error:
        got = re.search(r"\w+Error", str(error)).group()
    else:
        got = "it starts"
    assert got == seen


@differs(core=False, ours=True)
def test_a_message_that_is_not_json_harms_nobody(start, seen):
    """``zmqinterface.py: receive`` raises, and ``receiver.py: _listen`` takes that for the interface's end."""
    manager = start()
    with contextlib.suppress(TimeoutError):
        manager.answer(b"no JSON", deadline=manager.patience)
    try:
        manager.answer({"request": "status"}, deadline=manager.patience)
    except TimeoutError:
        answered = False
    else:
        answered = True
    assert answered == seen


# ---- the client


@differs(core="nothing, for ever", ours="an error")
def test_a_request_to_a_dead_manager_is_an_error(start, seen, tmp_path):
    """``api/manager.py: _send_and_validate_result`` waits for a reply without end."""
    manager = start()
    client = manager.client(tmp_path)
    manager.process.kill()
    try:
        with alarm(manager.patience, TimeoutError()):
            client.resources()
    except TimeoutError:
        got = "nothing, for ever"
    except CoreConnectionError:
        got = "an error"
    assert got == seen


@differs(core="an error", ours="a reply")
def test_an_interrupted_request_does_not_spoil_the_next_one(start, seen, tmp_path):
    """``api/manager.py: _send_and_validate_result`` leaves its socket waiting for the lost reply."""
    manager = start()
    client = manager.client(tmp_path)
    manager.process.suspend()
    with pytest.raises(KeyboardInterrupt), alarm(2.0, KeyboardInterrupt()):
        client.resources()
    manager.process.resume()
    try:
        assert client.resources()["total_cores"] == 4
    except zmq.ZMQError:
        got = "an error"
    else:
        got = "a reply"
    assert got == seen


@differs(core=(False, False), ours=(True, True))
def test_a_client_leaves_files_and_loggers_of_others_alone(start, seen, tmp_path, monkeypatch):
    """``api/manager.py: _setup_logging`` deletes its log of before, and sets up the logger of the whole process."""
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("qcg.pilotjob.api")
    before = logger.level, list(logger.handlers)
    log = tmp_path / ".qcgpjm-client" / "api.log"
    log.parent.mkdir()
    log.write_text("of another client\n")
    start().client(tmp_path)
    assert ("another" in log.read_text(), (logger.level, logger.handlers) == before) == seen


@differs(core="fork", ours="spawn")
def test_the_users_start_method_of_processes_is_left_alone(program, seen):
    """``api/manager.py: LocalManager`` forks the user's process, threads and all, and has everybody do so."""
    _, told = program("print(multiprocessing.get_start_method())")
    assert told == seen


# ---- ends


@differs(core=False, ours=True)
def test_a_manager_ends_without_sleeping(start, seen):
    """``manager.py: handle_finish_req``, ``service.py: _stop_interfaces`` and ``start`` sleep for 3 s and more."""

    def ends_at_once():
        manager = start()
        began = time.monotonic()
        manager.answer({"request": "finish"})
        surely(lambda: gone(manager.process))
        return time.monotonic() - began < 2.9

    assert any(ends_at_once() for _ in range(5 if seen else 1)) == seen  # on a busy machine one or the other may not


@differs(core=True, ours=False)
def test_a_manager_that_is_terminated_leaves_no_job_behind(start, seen, tmp_path, jobs_of):
    """``service.py: _setup_signals`` knows SIGINT only; ``api/manager.py: LocalManager.finish`` sends SIGTERM."""
    manager = start()
    assert manager.submit(waiter("a"))
    surely((tmp_path / "begun").exists)
    (running,) = jobs_of(manager.process)
    manager.process.terminate()
    surely(lambda: gone(manager.process))
    (tmp_path / "go").touch()
    surely(lambda: gone(running))
    assert (tmp_path / "ended").exists() == seen


@differs(core="goes on", ours="ends")
def test_a_manager_whose_client_was_killed_ends(program, kind, seen):
    """``service.py: QCGPMServiceProcess`` has nothing that would tell it."""
    client, told = program("print(pid); time.sleep(1000)")
    manager = psutil.Process(int(told))
    client.kill()
    client.wait()
    ended = within(kind.patience, lambda: gone(manager))
    if not ended:
        manager.kill()
    assert ("ends" if ended else "goes on") == seen


@differs(core="ended", ours="went on")
def test_a_ctrl_c_that_the_user_handles_does_not_end_the_jobs(program, seen, tmp_path, jobs_of):
    """``api/manager.py: LocalManager`` leaves the manager, and so its jobs, in the group that a terminal signals."""
    (tmp_path / "waiter.py").write_text(WAITER)
    client, told = program(
        """
        import sys
        signal.signal(signal.SIGINT, signal.default_int_handler)
        submit("a", sys.executable, "-S", "-E", "waiter.py")
        try:
            while not os.path.exists("begun"):
                time.sleep(0.005)
            print(pid)
            time.sleep(1000)
        except KeyboardInterrupt:
            open("interrupted", "w").close()
            time.sleep(1000)
        """
    )
    (running,) = jobs_of(psutil.Process(int(told)))
    os.killpg(client.pid, signal.SIGINT)
    surely((tmp_path / "interrupted").exists)
    (tmp_path / "go").touch()
    surely(lambda: gone(running))
    assert ("went on" if (tmp_path / "ended").exists() else "ended") == seen


@differs(core=1, ours=0)
def test_a_manager_whose_directory_is_gone_ends_as_it_should(start, seen, tmp_path):
    """``service.py: _run_service`` skips the rest of its cleaning up when ``reports.py: flush`` fails."""
    manager = start()
    assert manager.submit(job("a"))
    assert manager.outcome("a") == "SUCCEED"
    (directory,) = tmp_path.glob(".qcgpjm-service-*")
    shutil.rmtree(directory)
    assert manager.end() == seen


# ---- interrupted runs


@pytest.fixture
def interrupted(tmp_path):
    """What a manager keeps of an array whose second half has ended."""
    run = tmp_path / ".qcgpjm-service-interrupted"
    run.mkdir()
    array = job("array", "bash", "-c", "echo ${it} >> ran", iteration={"start": 0, "stop": 4})
    (run / "track.reqs").write_text(json.dumps({**array, "resources": {"numCores": {"exact": 1}}}) + "\n")
    ends = [{"task": f"array:{number}", "iteration": number, "state": "SUCCEED"} for number in (2, 3)]
    (run / "track.states").write_text("".join(json.dumps(end) + "\n" for end in ends))
    return run


@differs(core=["2", "3"], ours=["0", "1"])
def test_a_resumed_array_runs_the_iterations_that_have_not_ended(start, interrupted, seen, tmp_path):
    """manager.py: SchedulingJob.__init__ takes as many from the front as have ended."""
    manager = start(cores=1, resume=interrupted)
    assert manager.outcome("array") == "SUCCEED"
    assert sorted((tmp_path / "ran").read_text().split()) == seen


@differs(core=False, ours=True)
def test_a_torn_last_line_does_not_stop_a_resumed_run(start, interrupted, seen):
    """resume.py: StateTracker.resume reads every line, whole or not."""
    with (interrupted / "track.states").open("a") as file:
        file.write('{"task": "arr')
    try:
        started = start(resume=interrupted).outcome("array") == "SUCCEED"
    except RuntimeError:
        started = False
    assert started is seen


@differs(core=True, ours=False)
def test_a_run_whose_manager_lives_is_not_resumed(start, interrupted, seen):
    """service.py: QCGPMService.__init__ looks for no other manager."""
    start(resume=interrupted)
    try:
        start(resume=interrupted)
        resumed = True
    except RuntimeError:
        resumed = False
    assert resumed is seen


def test_the_run_of_a_core_that_lives_is_not_taken_from_it(tmp_path):
    core = Core(tmp_path)
    try:
        assert core.submit(job("a"))
        assert core.outcome("a") == "SUCCEED"
        with pytest.raises(ManagerStartError, match="still listens at tcp://"):
            QCGPJExecutor(resume=tmp_path, resources=1)
    finally:
        core.close()
    with QCGPJExecutor(resume=tmp_path, resources=1) as executor:
        assert executor.attach("a").result(0) == {"a": "SUCCEED"}
