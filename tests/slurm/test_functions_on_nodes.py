"""Python functions as jobs in a Slurm allocation of two nodes with two cores each."""

import json

import pytest

pytestmark = pytest.mark.slurm

BEGIN = """
    import json, os, socket, time
    from pathlib import Path
    import processes, psutil, zmq
    from qcg.pilotjob.executor_api import *

    def host(number):
        # the workers of both nodes need not begin together
        name = os.uname().nodename
        Path(f"called.{name}").touch()
        end = time.monotonic() + 30
        while len(list(Path().glob("called.*"))) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        return name

    def rank():
        print("rank", os.environ["OMPI_COMM_WORLD_RANK"])
        return int(os.environ["OMPI_COMM_WORLD_RANK"]), os.uname().nodename
"""


def findings(completed):
    return json.loads(completed.stdout.splitlines()[-1])


def test_workers_are_on_all_nodes_and_only_they_are_heard(in_allocation):
    hosts, listening, heard, large = findings(
        in_allocation(
            BEGIN
            + """
    def ports():
        return {c.laddr.port for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN"}

    with QCGPJExecutor() as executor:
        before = ports()  # salloc leaves its own to its children
        pool = executor.functions()
        hosts = sorted(set(pool.map(host, range(12))))
        place = pool._hub._place
        orders = json.loads(place._orders.read_text())
        port = int(orders["address"].rpartition(":")[2])
        listening = ports() - before == {port}
        heard = []
        for key in ("", orders["key"]):  # without encryption, and then with the key but without the token
            stranger = zmq.Context.instance().socket(zmq.DEALER)
            stranger.linger = 0
            if key:
                stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
                stranger.curve_serverkey = key.encode()
            stranger.connect(orders["address"])
            stranger.send_multipart([b"\\0", b"guess", b'{"worker": 1, "rank": 0, "python": [3, 9]}'])
            heard.append(stranger.poll(500))
            stranger.close()
        large = len(pool.submit(lambda given: given + given, bytes(3_000_000)).result(30))
    print(json.dumps([hosts, listening, heard, large]))
    """,
            limit=90,
        )
    )
    assert hosts == ["n1", "n2"]
    assert listening
    assert heard == [0, 0]
    assert large == 6_000_000


def test_a_function_on_every_rank(in_allocation, for_mpi):
    first, every, error = findings(
        in_allocation(
            BEGIN
            + """
    with QCGPJExecutor() as executor:
        first = executor.functions(cores=2, nodes=2, model="openmpi").submit(rank).result(60)
        pool = executor.functions(cores=2, nodes=2, model="openmpi", all_ranks=True)
        every = pool.submit(rank).result(60)
        error = repr(pool.submit(lambda: 1 // (int(os.environ["OMPI_COMM_WORLD_RANK"]) - 3)).exception(60))
        error += repr(pool.submit(lambda: 1 // (int(os.environ["OMPI_COMM_WORLD_RANK"]) - 5)).exception(60))
    print(json.dumps([first, every, error]))
    """,
            limit=90,
            env=for_mpi,
        )
    )
    assert first == [0, "n1"]
    assert sorted(every) == [[0, "n1"], [1, "n1"], [2, "n2"], [3, "n2"]]
    assert error.startswith("ZeroDivisionError")
    assert error.endswith("None")


def test_a_node_that_goes_takes_its_calls_with_it(in_allocation_of_its_own):
    states = findings(
        in_allocation_of_its_own(
            BEGIN
            + """
    def call():
        while not Path("go").exists():
            time.sleep(0.02)

    with QCGPJExecutor() as executor:
        pool = executor.functions()
        futures = [pool.submit(call) for _ in range(4)]
        while not all(future.running() for future in futures):
            time.sleep(0.05)
        processes.agents("n2", QCGPJ_TEST_RUN=os.environ["QCGPJ_TEST_RUN"])[1].kill()
        while sum(future.done() for future in futures) < 2:
            time.sleep(0.05)
        Path("go").touch()
        found = [repr(future.exception(30)).partition("(")[0] for future in futures]
        later = pool.submit(pow, 2, 3).result(30)
    print(json.dumps([sorted(found), later]))
    """,
            limit=60,
        )
    )
    assert states == [["None", "None", "WorkerDied", "WorkerDied"], 8]
