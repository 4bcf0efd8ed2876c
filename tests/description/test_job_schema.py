"""The JSON Schema of template files: made from the types, and of one mind with what submit takes."""

from __future__ import annotations

import importlib.util
import json
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcg.pilotjob.executor_api import QCGPJError
from qcg.pilotjob.executor_api._description.check.report import checked
from qcg.pilotjob.executor_api._description.rendering import rendered
from qcg.pilotjob.executor_api._description.template import ANY, NO_TEXT
from qcg.pilotjob.executor_api._description.validation import validated

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).parents[2]
TEXT = files("qcg.pilotjob.executor_api").joinpath("job.schema.json").read_text(encoding="utf-8")
WALLTIMES = [
    "90",
    "0.5",
    90,
    0.5,
    "1d",
    "1.5h",
    "1h30m",
    "01:30:00",
    "1-00:00:00",
    "1 day, 1:30:00",
    "2 days, 0:00:01.5",
]
SCHEMA = jsonschema.Draft7Validator(json.loads(TEXT))


def test_the_file_is_what_the_types_give_now():
    spec = importlib.util.spec_from_file_location("job_schema", ROOT / "tools" / "job_schema.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.text_of_schema() == TEXT, "run 'make schema'"


def test_it_is_a_schema():
    SCHEMA.check_schema(SCHEMA.schema)


def test_every_key_is_described():
    for definition in SCHEMA.schema["definitions"].values():
        assert all(value["description"] for value in definition["properties"].values())


@pytest.mark.parametrize("path", sorted((ROOT / "templates").glob("*.json")), ids=lambda path: path.name)
def test_the_ready_made_files_are_good(path):
    SCHEMA.validate(json.loads(path.read_text()))


RUNS = {"execution": {"exec": "e"}}


def executing(**parts):
    return {"execution": {"exec": "e", **parts}}


GOOD = [
    {"$schema": "./job.schema.json", **RUNS},
    {"execution": {"exec": "${a}", "args": "${b}"}, "defaults": {"a": "e", "b": [1]}},
    [RUNS, {"name": "${name}.b", **RUNS}],
    {"request": "submit", "jobs": [RUNS]},
    {"name": "é😀.${n}/$x=1,#~+@", **RUNS, "resources": None, "iteration": {"stop": "${stop}", "values": None}},
    {"execution": "${execution}", "resources": "$resources", "attributes": "${a}"},
    executing(args="${args}", env="$env", model_opts="${opts}", modules="${modules}"),
    executing(args=["a", 1, 0.5, True, "${a} $b $$ $"], env={"A": 1, "${key}": "x", "B": None}, modules="gcc"),
    executing(script="${script}", model="OpenMPI", stdin=None, venv=""),
    executing(stdin="", stdout="", stderr="", wd=""),
    executing(script=""),
    {"execution": {"script": "echo $$HOME $${ncores}", "args": [], "exec": ""}},
    {"execution": {"script": "${script}", "exec": "${exec}", "args": "${args}"}},
    {**RUNS, "resources": {"numCores": "${cores}", "numNodes": {"min": "${a}", "max": "$b"}, "wt": "${h}h"}},
    {**RUNS, "resources": {"numCores": {"exact": 4, "min": None}, "nodeCrs": {"GPU": "${gpu}"}, "wt": ""}},
    *({**RUNS, "resources": {"wt": walltime}} for walltime in WALLTIMES),
    {
        **RUNS,
        "iteration": {"stop": 2},
        "resources": {"numCores": {"min": 1, "scheduler": {"name": "split-into", "params": {"parts": 2}}}},
    },
    {**executing(model="openmpi"), "resources": {"numCores": 8, "ranks": 2}},
    {**executing(model="${m}"), "resources": {"numCores": "${c}", "ranks": "${r}"}},
    {**RUNS, "iteration": {"start": "${a}", "stop": "${b}", "values": "${c}"}},
    {**RUNS, "iteration": {"values": ["a", 1, "${x}"]}},
    {**RUNS, "dependencies": {"after": "a"}},
    {**RUNS, "dependencies": {"after": ["a:1", "${b}"]}},
    {**RUNS, "dependencies": {"after": "${after}"}},
]
WRONG = [
    None,
    "${job}",
    [],
    [1],
    {},
    {"request": "cancelJob"},
    {"request": "submit"},
    {"execution": None},
    {**RUNS, "resorces": {}},
    {**RUNS, "defaults": {"a": "${b}"}},
    [{**RUNS, "defaults": {}}],
    {**RUNS, "schema": "a"},
    {**RUNS, "name": "a b"},
    {**RUNS, "name": "a|${b}"},
    {**RUNS, "name": "../${b}"},
    {**RUNS, "name": "${b}/"},
    {**RUNS, "name": "a\u202eb"},
    {**RUNS, "name": ""},
    {**RUNS, "name": 1},
    {**RUNS, "name": "a${b c}"},
    {"execution": {}},
    {"execution": {"exec": ""}},
    {"execution": {"args": ["a"]}},
    {"execution": {"exec": 5}},
    {"execution": {"script": ["a"]}},
    executing(script="echo"),
    {"execution": {"script": "echo", "args": ["a"]}},
    executing(arg=[]),
    executing(args="a b"),
    executing(args="a ${b}"),
    executing(args=[None]),
    executing(args=[[]]),
    executing(args=["a\0"]),
    executing(args=["${a-b}"]),
    executing(args=["$$${"]),
    executing(env={"1": "a"}),
    executing(env={"A": []}),
    executing(env=["A"]),
    executing(wd=1),
    executing(modules=1),
    executing(modules=[1]),
    executing(model="mpi"),
    executing(model_opts=[]),
    executing(model_opts={"mpirun_args": "--oversubscribe"}),
    executing(model_opts={"srun_arguments": []}),
    {**RUNS, "resources": {"numCores": 2, "ranks": 0}},
    {**RUNS, "resources": {"numCores": {"min": 1}}},
    {**RUNS, "resources": {"numCores": 0}},
    {**RUNS, "resources": {"numCores": "2"}},
    {**RUNS, "resources": {"numCores": "two"}},
    {**RUNS, "resources": {"numCores": "1${n}"}},
    {**RUNS, "resources": {"numCores": 1.5}},
    {**RUNS, "resources": {"numCores": True}},
    {**RUNS, "resources": {"numCores": {}}},
    {**RUNS, "resources": {"numCores": {"exact": 1, "max": 2}}},
    {**RUNS, "resources": {"numCores": {"min": 1, "max": 2, "scheduler": {"name": "split-into"}}}},
    {**RUNS, "resources": {"numCores": {"min": 1, "scheduler": {"name": "split"}}}},
    {**RUNS, "resources": {"wt": "1:00"}},
    {**RUNS, "resources": {"wt": "0h"}},
    {**RUNS, "resources": {"wt": 0}},
    {**RUNS, "resources": {"wt": "1-24:00:00"}},
    {**RUNS, "resources": {"wt": [60]}},
    {**RUNS, "resources": {"nodeCrs": {"tpu": 1}}},
    {**RUNS, "resources": {"nodeCrs": {"mem": 1}}},
    {**RUNS, "resources": {"nodeCrs": {"gpu": 1, "Mem": 1}}},
    {**RUNS, "resources": {"nodeCrs": {"gpu": 0}}},
    {**RUNS, "iteration": {}},
    {**RUNS, "iteration": {"start": 1}},
    {**RUNS, "iteration": {"stop": 1, "values": ["a"]}},
    {**RUNS, "iteration": {"start": 1, "values": ["a"]}},
    {**RUNS, "iteration": {"values": []}},
    {**RUNS, "iteration": {"values": ['"']}},
    {**RUNS, "iteration": {"stop": -1}},
    {**RUNS, "dependencies": {"after": 1}},
    {**RUNS, "dependencies": {"after": ["a", None]}},
    {**RUNS, "dependencies": {"before": ["a"]}},
    {**RUNS, "attributes": []},
]


@pytest.mark.parametrize("template", GOOD, ids=json.dumps)
def test_what_is_good_for_some_parameters_is_good(template):
    SCHEMA.validate(template)
    assert not checked(json.dumps(template)).findings


@pytest.mark.parametrize("template", WRONG, ids=json.dumps)
def test_what_is_wrong_for_all_is_wrong(template):
    assert not SCHEMA.is_valid(template)
    assert checked(json.dumps(template)).findings


def paths(places, above=()):
    for key, below in places.items():
        if key != ANY:
            yield (*above, key)
            yield from paths(below, (*above, key))


@pytest.mark.parametrize("path", list(paths(NO_TEXT)), ids="/".join)
def test_where_quotes_make_no_difference_the_schema_knows_it(path):
    template: dict = {"execution": {"exec": "e"}, "iteration": {"stop": 1}}
    inner = template
    for key in path[:-1]:
        if key == "scheduler":
            inner["min"] = 1
        inner = inner.setdefault(key, {"name": "split-into"} if key == "scheduler" else {})
    inner[path[-1]] = "${value}"
    if path[-1] == "min":
        inner["max"] = 1
    if path[-1] == "values":
        del inner["stop"]
    if path[-1] == "scheduler":
        inner["min"] = 1
    SCHEMA.validate(template)
    assert not checked(json.dumps(template)).findings


texts = st.sampled_from(["a", "", "${a}", "$b", "x${c}", "1h", "${a}${b}", "openmpi", "Default", "$$", "${it}", "a b"])
numbers = st.sampled_from([1, 2, 5, 0, -1, "${a}", "${b}", None, "2", 1.5])
lists = st.one_of(st.lists(st.one_of(texts, st.sampled_from([1, None, 0.5])), max_size=2), texts)


def some_of(**values):
    """Dictionaries with at most three of the keys."""
    chosen = st.lists(st.sampled_from(sorted(values)), max_size=3, unique=True)
    return chosen.flatmap(lambda keys: st.fixed_dictionaries({key: values[key] for key in keys}))


schedulers = st.sampled_from([{"name": "split-into"}, {"name": "${b}"}, "${c}", None, {}])
sizes = st.one_of(numbers, some_of(exact=numbers, min=numbers, max=numbers, scheduler=schedulers))
runs = st.sampled_from([{"exec": "e"}, {"exec": "${a}"}, {"script": "echo"}, {"exec": "${a}", "script": "${b}"}, {}])
executions = st.builds(
    lambda one, other: {**one, **other},
    runs,
    some_of(
        exec=texts,
        script=texts,
        stdin=texts,
        venv=texts,
        wd=texts,
        model=texts,
        args=lists.map(lambda given: given or []),  # beside a script, "" is as good as []; the schema does not say so
        modules=lists,
        env=st.one_of(st.dictionaries(texts, texts, max_size=2), texts),
        model_opts=st.sampled_from([{}, "${a}", {"mpirun_args": "${b}"}]),
        other=st.just("x"),
    ),
)
# what becomes null drops out, and with it a key that nobody knows; the schema refuses that key all the same
consumables = st.one_of(
    st.dictionaries(st.sampled_from(["gpu", "Mem", "GPU", "${a}"]), numbers, max_size=3), st.just({"x": 1})
)
parts = some_of(
    name=texts,
    resources=some_of(numCores=sizes, numNodes=sizes, ranks=numbers, wt=texts, nodeCrs=consumables),
    iteration=some_of(start=numbers, stop=numbers, values=lists),
    dependencies=some_of(after=lists),
    attributes=st.sampled_from([{}, "${a}", {"a": "${b}"}, 1]),
)
jobs = st.one_of(
    st.builds(lambda execution: {"execution": execution}, executions),
    st.builds(lambda execution, more: {"execution": execution, **more}, runs, parts),
)
values = st.sampled_from([None, "", "a", "1", "1h", "[1]", 1, 4, [], ["a"], {}, {"min": 1}, "split-into", "gpu"])


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(st.one_of(jobs, st.lists(jobs, min_size=1, max_size=2)), st.fixed_dictionaries(dict.fromkeys("abc", values)))
def test_what_submit_takes_is_good_to_both(template, parameters):
    text = json.dumps(template)
    try:
        for job in rendered(text, parameters, {}):
            validated(job, None)
    except QCGPJError:
        return
    SCHEMA.validate(template)
    findings = [finding for finding in checked(text).findings if "another job" not in finding.problem]
    assert not findings
