"""Whatever is sent to the manager: an answer, and a manager that goes on."""

import json

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcg.pilotjob.executor_api import BasicTemplate, QCGPJExecutor

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
REQUESTS = st.sampled_from(
    [
        "submit",
        "jobStatus",
        "jobInfo",
        "cancelJob",
        "removeJob",
        "listJobs",
        "resourcesInfo",
        "status",
        "register",
        "notify",
    ]
)
NEAR_MISSES = st.fixed_dictionaries(
    {"request": REQUESTS},
    optional={
        "jobs": JSON_VALUES
        | st.lists(
            st.fixed_dictionaries(
                {"name": JSON_VALUES, "execution": JSON_VALUES},
                optional={"iteration": JSON_VALUES, "resources": JSON_VALUES, "dependencies": JSON_VALUES},
            ),
            max_size=3,
        ),
        "jobNames": JSON_VALUES
        | st.lists(st.sampled_from(["there", "there:0", "there:x", "", ":"]) | JSON_VALUES, max_size=3),
        "params": JSON_VALUES,
        "options": JSON_VALUES,
        "entity": JSON_VALUES,
        "command": st.text(max_size=10),
        "again": JSON_VALUES,
    },
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with QCGPJExecutor(wd=tmp_path_factory.mktemp("fuzz"), resources=2) as executor:
        executor.submit(BasicTemplate, name="there", exec="true").result(20)
        yield executor


def answer_to(executor, message, *more):
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(executor._connection.dispatcher.link.address)
        socket.send_multipart([message, *more])
        assert socket.poll(20_000), f"no answer to {message[:200]!r}"
        return json.loads(socket.recv())


def goes_on(executor, names=iter(range(1_000_000))):  # noqa: B008  # the names of one run
    name = f"after{next(names)}"
    return executor.submit(BasicTemplate, name=name, exec="true").result(20) == {name: "SUCCEED"}


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"[" * 100_000,
        b'{"request": ' + b"[" * 100_000,
        b'{"request": "submit", "jobs": [' + b'{"name": "x"},' * 100_000 + b"{}]}",
        b'{"request": "jobStatus", "jobNames": ["' + b"x" * 10_000_000 + b'"]}',
        b'{"request": {"a": 1}}',
        b'{"request": "control", "command": "no such"}',
        b'{"request": "submit", "again": true}',
        b'{"request": "submit", "again": true, "jobs": 1}',
        b'{"request": "submit", "again": true, "jobs": [1]}',
        b'{"request": "submit", "again": true, "jobs": [{"name": []}]}',
        b'{"request": "control"}',
        b'{"request": "status", "options": 1}',
    ],
    ids=lambda message: repr(message[:40]),
)
def test_messages_that_are_no_requests(shared, message):
    assert answer_to(shared, message)["code"] != 0
    assert goes_on(shared)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_random_messages(shared, message):
    assert answer_to(shared, message)["code"] != 0


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=NEAR_MISSES)
def test_requests_that_are_nearly_right(shared, request):
    assert "code" in answer_to(shared, json.dumps(request).encode())


def test_a_message_of_several_parts(shared):
    assert answer_to(shared, b'{"request": "status"}', b"and more")["code"] != 0
    assert goes_on(shared)


@pytest.mark.parametrize(
    "frames",
    [[b""], [b"\x01\xff\xfe"], [b"\x00\xff"], [b"text"], [b"\x01HLO", b"\x01"]],
    ids=repr,
)
def test_messages_that_are_no_subscriptions(shared, frames):
    link = shared._connection.dispatcher.link
    with zmq.Context() as context, context.socket(zmq.XSUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(link.process.description["events"])
        socket.send_multipart(frames)
        socket.send(b"\x01HLO")
        assert socket.poll(20_000), f"no greeting after {frames!r}"
    assert goes_on(shared)


def test_the_manager_goes_on_after_all_of_them(shared):
    assert goes_on(shared)
