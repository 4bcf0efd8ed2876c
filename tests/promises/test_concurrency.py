"""Many threads, many jobs, many executors."""

import asyncio
import concurrent.futures
import gc
import multiprocessing
import os
import sys
import threading
import weakref

import psutil
import pytest

from qcg.pilotjob.executor_api import BasicTemplate, ExecutorClosed, QCGPJExecutor, ScriptTemplate
from qcg.pilotjob.executor_api._processes.resources import local_cpus


def test_submit_from_32_threads(executor):
    def submit_ten(thread):
        return [executor.submit(BasicTemplate, name=f"t{thread}-{n}", exec="true") for n in range(10)]

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        futures = [future for made in pool.map(submit_ten, range(32)) for future in made]
    assert [future.result(60) for future in futures] == [{future.ids[0]: "SUCCEED"} for future in futures]


def test_threads_ask_all_kinds_of_things_at_once(executor):
    def work(thread):
        future = executor.submit(BasicTemplate, name=f"t{thread}", exec="true")
        executor.qcgpj_manager.resources()
        future.status()
        future.info()
        cancelled = future.cancel() if thread % 3 == 0 else False
        return future.status() == {f"t{thread}": "CANCELED"} if cancelled else future.result(60)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(48)))


def test_submit_from_a_done_callback(executor):
    chain = []
    finished = threading.Event()

    def go_on(future):
        chain.append(future.result())
        if len(chain) == 20:
            finished.set()
        else:
            executor.submit(BasicTemplate, name=f"c{len(chain)}", exec="true").add_done_callback(go_on)

    executor.submit(BasicTemplate, name="c0", exec="true").add_done_callback(go_on)
    assert finished.wait(30)
    assert chain == [{f"c{n}": "SUCCEED"} for n in range(20)]


def test_submit_from_an_asyncio_program(executor):
    async def one(number):
        future = executor.submit(BasicTemplate, name=f"a{number}", exec="true")
        return await asyncio.wrap_future(future)

    async def main():
        return await asyncio.gather(*(one(number) for number in range(50)))

    assert asyncio.run(main()) == [{f"a{n}": "SUCCEED"} for n in range(50)]


def test_what_an_asyncio_program_does_with_a_result_changes_no_state(executor):
    future = executor.submit(BasicTemplate, name="a", exec="true")

    async def main():
        (await asyncio.wrap_future(future)).clear()

    asyncio.run(main())
    assert future.result() == future.status() == {"a": "SUCCEED"}


def test_no_thread_and_no_process_per_future(executor, jobs_of):
    manager = psutil.Process(executor._connection.dispatcher.link.process.pid)
    threads = threading.active_count()
    futures = [executor.submit(BasicTemplate, name=f"n{n}", exec="true") for n in range(300)]
    most = 0
    for future in concurrent.futures.as_completed(futures, timeout=60):
        assert future.result()
        assert threading.active_count() == threads
        most = max(most, len(jobs_of(manager)))
    assert most <= 5  # four cores, and one that has just ended
    assert manager.num_threads() <= 4  # its own, and those of ZeroMQ
    (starter,) = manager.children()
    assert starter.num_threads() <= 5  # its own, and one for each core


def test_two_executors_in_one_process_and_directory(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as one, QCGPJExecutor(wd=tmp_path, resources=1) as two:
        futures = [executor.submit(BasicTemplate, name="same", exec="true") for executor in (one, two)]
        assert [future.result(20) for future in futures] == [{"same": "SUCCEED"}] * 2
    assert len(list(tmp_path.glob(".qcgpjm-service-*"))) == 2


def test_a_second_executor_that_uses_the_same_cores_says_so(tmp_path, capfd):
    cpus = local_cpus().number
    with QCGPJExecutor(wd=tmp_path, resources=cpus) as one:
        process = one._connection.dispatcher.link.process
        assert "another executor" not in capfd.readouterr().err
        with QCGPJExecutor(wd=tmp_path, resources=1) as two:
            said = capfd.readouterr().err
            assert said.count("another executor") == 1
            assert f"together they use {cpus + 1} cores in all" in said
            assert f"process {process.pid}, {process.directories.aux}: shut it down" in said
            futures = [executor.submit(BasicTemplate, name="same", exec="true") for executor in (one, two)]
            assert [future.result(20) for future in futures] == [{"same": "SUCCEED"}] * 2
        with QCGPJExecutor(wd=tmp_path / "elsewhere", resources=cpus):
            assert "another executor" not in capfd.readouterr().err
        one.submit(
            ScriptTemplate,
            name="nested",
            script=f"{sys.executable} -W error -c '"
            f'from qcg.pilotjob.executor_api import *; QCGPJExecutor(wd="{tmp_path}", resources={cpus}).shutdown()\'',
        ).raise_for_status(60)
        assert (tmp_path / "nested.err").read_text() == ""
    with QCGPJExecutor(wd=tmp_path, resources=cpus):
        assert "another executor" not in capfd.readouterr().err


def test_executors_that_have_a_part_each_say_nothing(tmp_path, capfd):
    if local_cpus().number < 2:
        pytest.skip("there is one core")
    with QCGPJExecutor(wd=tmp_path, resources=1), QCGPJExecutor(wd=tmp_path, resources=1):
        assert "another executor" not in capfd.readouterr().err


def test_one_executor_after_another_in_one_directory(tmp_path):
    for _ in range(3):
        with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
            assert executor.submit(BasicTemplate, name="same", exec="true").result(20) == {"same": "SUCCEED"}


def test_executors_in_threads(tmp_path):
    def run(number):
        with QCGPJExecutor(wd=tmp_path / str(number), resources=1) as executor:
            return executor.submit(BasicTemplate, name="a", exec="true").result(20)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == [{"a": "SUCCEED"}] * 4


def test_an_executor_made_and_used_inside_a_running_event_loop(tmp_path):
    async def main():
        with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
            return await asyncio.wrap_future(executor.submit(BasicTemplate, name="a", exec="true"))

    assert asyncio.run(main()) == {"a": "SUCCEED"}


def test_an_executor_made_in_one_thread_is_used_in_another(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        executor = pool.submit(QCGPJExecutor, wd=tmp_path, resources=1).result()
    with executor:
        assert executor.submit(BasicTemplate, name="a", exec="true").result(20) == {"a": "SUCCEED"}


def test_the_start_method_of_multiprocessing_is_left_alone(run_script):
    run_script(
        """
        import multiprocessing
        from qcg.pilotjob.executor_api import BasicTemplate, QCGPJExecutor
        multiprocessing.set_start_method("spawn")
        with QCGPJExecutor() as executor:
            executor.submit(BasicTemplate, name="a", exec="true").result(20)
        assert multiprocessing.get_start_method() == "spawn"
        """
    )


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_cannot_use_the_executor_and_does_not_disturb_it(executor):
    def in_child(connection):
        try:
            executor.submit(BasicTemplate, name="child", exec="true")
        except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
            connection.send(repr(error))

    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=in_child, args=(sender,))
    child.start()
    assert receiver.poll(20)
    message = receiver.recv()
    child.join(20)
    assert child.exitcode == 0
    child.close()
    for end in (receiver, sender):
        end.close()
    assert ExecutorClosed.__name__ in message
    assert str(os.getpid()) in message
    assert executor.submit(BasicTemplate, name="parent", exec="true").result(20) == {"parent": "SUCCEED"}


def test_an_abandoned_executor_lets_its_jobs_end_and_goes(tmp_path):
    executor = QCGPJExecutor(wd=tmp_path, resources=1)
    future = executor.submit(ScriptTemplate, name="a", script="sleep 0.2; echo done")
    alive = weakref.ref(executor)
    del executor
    gc.collect()
    assert alive() is None
    assert future.result(20) == {"a": "SUCCEED"}
    assert (tmp_path / "a.out").read_text() == "done\n"


def test_a_future_outlives_its_executor(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        future = executor.submit(BasicTemplate, name="a", exec="true")
    del executor
    assert future.done()
    assert future.result() == {"a": "SUCCEED"}
    assert future.status() == {"a": "SUCCEED"}
    assert future.info()["a"]["runtime"]["exit_code"] == "0"
