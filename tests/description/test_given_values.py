"""Values that mean nothing, or are more than text: what a job gets of them."""

import enum
import json
import re

import pytest

from qcg.pilotjob.executor_api import (
    InvalidJob,
    InvalidOption,
    IterationTemplate,
    ParallelTemplate,
    QCGPJExecutor,
    ScriptTemplate,
    TemplateError,
)
from qcg.pilotjob.executor_api._description.check.report import checked
from qcg.pilotjob.executor_api._description.rendering import rendered
from qcg.pilotjob.executor_api._description.validation import validated


class Phase(str, enum.Enum):
    LIQUID = "liquid"


class Size(int, enum.Enum):
    LARGE = 7


class Density(float, enum.Enum):
    LOW = 0.25


def test_a_member_of_an_enumeration_is_what_it_is_equal_to(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        executor.submit(ParallelTemplate, name="a", exec="echo", args=[Phase.LIQUID, Size.LARGE, Density.LOW])
        executor.submit(
            ScriptTemplate, name="b", script="echo $P $S $D", env={"P": Phase.LIQUID, "S": Size.LARGE, "D": Density.LOW}
        )
        executor.submit(
            ParallelTemplate, name=Phase.LIQUID, exec="sh", args=["-c", "echo $P"], env={"P": Phase.LIQUID},
            stdout=Phase.LIQUID,
        )  # fmt: skip
        text = '{"name": "c", "execution": {"exec": "echo", "args": ["${p}-${s}", "${d}"], "stdout": "c.out"}}'
        executor.submit(lambda: (text, {}), p=Phase.LIQUID, s=Size.LARGE, d=Density.LOW)
    told = {name: (tmp_path / name).read_text().strip() for name in ("a.out", "b.out", "liquid", "c.out")}
    assert told == {
        "a.out": "liquid 7 0.25", "b.out": "liquid 7 0.25", "liquid": "liquid", "c.out": "liquid-7 0.25"
    }  # fmt: skip


@pytest.mark.parametrize("nothing", [None, ""])
@pytest.mark.parametrize(
    ("template", "keys"),
    [
        (ParallelTemplate, ["wd", "stdout", "stderr", "venv", "walltime", "model"]),
        (ScriptTemplate, ["wd", "stdout", "stderr", "walltime"]),
        (IterationTemplate, ["wd", "stdout", "stderr"]),
    ],
)
def test_nothing_is_not_given(tmp_path, template, keys, nothing):
    work = {"script": "true"} if template is ScriptTemplate else {"exec": "true"}
    count = {"stop": 1} if template is IterationTemplate else {}
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        for key in keys:
            future = executor.submit(template, name=f"n.{key}", **work, **count, **{key: nothing})
            assert future.result() == {f"n.{key}": "SUCCEED"}
    assert not {"None", "bin"} & {path.name for path in tmp_path.iterdir()}


def test_nothing_inside_other_text_is_refused(tmp_path):
    def template():
        return '{"name": "a", "execution": {"exec": "true", "wd": "runs/${sub}", "args": ["${x}"]}}', {
            "x": "",
            "sub": "",
        }

    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        with pytest.raises(TemplateError, match="None stands inside other text"):
            executor.submit(template, sub=None)
        with pytest.raises(InvalidJob, match=r"args: \[0\] is None"):
            executor.submit(template, x=None)


@pytest.mark.parametrize("written", ["./log", ".//log", "{wd}/log", "sub/../log", "link/log"])
def test_two_ways_to_write_a_path_are_one_file(tmp_path, written):
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "sub").mkdir()
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        script = "for n in 1 2 3; do echo out $n; echo err $n >&2; done"
        future = executor.submit(
            ScriptTemplate, name="a", script=script, stdout="log", stderr=written.format(wd=tmp_path)
        )
        future.result()
    assert (tmp_path / "log").read_text().splitlines() == [f"{what} {n}" for n in (1, 2, 3) for what in ("out", "err")]
    runtime = future.info()["a"]["runtime"]
    assert runtime["stdout"] == runtime["stderr"]


def test_an_enumeration_is_text_on_record_too(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        executor.submit(ParallelTemplate, name="a", exec="true", env={"P": Phase.LIQUID}).result()
    (requests,) = tmp_path.glob(".qcgpjm-service-*/track.reqs")
    assert json.loads(requests.read_text())["execution"]["env"]["P"] == "liquid"


def nested(levels, begin=list):
    value = begin()
    for _ in range(levels):
        value = [value] if begin is list else {"a": value}
    return value


def holding_itself():
    value = []
    value.append(value)
    return value


class Unspeakable:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


_ODD = {
    "deep": nested(10_000),
    "deep in a dictionary": {"x": [nested(10_000, dict)]},
    "101 levels": nested(101),
    "holds itself": holding_itself(),
    "huge": [10**5000],
    "set": {1},
    "bytes": [b"x"],
    "complex": 1j,
    "unspeakable": Unspeakable(),
    "tuple as a key": {(1, 2): 3},
    "None as a key": [{None: 1}],
}
_PLACES = {
    "attributes": '{"execution": {"exec": "true"}, "attributes": ${v}}',
    "in attributes": '{"execution": {"exec": "true"}, "attributes": {"v": ${v}}}',
    "argument": '{"execution": {"exec": "true", "args": [${v}]}}',
    "env": '{"execution": {"exec": "true", "env": ${v}}}',
    "cores": '{"execution": {"exec": "true"}, "resources": {"numCores": ${v}}}',
    "walltime": '{"execution": {"exec": "true"}, "resources": {"wt": ${v}}}',
    "values": '{"execution": {"exec": "true"}, "iteration": {"values": ${v}}}',
    "after": '{"execution": {"exec": "true"}, "dependencies": {"after": "${v}"}}',
    "whole": "${v}",
}


@pytest.mark.parametrize("value", _ODD.values(), ids=_ODD)
@pytest.mark.parametrize("place", _PLACES.values(), ids=_PLACES)
def test_a_value_that_cannot_be_sent_is_refused_by_its_name(place, value):
    with pytest.raises(TemplateError, match=r"parameter 'v' (is|has)"):
        rendered(place, {"v": value}, {})
    with pytest.raises(TemplateError, match=r"parameter 'v' (is|has)"):
        rendered(place, {}, {"v": value})


@pytest.mark.parametrize("value", [10**5000, [10**5000], Unspeakable()], ids=["huge", "list", "class"])
def test_a_value_that_cannot_be_written_is_refused_by_its_name(value):
    with pytest.raises(TemplateError, match=r"parameter 'v' is a .* that cannot be written as text"):
        rendered('{"execution": {"exec": "echo", "args": ["a ${v}"]}}', {"v": value}, {})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("NaN", "attributes: v is nan; JSON has no such number"),
        ("[{'a': -Infinity}]", r"attributes: v: \[0\]: a is -inf"),
        ("{1: 2}", "attributes: v has the key 1; write keys as text"),
        ("{(1, 2): 2}", r"attributes: v has the key \(1, 2\)"),
        ("{1, 2}", r"the template has \{1, 2\}, a set"),
        ("b'x'", "the template has b'x', a bytes"),
        ("...", "the template has Ellipsis"),
        ("0x" + "f" * 2000, "the template has a number of 8000 bits"),
        ("[" * 120 + "]" * 120, "nested deeper than 100 levels"),
        ("[" * 10_000 + "]" * 10_000, "neither JSON .* nor a Python literal|nested deeper"),
        ("{${v}: 2}", r"a placeholder that is a key stands for \[1\]; give text"),
    ],
)
def test_what_only_python_has_is_refused_with_its_place(value, said):
    text = "{'name': 'a', 'execution': {'exec': 'true'}, 'attributes': {'v': " + value + "}}"
    with pytest.raises((TemplateError, InvalidJob), match=said):
        validated(rendered(text, {"v": [1]}, {})[0], None)
    if "${v}" not in value:
        (finding,) = checked(text).findings
        assert re.search(said, finding.problem)


def test_defaults_that_only_python_has_are_refused():
    text = "{'execution': {'exec': 'true', 'args': ['${v}']}, 'defaults': {'v': {1}}}"
    with pytest.raises(TemplateError, match="'defaults' have what JSON has not"):
        rendered(text, {}, {})
    assert len(checked(text).findings) == 1


def test_deep_and_large_options_of_functions_are_refused(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        for options in (
            {"env": {"A": nested(10_000)}}, {"modules": [nested(10_000)]}, {"ranks": nested(10_000)},
            {"cores": 10**5000}, {"walltime": 10**5000}, {"idle_seconds": nested(10_000)},
        ):  # fmt: skip
            with pytest.raises((InvalidJob, InvalidOption)), executor.functions(**options):
                pass


def test_as_deep_as_it_may_be_arrives(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        text = '{"name": "a", "execution": {"exec": "true"}, "attributes": {"v": ${v}}}'
        assert executor.submit(lambda: text, v=nested(100)).result(20) == {"a": "SUCCEED"}
    (requests,) = tmp_path.glob(".qcgpjm-service-*/track.reqs")
    assert json.loads(requests.read_text())["attributes"]["v"] == nested(100)
