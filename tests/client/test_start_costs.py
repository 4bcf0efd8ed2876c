"""What a start does without: its price is one that every program pays."""

from pathlib import Path

from qcg.pilotjob.executor_api import BasicTemplate, QCGPJExecutor


def test_little_stands_before_the_start_of_the_manager_process(run_script):
    """What takes long to import is imported while that process starts."""
    run_script(
        """
        import concurrent.futures, subprocess, sys  # its classes are derived from; what it imports is Python's
        at_first = set(sys.modules)
        from qcg.pilotjob.executor_api import BasicTemplate, QCGPJExecutor

        class Popen(subprocess.Popen):
            def __init__(self, *args, **options):
                early.update(set(sys.modules) - at_first)
                super().__init__(*args, **options)

        early = set()
        subprocess.Popen = Popen
        QCGPJExecutor(resources=1).shutdown()
        slow = {"asyncio", "dataclasses", "inspect", "json", "pathlib", "shutil", "typing_extensions", "zmq"}
        assert "subprocess" in at_first | early and not slow & early, slow & early
        """
    )


def test_the_manager_loads_what_is_rarely_needed_when_it_is(executor, wait_until, tmp_path):
    def libraries():
        return Path("/proc", str(executor._connection.dispatcher.link.process.pid), "maps").read_text()

    assert executor.submit(BasicTemplate, name="a", exec="true").result(20) == {"a": "SUCCEED"}
    assert "_zmq" in libraries()
    assert "_psutil" not in libraries()
    sleeper = executor.submit(BasicTemplate, name="b", exec="sleep", args=["60"], stdout="b.out")
    wait_until((tmp_path / "b.out").exists)
    assert sleeper.cancel()
    assert "_psutil" in libraries()
    assert "_ssl" not in libraries()


def test_a_manager_on_this_machine_does_without_what_clients_elsewhere_need(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    with QCGPJExecutor(wd=tmp_path) as executor:
        output = executor._connection.dispatcher.link.process.directories.output
    imported = {line.rpartition("|")[2].strip() for line in Path(output).read_text().splitlines()}
    assert "zmq.asyncio" in imported
    assert not {name for name in imported if name.startswith("zmq.auth")}
