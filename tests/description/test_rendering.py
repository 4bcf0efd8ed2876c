"""From template and parameters to what a process gets: the rules of rendering and of submit's parameters."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path

import pytest

from qcg.pilotjob.executor_api import (
    BasicTemplate,
    InvalidJob,
    IterationTemplate,
    MissingParameter,
    QCGPJExecutor,
    QCGPJFuture,
    ScriptTemplate,
    TemplateError,
)
from qcg.pilotjob.executor_api._description.rendering import encoded, rendered
from qcg.pilotjob.executor_api._description.validation import validated

PRINTF = shutil.which("printf")
EVERY_QUOTE = 'it\'s "quoted" \\ with \n and \t, {brackets} and é, 😀'


def job_of(template, defaults=None, **parameters):
    (job,) = rendered(template, parameters, defaults or {})
    return job


def value_of(written, **parameters):
    """What a value of the description becomes, when the template has `written` in its place."""
    return job_of(f'{{"attributes": {{"value": {written}}}}}', **parameters)["attributes"].get("value")


def sent(template, **parameters):
    return json.loads(encoded(validated(job_of(template, **parameters), None)))


def a_future(*names):
    return QCGPJFuture(list(names), None)


@pytest.fixture
def arguments_of(shared):
    """Run a job from a template and return the arguments that its process got; the template's program is `printf`."""
    executor, directory = shared

    def run(template, *dictionaries, **parameters):
        out = uuid.uuid4().hex
        future = executor.submit(template, {"name": out, "exec": PRINTF, "stdout": out}, *dictionaries, **parameters)
        assert future.result(timeout=30) == {out: "SUCCEED"}
        return (directory / out).read_bytes().decode().split("\0")[:-1]

    return run


def printing(*arguments):
    """A template whose job prints the arguments, written as in a template, each with a NUL after it."""
    written = ", ".join(arguments)
    return lambda: (
        '{"name": "${name}", "execution": {"exec": "${exec}", "args": ["%s\\\\0", '
        + written
        + '], "stdout": "${stdout}"}}'
    )


class TestParameters:
    """Defaults are beaten by dictionaries, from left to right, and those by keyword arguments."""

    TEXT = '{"attributes": {"value": "${value}"}}'

    @pytest.mark.parametrize(
        ("dictionaries", "keywords", "expected"),
        [
            ([], {}, "default"),
            ([{"value": "left"}], {}, "left"),
            ([{"value": "left"}, {"value": "right"}], {}, "right"),
            ([{"value": "left"}, None], {}, "left"),
            ([None, {"value": "right"}, None], {}, "right"),
            ([{"value": "left"}, {"value": "right"}], {"value": "keyword"}, "keyword"),
        ],
    )
    def test_the_order(self, arguments_of, dictionaries, keywords, expected):
        text = printing('"${value}"')()
        assert arguments_of(lambda: (text, {"value": "default"}), *dictionaries, **keywords) == [expected]

    def test_submit_leaves_the_dictionaries_alone(self, arguments_of):
        given = {"value": ["a"]}
        arguments_of(printing('"${value}"'), given, value="b")
        assert given == {"value": ["a"]}

    def test_anything_else_than_a_dictionary_is_a_type_error(self, shared):
        executor, _ = shared
        with pytest.raises(TypeError, match="takes dictionaries of parameters"):
            executor.submit(BasicTemplate, "name")

    def test_defaults_in_the_description_are_the_weakest(self):
        text = '{"defaults": {"a": 1, "b": 1, "c": 1}, "execution": {}, "attributes": [${a}, ${b}, ${c}]}'
        (job,) = rendered(text, {"c": 3}, {"b": 2, "c": 2})
        assert job == {"execution": {}, "attributes": [1, 2, 3]}

    def test_defaults_in_the_description_beside_a_value_that_is_text_of_the_template(self):
        text = '{"defaults": {"exec": "echo"}, "execution": {"exec": "${exec}", "args": ${args}}}'
        assert job_of(text, args='["-v"]') == {"execution": {"exec": "echo", "args": ["-v"]}}

    def test_defaults_in_the_description_may_be_text_of_the_template(self):
        text = '{"defaults": {"args": "[1]"}, "execution": {"args": ${args}}}'
        assert job_of(text) == {"execution": {"args": [1]}}

    def test_defaults_in_the_description_hold_no_placeholder(self):
        with pytest.raises(TemplateError, match="'defaults' contain a placeholder; write plain values"):
            job_of('{"defaults": {"a": "${b}"}, "execution": {}}', b=1)

    def test_parameters_without_a_placeholder_are_left_over(self):
        assert value_of("1", nobody="asks") == 1


class TestMissing:
    @pytest.mark.parametrize("written", ['"${absent}"', "${absent}", '"$absent"', "$absent"])
    def test_is_a_key_error_that_names_the_placeholder(self, written):
        with pytest.raises(KeyError) as caught:
            value_of(written)
        assert caught.value.args[0] == "absent"
        assert isinstance(caught.value, MissingParameter)
        assert "give absent=... to submit(), or a default in the template" in str(caught.value)

    def test_from_submit(self, shared):
        executor, _ = shared
        with pytest.raises(KeyError, match="exec"):
            executor.submit(BasicTemplate, name="a")

    @pytest.mark.parametrize("name", ["it", "date", "HOME"])
    def test_a_variable_without_braces_is_a_placeholder(self, name):
        with pytest.raises(MissingParameter, match=name):
            value_of(f'"${name}"')


class TestInsideQuotes:
    """The text of the value, escaped for the quote around it."""

    @pytest.mark.parametrize("quote", ['"', "'"])
    def test_no_value_ends_the_string(self, quote):
        assert value_of(f"{quote}${{text}}{quote}", text=EVERY_QUOTE) == EVERY_QUOTE
        assert value_of(f"{quote}[$text]{quote}", text=EVERY_QUOTE) == f"[{EVERY_QUOTE}]"

    @pytest.mark.parametrize("quotes", ["'''", '"""'])
    @pytest.mark.parametrize("value", ["a' b\" c", "'''", '"""', "line\nline", "\\"])
    def test_three_quotes(self, quotes, value):
        other = "\"'"[quotes[0] == '"']
        assert value_of(f"{quotes}one\n{other}two{other} ${{text}}{quotes}", text=value) == (
            f"one\n{other}two{other} {value}"
        )

    @pytest.mark.parametrize("quotes", ["'''", '"""'])
    def test_one_of_the_three_quotes_inside_them(self, quotes):
        assert value_of(f"{quotes}it{quotes[0]}s ${{text}}{quotes}", text=7) == f"it{quotes[0]}s 7"
        assert value_of(f"{quotes}it{quotes[0]}s ${{text}}{quotes}", text="a\\b\nc") == f"it{quotes[0]}s a\\b\nc"

    @pytest.mark.parametrize("quote", ['"', "'"])
    def test_quotes_of_the_template_that_are_escaped_or_of_the_other_kind(self, quote):
        other = "\"'"[quote == '"']
        assert value_of(rf"{quote}\{quote}{other}${{text}}\\{quote}", text=EVERY_QUOTE) == (
            f"{quote}{other}{EVERY_QUOTE}\\"
        )

    @pytest.mark.parametrize("quote", ['"', "'"])
    @pytest.mark.parametrize(("written", "arrives"), [(r"a\${text}", "a\\V"), (r"a\$$b", "a\\$b")])
    def test_a_backslash_before_a_placeholder_is_clear_or_an_error(self, quote, written, arrives):
        try:
            value = value_of(f"{quote}{written}{quote}", text="V")
        except TemplateError:
            return
        assert value == arrives

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (1, "1"),
            (0.5, "0.5"),
            (True, "True"),
            (Path("/a b"), "/a b"),
            ([1, "a"], "[1, 'a']"),
            ("null", "null"),
            ("", ""),
        ],
    )
    def test_other_values_are_their_str(self, value, text):
        assert value_of('"${value}"', value=value) == text

    def test_values_are_not_templates(self):
        assert value_of('"${a}"', a="${b} $b", b="no") == "${b} $b"

    def test_keys_take_values_too(self):
        job = job_of('{"execution": {"env": {"${key}": "${value}"}}}', key="A", value="'\"")
        assert job == {"execution": {"env": {"A": "'\""}}}

    def test_a_comment_of_a_python_template_has_no_quotes(self):
        text = "{'execution': {  # it's a comment\n 'exec': '${exec}',  # '${exec}'\n}}"
        assert job_of(text, exec=EVERY_QUOTE) == {"execution": {"exec": EVERY_QUOTE}}

    def test_a_raw_string_is_refused_because_nothing_can_be_escaped_there(self):
        with pytest.raises(TemplateError, match=r"'\$\{value\}' stands in a raw string r'\.\.\.'; leave the r out"):
            value_of("r'${value}'", value=1)


QUOTED_VALUES = {
    "args": ["a", 1],
    "env": {"A": 1},
    "modules": ["gcc", "m"],
    "opts": ["--verbose"],
    "mpirun": '"mpirun"',
    "start": 1,
    "stop": 3,
    "values": None,
    "cores": 2,
    "least": 1,
    "most": 4,
    "gpu": 100,
    "after": [a_future("b", "c"), "d"],
    "attributes": {"a": [1]},
}


class TestQuotedValues:
    """Where a description takes no text, a placeholder in quotes is one without: the template is JSON for editors."""

    TEXT = """{
        "name": "a",
        "execution": {"exec": "e", "args": "${args}", "env": "${env}", "modules": "${modules}",
                      "model_opts": {"mpirun_args": "${opts}", "mpirun": "${mpirun}"}},
        "iteration": {"start": "${start}", "stop": '$stop', "values": \'\'\'${values}\'\'\'},
        "resources": {"numCores": "${cores}", "numNodes": {"min": "${least}", "max": "${most}"},
                      "nodeCrs": {"gpu": "${gpu}"}},
        "dependencies": {"after": "${after}"},
        "attributes": "${attributes}"
    }"""

    def test_values_are_what_they_are_without_quotes(self):
        bare = self.TEXT.replace("'''", "")
        for name in QUOTED_VALUES:
            bare = bare.replace(f'"${{{name}}}"', f"${{{name}}}").replace(f"'${name}'", f"${{{name}}}")
        quoted = job_of(self.TEXT, **{**QUOTED_VALUES, "mpirun": "mpirun"})
        assert quoted == job_of(bare, **QUOTED_VALUES)
        assert job_of(self.TEXT, **QUOTED_VALUES)["dependencies"] == {"after": ["b", "c", "d"]}

    def test_text_is_read_as_it_is_without_quotes(self):
        written = {
            **QUOTED_VALUES,
            "opts": "x",
            "cores": '{"min": 2}',
            "args": "['a', 1]",
            "stop": "3",
            "after": "b",
            "modules": "m",
        }
        job = job_of(self.TEXT, **written)
        assert job["resources"]["numCores"] == {"min": 2}
        assert job["execution"]["args"] == ["a", 1]
        assert job["execution"]["modules"] == "m"
        assert job["execution"]["model_opts"]["mpirun_args"] == "x"
        assert job["iteration"] == {"start": 1, "stop": 3}
        assert job["dependencies"] == {"after": "b"}

    def test_defaults_and_lists_of_jobs(self):
        text = '[{"execution": {"exec": "e", "args": "${args}"}}, {"resources": {"numCores": "${cores}"}}]'
        first, second = rendered(text, {"cores": 2}, {"args": [1]})
        assert (first["execution"]["args"], second) == ([1], {"resources": {"numCores": 2}})
        assert rendered(f'{{"request": "submit", "jobs": {text}}}', {"cores": "2"}, {"args": ()})[1] == second

    @pytest.mark.parametrize("name", ["cores", "args", "values"])
    def test_a_part_of_a_text_and_a_text_of_that_name_stay_text(self, name):
        text = f'{{"execution": {{"args": ["${{{name}}}"], "env": {{"{name}": "${{{name}}}"}}, "wd": "${{{name}}}"}}}}'
        assert job_of(text, **{name: 2}) == {"execution": {"args": ["2"], "env": {name: "2"}, "wd": "2"}}
        assert job_of(f'{{"resources": {{"numCores": "1${{{name}}}"}}}}', **{name: 2}) == {
            "resources": {"numCores": "12"}
        }


class TestSchemaKey:
    """An editor finds the schema by a key at the top; it is no part of the description."""

    @pytest.mark.parametrize(
        "text",
        [
            '{"$schema": "./job.schema.json", "name": "${name}"}',
            '\n{\n  "$schema" : "https://x/$y/${z}",\n  "name": "${name}"\n}',
            "# mine\n{  # it's\n '$schema': 'a',\n 'name': '${name}'}",
            '{"name": "${name}"}',
        ],
    )
    def test_it_is_left_out(self, text):
        assert job_of(text, name="n") == {"name": "n"}

    def test_what_follows_it_keeps_its_place(self):
        with pytest.raises(TemplateError, match="line 1, column 30"):
            rendered('{"$schema": "a", "name": "b" "c": 1}', {}, {})

    def test_elsewhere_it_is_a_placeholder_as_ever(self):
        assert job_of('{"attributes": {"$schema": "$schema"}}', schema="s") == {"attributes": {"s": "s"}}


class Scalar:
    """What numpy's scalars and arrays look like."""

    dtype = "float64"

    def __init__(self, value):
        self._value = value

    def tolist(self):
        return self._value

    def __str__(self):
        return str(self._value)


class TestOutsideQuotes:
    """A Python value is written as a literal; a str is text of the template."""

    @pytest.mark.parametrize(
        "value", [1, -2, 0.25, 1e300, True, False, [], ["a", 1, [True]], {"a": {"b": [1]}}, [EVERY_QUOTE]]
    )
    def test_values_keep_their_type(self, value):
        result = value_of("${value}", value=value)
        assert result == value
        assert type(result) is type(value)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ((1, "a"), [1, "a"]),
            (range(3), [0, 1, 2]),
            (Path("/tmp/a'b"), "/tmp/a'b"),
            ([Path("a"), (1,)], ["a", [1]]),
            ({"a": Path("b")}, {"a": "b"}),
            ({1: "a"}, {"1": "a"}),
            (Scalar(0.5), 0.5),
            (Scalar([1, 2]), [1, 2]),
            ([Scalar(1)], [1]),
        ],
    )
    def test_values_that_are_nearly_literals(self, value, expected):
        assert value_of("${value}", value=value) == expected

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('["-v"]', ["-v"]),
            ("['-v', 1]", ["-v", 1]),
            ("4", 4),
            ("true", True),
            ("'text'", "text"),
            ("'$HOME'", "$HOME"),
        ],
    )
    def test_a_str_is_inserted_as_text(self, text, expected):
        assert value_of("${value}", value=text) == expected

    def test_a_str_may_bring_a_part_of_the_structure(self):
        assert job_of('{"execution": {"exec": "e", ${more}}}', more='"args": [1]') == {
            "execution": {"exec": "e", "args": [1]}
        }

    def test_a_str_in_a_list_is_a_value(self):
        assert value_of("${value}", value=["'] + [1"]) == ["'] + [1"]

    @pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), 1j])
    def test_other_types_are_refused_by_name(self, value):
        with pytest.raises(TemplateError, match=rf"'value' is a {type(value).__name__}; give text, a number"):
            value_of("${value}", value=value)

    def test_text_without_quotes_gets_the_advice(self):
        with pytest.raises(
            TemplateError, match=r"value='/bin/echo': text, where .* no quotes.*; give a list"
        ) as caught:
            value_of("${value}", value="/bin/echo")
        assert "line 1, column" in str(caught.value)

    def test_what_is_wrong_without_any_placeholder_gets_no_advice_on_quotes(self):
        with pytest.raises(TemplateError) as caught:
            job_of('{"execution": {"exec": "true",, }}')
        assert "quotes around" not in str(caught.value)

    def test_the_error_for_a_name_without_quotes_shows_its_line(self):
        with pytest.raises(TemplateError, match="line 2"):
            job_of("{'execution': {'exec': 'e'},\n 'dependencies': {'after': ${after}}}", after="other")


class TestFutures:
    """A future renders as the names of its jobs."""

    @pytest.mark.parametrize(
        ("after", "names"),
        [
            (a_future("a"), ["a"]),
            (a_future("a", "b"), ["a", "b"]),
            ([a_future("a"), a_future("b", "c"), "d"], ["a", "b", "c", "d"]),
            ((a_future("a"),), ["a"]),
            ([], []),
        ],
    )
    def test_outside_quotes(self, after, names):
        assert value_of("${after}", after=after) == names

    def test_inside_quotes_one_job(self):
        assert value_of('["${after}"]', after=a_future("a")) == ["a"]

    def test_inside_quotes_several_jobs_are_refused(self):
        with pytest.raises(TemplateError, match="'after' is a future of 2 jobs inside quotes; leave the quotes out"):
            value_of('["${after}"]', after=a_future("a", "b"))

    def test_jobs_wait_for_the_jobs_of_futures(self, executor, tmp_path):
        os.mkfifo(tmp_path / "gate")
        first = executor.submit(ScriptTemplate, name="first", script="cat gate > made")
        second = executor.submit(ScriptTemplate, name="second", script="cat made > again", after=first)
        third = executor.submit(ScriptTemplate, name="third", script="cat made again", after=[first, second])
        (tmp_path / "gate").write_text("through\n")  # returns when the first job has opened it
        assert third.result(30) == {"third": "SUCCEED"}
        assert (tmp_path / "third.out").read_text() == "through\nthrough\n"


class TestReading:
    """JSON first, a Python literal second."""

    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ('{"a": true, "b": false, "c": [null]}', {"a": True, "b": False, "c": [None]}),
            ("{'a': true, 'b': false, 'c': [null]}", {"a": True, "b": False, "c": [None]}),
            ("{'a': True, 'b': False, 'c': [None]}", {"a": True, "b": False, "c": [None]}),
            ('{"a": True}', {"a": True}),
            ("{'a': (1, 2), 'b': 1,}", {"a": [1, 2], "b": 1}),
            (r'"\/é\ud83d\ude00"', "/é😀"),
            (r"'\x41\u00e9'", "Aé"),
            ("{'a': 'b'  'c'}", {"a": "bc"}),
        ],
    )
    def test_both_ways(self, written, expected):
        assert value_of(written) == expected

    def test_json_wins_where_the_two_differ(self):
        assert value_of(r'"\/"') == "/"

    @pytest.mark.parametrize("none", ["null", "None", "${none}"])
    def test_keys_whose_value_is_none_drop_out(self, none):
        text = '{"name": %s, "execution": {"exec": "e", "wd": %s, "env": {"A": %s}}}'
        assert job_of(text % (none, none, none), none=None) == {"execution": {"exec": "e", "env": {}}}

    def test_keys_inside_values_drop_out_too(self):
        assert job_of('{"execution": ${execution}}', execution={"exec": "e", "env": {"A": None}}) == {
            "execution": {"exec": "e", "env": {}}
        }

    def test_nothing_is_called(self):
        with pytest.raises(TemplateError):
            value_of("__import__('os').getcwd()")

    @pytest.mark.parametrize(
        "text", ['[{"name": "a"}, {"name": "b"}]', '{"request": "submit", "jobs": [{"name": "a"}, {"name": "b"}]}']
    )
    def test_a_list_and_a_whole_request(self, text):
        assert [job["name"] for job in rendered(text, {}, {})] == ["a", "b"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"request": "cancelJob"}', "is a 'cancelJob' request; only 'submit' can be submitted"),
            ("[]", "gives no job description; it must be one dictionary or a list of them"),
            ('{"request": "submit"}', "gives no job description"),
            (
                '[{"request": "submit", "jobs": [{"name": "a"}]}]',
                "is a list of requests; give the jobs of its 'submit'",
            ),
            ('["a"]', "gives no job description"),
            ("1", "gives no job description"),
            ("", "neither JSON .* nor a Python literal"),
        ],
    )
    def test_what_is_no_job_is_refused(self, text, message):
        with pytest.raises(TemplateError, match=message):
            rendered(text, {}, {})

    def test_the_error_shows_the_line_as_it_was_written(self):
        text = '{\n  "name": "${name}",\n  "execution": {"exec" "${exec}", "args": ${args}}\n}'
        with pytest.raises(TemplateError, match="line 3") as caught:
            rendered(text, {"name": "n", "exec": "e", "args": []}, {})
        assert '"execution": {"exec" ' in str(caught.value)
        assert "ud800" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "line", "column", "problem"),
        [
            ('\n\n{"name": "${name}", "execution" "${exec}"}', 3, 33, "Expecting ':' delimiter"),
            ('{"name": "${name}", \t"execution": {"exec": é}}', 1, 44, "'é' stands there without quotes"),
            ('{\n"name": "${name}",\n"wd": "a"\n"execution": {}}', 4, 1, "Expecting ',' delimiter"),
            ("{'name': '${name}',\n'wd': 'a'\n'execution': {}}", 3, 12, "invalid syntax"),
            ("{'name': '${name}', 'execution': print()}", 1, 34, "this is no literal"),
            ("{'é😀': '${name}', 'execution': {'exec': date}}", 1, 41, "'date' stands there without quotes"),
            ("{'name': '${name}',\r'wd': '''a\r\nb''',\n'execution': é}", 3, 14, "'é' stands there without quotes"),
            ('{"name": "${name}",\r\n "wd": "\\$x"}', 2, 9, "a backslash stands before a '$'"),
            ('{"name": "${name}",\n "wd": r"$x"}', 2, 10, "stands in a raw string"),
            ('{"name": "${name}",\n "wd": "${a-b}"}', 2, 9, "does not begin a placeholder"),
            ('{"name": "${name}",\n "wd": "a\\ud800"}', 2, 10, "half a surrogate pair"),
        ],
    )
    def test_what_is_wrong_with_the_text_has_its_place_in_it(self, text, line, column, problem):
        with pytest.raises(TemplateError, match=f"line {line}, column {column} of the template") as caught:
            rendered(text, {"name": "n", "exec": "e"}, {})
        error = caught.value
        assert (error.line, error.column) == (line, column)
        assert problem in error.problem
        assert "column" not in error.problem.partition("Expecting")[0]

    @pytest.mark.parametrize("wrong", ["${a b}", "${", "${a-b}", "${1}", "${}"])
    def test_a_broken_placeholder_is_shown_with_its_line(self, wrong):
        with pytest.raises(TemplateError, match=r"line 2, column 3 .*write \$\{name\}, or \$\$\{ for the characters"):
            rendered(f'{{"name":\n "{wrong}"}}', {"a": 1, "b": 2}, {})

    def test_one_template_many_times(self):
        text = '{"execution": {"args": ["a", ${more}], "env": {}}}'
        first, second = job_of(text, more=[1]), job_of(text, more=2)
        first["execution"]["env"]["A"] = "changed"
        assert second == job_of(text, more=2) == {"execution": {"args": ["a", 2], "env": {}}}

    @pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
    def test_half_a_surrogate_pair_is_refused(self, text):
        with pytest.raises(TemplateError, match="half a surrogate pair"):
            value_of('"${value}"', value=text)
        with pytest.raises(TemplateError, match="half a surrogate pair"):
            value_of("${value}", value=[text])

    @pytest.mark.parametrize(
        "written", [r'"\ud800"', r'"a\ud8017\ud801"', r'"\ud8000\ud801"', r'"\ud800it\ud801 ${a}"']
    )
    def test_half_a_surrogate_pair_in_the_template_is_refused(self, written):
        with pytest.raises(TemplateError, match="half a surrogate pair"):
            value_of(written, a=1)


class TestVariables:
    """The manager's variables pass in braces; every other dollar is literal. What counts is what arrives."""

    def test_in_the_template(self, arguments_of):
        written = '"${ncores} ${nnodes} ${jname} ${root_wd}"'
        ncores, nnodes, jname, root_wd = arguments_of(printing(written))[0].split(" ", 3)
        assert (ncores, nnodes) == ("1", "1")
        assert uuid.UUID(jname)
        assert Path(root_wd).is_dir()

    def test_in_values_inside_and_outside_quotes(self, arguments_of):
        template = printing('"${quoted}"', "${listed}")
        assert arguments_of(template, quoted="${ncores}", listed='"${ncores}"') == ["1", "1"]

    def test_every_other_dollar_arrives_as_it_was_written(self, arguments_of):
        texts = [
            "$HOME",
            "${HOME}",
            "$$",
            "$$$",
            "$date",
            "$it",
            "$(cmd)",
            "$",
            "a$",
            "$1 ${1}",
            "${",
            "$${it",
            "${IT}",
        ]
        assert arguments_of(printing('"${quoted}"'), quoted=" ".join(texts)) == [" ".join(texts)]
        assert arguments_of(BasicTemplate, args=["%s\\0", *texts]) == texts

    def test_two_dollars_in_the_template_give_one(self, arguments_of):
        written = ['"$$"', '"$$$$"', '"$$HOME"', '"$${it}"', '"$${ncores} ${ncores}"', '"$$${quoted}"', '"$(cmd) $1 $"']
        expected = ["$", "$$", "$HOME", "${it}", "1 1", "$V", "$(cmd) $1 $"]
        assert arguments_of(printing(*written), quoted="V") == expected

    def test_a_parameter_of_that_name_hides_the_variable(self, arguments_of):
        assert arguments_of(printing('"${ncores} ${date}"'), ncores="mine", date="today") == ["mine today"]
        assert arguments_of(printing('"${quoted}"'), quoted="${ncores}", ncores="mine") == ["${ncores}"]

    def test_in_a_script(self, executor, tmp_path):
        script = "it=7\necho $it $((it + 1)) $(echo sub) \"${it:-x}\" '$HOME $$ ${ncores}' > seen; echo $$ > pid"
        assert executor.submit(ScriptTemplate, name="s", script=script).result(30) == {"s": "SUCCEED"}
        assert (tmp_path / "seen").read_text() == "7 8 sub 7 $HOME $$ 1\n"
        assert int((tmp_path / "pid").read_text()) > 1

    def test_in_every_part_of_the_description(self, executor, tmp_path):
        text = """{"name": "x", "execution": {"script": "echo \\"$$A\\" > ${jname}.a", "env": {"A": "$$ ${jname}"},
                   "wd": "$$w-${jname}", "stdout": "$$o-${ncores}", "stderr": "$$$$e"}}"""
        assert executor.submit(lambda: text).result(30) == {"x": "SUCCEED"}
        assert sorted(path.name for path in (tmp_path / "$w-x").iterdir()) == ["$$e", "$o-1", "x.a"]
        assert (tmp_path / "$w-x" / "x.a").read_text() == "$ x\n"

    def test_iterations(self, executor, tmp_path):
        values = ["a b", "$HOME", "$$", "é'"]
        future = executor.submit(IterationTemplate, name="i", exec=PRINTF, args=["%s", "${it}=${itval}"], values=values)
        assert future.result(30) == {"i": "SUCCEED"}
        seen = [(tmp_path / f"i.{number}.out").read_text() for number in range(4)]
        assert seen == ["0=a b", "1=$HOME", "2=$$", "3=é'"]

    def test_without_iterations_the_variable_stays_as_written(self, arguments_of):
        assert arguments_of(BasicTemplate, args=["%s\\0", "${it}"]) == ["${it}"]

    def test_variables_of_the_submission_have_their_values_at_once(self):
        text = '[{"name": "a-${rcnt}", "u": "${uniq}"}, {"name": "b-${rcnt}", "u": "${uniq} ${sname}", "d": "${date}"}]'
        a, b = rendered(text, {}, {})
        assert a["name"][2:] == b["name"][2:]  # one submission, one value
        assert b["u"] == f"{a['u']} local"
        assert uuid.UUID(a["u"])
        assert b["d"].startswith("20")
        later = rendered(text, {}, {})[0]
        assert int(later["name"][2:]) > int(a["name"][2:])
        assert later["u"] != a["u"]

    def test_a_name_from_the_submission(self, executor):
        future = executor.submit(BasicTemplate, name="job-${rcnt}-${uniq}", exec="true")
        assert set(future.result(30)) == set(future.ids)
        assert "$" not in future.ids[0]

    @pytest.mark.parametrize("name", ["job-${it}", "${ncores}", "${jname}"])
    def test_a_name_cannot_have_what_is_known_only_at_the_start(self, name):
        with pytest.raises(InvalidJob, match="name"):
            sent('{"name": "${name}", "execution": {"exec": "e"}}', name=name)

    def test_errors_show_variables_as_they_were_written(self):
        with pytest.raises(InvalidJob) as caught:
            sent('{"name": "x", "execution": {"exec": "e"}, "resources": {"wt": "${it}"}}')
        assert "'${it}'" in str(caught.value)

    def test_the_working_directory_may_have_quotes(self, tmp_path):
        wd = tmp_path / "a\"b\\c'd $HOME"
        with QCGPJExecutor(wd=wd, resources="1") as executor:
            future = executor.submit(BasicTemplate, name="a", exec=PRINTF, args=["%s", "${root_wd}"])
            assert future.result(30) == {"a": "SUCCEED"}
        assert (wd / "stdout").read_text() == str(wd)


class TestKinds:
    """One job, a list of jobs and a whole request, run by the manager."""

    ONE = '{"name": "%s", "execution": {"exec": "touch", "args": ["%s.made"]}}'

    @pytest.mark.parametrize(
        "form", ["%s", "[%s]", '{"request": "submit", "jobs": [%s]}', "{'request': 'submit', 'jobs': (%s,)}"]
    )
    def test_one_job(self, executor, tmp_path, form):
        assert executor.submit(lambda: form % (self.ONE % ("a", "a"))).result(30) == {"a": "SUCCEED"}
        assert (tmp_path / "a.made").exists()

    @pytest.mark.parametrize("form", ["[%s, %s]", '{"request": "submit", "jobs": [%s, %s]}'])
    def test_a_list_of_jobs(self, executor, tmp_path, form):
        future = executor.submit(lambda: form % (self.ONE % ("a", "a"), self.ONE % ("b", "b")))
        assert future.ids == ["a", "b"]
        assert future.result(30) == {"a": "SUCCEED", "b": "SUCCEED"}
        assert (tmp_path / "a.made").exists()
        assert (tmp_path / "b.made").exists()

    def test_jobs_of_a_list_cannot_wait_for_each_other(self, executor):
        text = """[{"name": "a", "execution": {"exec": "true"}, "dependencies": {"after": ["b"]}},
                   {"name": "b", "execution": {"exec": "true"}, "dependencies": {"after": ["a"]}}]"""
        with pytest.raises(InvalidJob, match="after"):
            executor.submit(lambda: text)

    def test_a_job_of_a_list_may_wait_for_a_later_one(self, executor):
        text = """[{"name": "a", "execution": {"exec": "true"}, "dependencies": {"after": ["b"]}},
                   {"name": "b", "execution": {"exec": "true"}}]"""
        assert executor.submit(lambda: text).result(30) == {"a": "SUCCEED", "b": "SUCCEED"}

    def test_a_job_without_a_name_gets_one(self, executor):
        future = executor.submit(lambda: '{"execution": {"exec": "true"}}')
        other = executor.submit(lambda: '{"execution": {"exec": "true"}}')
        assert future.result(30) == {future.ids[0]: "SUCCEED"}
        assert other.result(30) == {other.ids[0]: "SUCCEED"}


def test_a_key_that_is_no_text_is_told():
    (job,) = rendered("{'execution': {'exec': 'e', 'env': {(1, 2): 2}}}", {}, {})
    with pytest.raises(InvalidJob, match="write keys as text"):
        validated(job, None)


def test_what_is_nested_too_deeply_is_told():
    with pytest.raises(TemplateError):
        rendered("[" * 900 + "]" * 900, {}, {})
