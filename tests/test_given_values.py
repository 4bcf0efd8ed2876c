"""Values that mean nothing, or are more than text: what a job gets of them."""

import enum
import json

import pytest

from qcg.pilotjob.executor_api import (
    InvalidJob,
    IterationTemplate,
    ParallelTemplate,
    QCGPJExecutor,
    ScriptTemplate,
    TemplateError,
)


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
