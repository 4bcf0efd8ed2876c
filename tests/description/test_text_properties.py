"""Any text arrives byte for byte, wherever it goes in, and no text changes what a job is."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import string

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qcg.pilotjob.executor_api import BasicTemplate, ScriptTemplate
from qcg.pilotjob.executor_api._description.rendering import encoded, rendered
from qcg.pilotjob.executor_api._description.validation import validated

PRINTF = shutil.which("printf")

# what is replaced on purpose
VARIABLES = [
    "root_wd",
    "ncores",
    "nnodes",
    "nlist",
    "it",
    "itval",
    "rcnt",
    "uniq",
    "sname",
    "date",
    "time",
    "dateTime",
    "jname",
]
VARIABLE = re.compile(r"\$\{(" + "|".join(VARIABLES) + r")\}")

# pieces on which some reader of text on the way could stumble
PIECES = [
    "$", "$$", "${", "}", "$it", "${HOME}", "$(id)", "`id`", "it", "jname", '"', "'", "'''", '"""', "\\", "\\n",
    "\\u0041", "\n", "\r", "\t", " ", "\x01", "\x1b", "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe", "é", "e\u0301",
    "😀", "%s", "{0}", "#", "//", "-", "~", "*", "?", "[a]", ";", "&", "|", "<", ">", "null", "ud800", "\\ud800",
]  # fmt: skip

characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
texts = st.one_of(st.text(characters, max_size=40), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)).filter(
    lambda text: not VARIABLE.search(text)
)
file_names = texts.map(lambda text: text.replace("/", "")).filter(
    lambda name: name not in ("", ".", "..") and len(name.encode()) <= 100 and not VARIABLE.search(name)
)

with_manager = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def names():
    """Names of jobs, each new."""
    return (f"job-{number}" for number in itertools.count())


def succeeded(future):
    return set(future.result(timeout=30).values()) == {"SUCCEED"}


@with_manager
@given(st.lists(texts, min_size=1, max_size=20))
def test_arguments_in_a_list(shared, names, arguments):
    executor, there = shared
    assert succeeded(executor.submit(BasicTemplate, name=next(names), exec=PRINTF, args=["%s\\0", *arguments]))
    assert (there / "stdout").read_bytes() == b"".join(text.encode() + b"\0" for text in arguments)


QUOTED = """
{
    'name': "${name}",
    "execution": {
        "exec": '${exec}',
        'args': ["%s\\\\0", "${double}", '${single}', "<$${it} it's ${double}>", '<"${single}$double">'],
        "env": {"TEXT": "${double}"},
        "stdout": "out"
    }
}
"""


@with_manager
@given(texts, texts)
@example("'", '"')
@example("${it", "}")
def test_arguments_in_quotes_of_both_kinds(shared, names, double, single):
    executor, there = shared
    future = executor.submit(lambda: QUOTED, name=next(names), exec=PRINTF, double=double, single=single)
    assert succeeded(future)
    expected = [double, single, f"<${{it}} it's {double}>", f'<"{single}{double}">']
    assert (there / "out").read_bytes() == b"".join(text.encode() + b"\0" for text in expected)


@with_manager
@given(st.lists(texts, min_size=1, max_size=10))
def test_environment(shared, names, values):
    executor, there = shared
    environment = {f"V{number}": value for number, value in enumerate(values)}
    template = '{"name": "${name}", "execution": {"exec": "env", "args": ["-0"], "env": ${env}, "stdout": "out"}}'
    assert succeeded(executor.submit(lambda: template, name=next(names), env=environment))
    seen = (there / "out").read_bytes().split(b"\0")
    assert {line for line in seen if re.match(rb"V\d+=", line)} == {
        f"{key}={value}".encode() for key, value in environment.items()
    }


@with_manager
@given(file_names, file_names)
def test_the_path_of_the_program(shared, names, directory, file):
    executor, there = shared
    # the program, a script, is told the path by which it was started
    program = there / "program"
    if not program.exists():
        program.write_text('#!/bin/sh\nprintf %s "$0"\n')
        program.chmod(0o755)
    bin_directory = there / "bin" / directory
    bin_directory.mkdir(parents=True, exist_ok=True)
    path = bin_directory / file
    if not path.is_symlink():
        path.symlink_to(program)
    assert succeeded(executor.submit(BasicTemplate, name=next(names), exec=str(path)))
    assert (there / "stdout").read_bytes() == str(path).encode()


@with_manager
@given(st.tuples(file_names, file_names), texts)
def test_names_of_files(shared, names, path, text):
    executor, there = shared
    (directory, file), name = path, next(names)
    template = """{"name": "${name}", "execution": {"exec": "${exec}", "args": ["%s", "${text}"], "wd": "${wd}",
                   "stdout": "${stdout}"}}"""
    wd = f"{name}/{directory}"
    future = executor.submit(lambda: template, name=name, exec=PRINTF, text=text, wd=wd, stdout=file)
    assert succeeded(future)
    assert [path.name for path in (there / name).iterdir()] == [directory]
    assert [path.name for path in (there / name / directory).iterdir()] == [file]
    assert (there / name / directory / file).read_bytes() == text.encode()


@with_manager
@given(st.lists(texts, min_size=1, max_size=10))
def test_scripts(shared, names, documents):
    executor, there = shared
    script = "".join(f"cat <<'END OF TEXT'\n{text}\nEND OF TEXT\nprintf '\\0'\n" for text in documents)
    name = next(names)
    assert succeeded(executor.submit(ScriptTemplate, name=name, script=script))
    assert (there / f"{name}.out").read_bytes() == b"".join(text.encode() + b"\n\0" for text in documents)


# ---- without a manager: whatever the text, the rest of the description stays as it is

FULL = """
{
    "name": "name",
    "execution": {
        "exec": "${exec}",
        'args': ["${double}", '${single}', "a ${double} b"],
        "env": {"A": '${env}'},
        "stdout": "${stdout}",
        'stderr': '${stderr}',
        "wd": "${wd}"
    },
    "resources": {"numCores": ${cores}},
    "attributes": {"note": '${note}'}
}
"""
QUOTED_PARAMETERS = ["exec", "double", "single", "env", "stdout", "stderr", "wd", "note"]
any_text = st.one_of(
    st.text(characters), st.lists(st.sampled_from([*PIECES, "${it}", "${jname}"]), max_size=12).map("".join)
)


def expected_of(values, cores):
    return {
        "name": "name",
        "execution": {
            "exec": values["exec"],
            "args": [values["double"], values["single"], f"a {values['double']} b"],
            "env": {"A": values["env"]},
            "stdout": values["stdout"],
            "stderr": values["stderr"],
            "wd": values["wd"],
        },
        "resources": {"numCores": cores},
        "attributes": {"note": values["note"]},
    }


NAMES = string.ascii_letters + string.digits + "-_.@+"


@settings(deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(QUOTED_PARAMETERS, texts)), st.integers())
def test_every_text_is_in_its_place_and_nowhere_else(values, cores):
    assert rendered(FULL, {**values, "cores": cores}, {}) == [expected_of(values, cores)]


@settings(deadline=None)
@given(st.sampled_from(QUOTED_PARAMETERS), any_text)
def test_no_text_changes_the_structure(name, text):
    def shape(value):
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items()}
        return [shape(item) for item in value] if isinstance(value, list) else type(value)

    values = dict.fromkeys(QUOTED_PARAMETERS, "X")
    plain = expected_of(values, 1)
    (job,) = rendered(FULL, {**values, name: text, "cores": 1}, {})
    assert shape(job) == shape(plain)
    in_its_place = expected_of({**values, name: "TEXT"}, 1)
    for path in ("name", "resources"):
        assert job[path] == plain[path]
    for key, value in job["execution"].items():
        if in_its_place["execution"][key] == plain["execution"][key]:
            assert value == plain["execution"][key]


@settings(deadline=None)
@given(st.sampled_from(['"', "'", '"""', "'''"]), any_text)
def test_no_text_ends_its_quotes(quotes, text):
    # a triple quote may hold one of its own kind, and text behind it is still inside
    before = f"it{quotes[0]}s " if len(quotes) == 3 else ""
    (job,) = rendered(f"{{'a': {quotes}{before}${{text}} {quotes}, 'b': ${{number}}}}", {"text": text, "number": 1}, {})
    (plain,) = rendered('{"a": "${text} "}', {"text": text}, {})
    assert job == {"a": before + plain["a"], "b": 1}


@settings(deadline=None)
@given(texts, st.lists(st.text(NAMES, min_size=1).filter(lambda part: part.strip(".")), min_size=1).map("/".join))
def test_what_is_sent_survives_the_manager_replacing_variables_twice(text, name):
    # as the manager does it: on arrival in the whole description, at the start in its execution
    template = (
        """{"name": "${name}", "execution": {"exec": "e", "args": ["${text}"]}, "attributes": {"a": "${text}"}}"""
    )
    (job,) = rendered(template, {"name": name, "text": text}, {})
    variables = dict.fromkeys(VARIABLES, "REPLACED")
    arrived = json.loads(string.Template(encoded(validated(job, None))).safe_substitute(variables))
    started = json.loads(string.Template(json.dumps(arrived["execution"])).safe_substitute(variables))
    assert started["args"] == [text]
    assert arrived["attributes"] == {"a": text}
    assert arrived["name"] == started["env"]["QCG_PM_EXEC_API_JOB_ID"] == name
