"""Make the JSON Schema of template files from the types in jobs.py; ``make schema`` puts it into the package.

Keys, types, what is required and the descriptions are those of jobs.py. What its types cannot say is here: what a
placeholder may stand for, what else than the type is taken, and which keys go together. Draft 7 is the newest that all
of the common editors know.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import typing
from typing import Any, Dict, List, Type

from typing_extensions import is_typeddict

from qcg.pilotjob.executor_api import jobs
from qcg.pilotjob.executor_api._shared.rules import MODELS

if sys.version_info >= (3, 11):
    from typing import Required, get_type_hints
else:
    from typing_extensions import Required, get_type_hints

__all__ = ["text_of_schema"]

Schema = Dict[str, Any]

NAME = "[_a-zA-Z][_a-zA-Z0-9]*"
PLACEHOLDER = rf"\$(?:{NAME}|\{{{NAME}\}})"
HAS_PLACEHOLDER = rf"^(?:[^$]|\$\$)*{PLACEHOLDER}"
DOLLARS = rf"\$\$|\$\{{{NAME}\}}|\$(?![{{$])"
TEXT = rf"^(?:[^$\u0000]|{DOLLARS})*$"
NUMBER = r"\d+(?:\.\d+)?"
IN_UNITS = "".join(f"(?:{NUMBER}{unit})?" for unit in "dhms")
CLOCK = r"(?:\d+(?:-| days?, )(?:1?\d|2[0-3]|0\d)|\d+):[0-5]\d:[0-5]\d(?:\.\d+)?"
WALLTIME = rf"^(?:(?=.*[1-9])(?=\d)(?:{NUMBER}|{IN_UNITS}|{CLOCK}))?$"
VARIABLE = rf"^(?:[A-Za-z_]|{PLACEHOLDER})(?:[A-Za-z0-9_]|{PLACEHOLDER})*$"
NOT_IN_NAMES = r"\u0000-\u0022$-*:-<>?\[-\^`{-}\u007f-\u00a0\u00ad\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff"
JOB_NAME = rf"^(?!(?:.*/)?\.{{0,2}}(?:/|$))(?:[^{NOT_IN_NAMES}]|{PLACEHOLDER})+$"
VALUE = r"^[^\"\\\u0000-\u001f]*$"

NO_PLACEHOLDER = "'${' does not begin a placeholder: write ${name}, or $${ for the characters themselves."
MESSAGES = {
    TEXT: NO_PLACEHOLDER,
    WALLTIME: "Write seconds, like 90, or 1h30m, 01:30:00, 1-00:00:00 with the days before it.",
    JOB_NAME: "Use letters, digits and - _ . / @ + = , # ~ (and what can be printed beyond ASCII).",
}
"""What an editor says of text that is not like the pattern."""

NULL: Schema = {"type": "null"}
WHOLE: Schema = {"type": "string", "pattern": f"^{PLACEHOLDER}$"}
PARTLY: Schema = {"type": "string", "pattern": HAS_PLACEHOLDER}


def text(pattern: str = TEXT) -> Schema:
    return {
        "type": "string",
        "pattern": pattern,
        "patternErrorMessage": MESSAGES[pattern],
    }  # VS Code's, as errorMessage


def or_null(*schemas: Schema) -> Schema:
    """A key whose value is null drops out."""
    return {"anyOf": [*schemas, NULL]}


def value(*schemas: Schema) -> Schema:
    """Something else than text, or a placeholder for it."""
    return or_null(*schemas, WHOLE)


def number(least: int) -> Schema:
    return {"type": "integer", "minimum": least}


def scalar(pattern: str = TEXT) -> Schema:
    """What becomes text."""
    return {"type": ["string", "number", "boolean"], "pattern": pattern}


def any_case(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter}]" for letter in word)


def words(*known: str) -> List[Schema]:
    """Some words, for completion; in other letters, or by a placeholder."""
    in_any_case = {"type": "string", "pattern": f"^(?:{'|'.join(map(any_case, known))})?$"}
    return [{"enum": list(known)}, in_any_case, PARTLY]


def keys(pattern: str) -> Schema:
    return {"anyOf": [{"pattern": pattern}, PARTLY]}


def items(item: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": item, **more}


SCHEDULER = {
    "type": "object",
    "properties": {
        "name": {"anyOf": [{"enum": ["maximum-iters", "split-into"]}, PARTLY]},
        "params": {"description": "Parameters of it, like `parts` of `split-into`."},
    },
    "required": ["name"],
    "additionalProperties": False,
    "patternProperties": {HAS_PLACEHOLDER: {}},
}

VALUES: Dict[str, Schema] = {
    "Execution.exec": or_null(text()),
    "Execution.args": value(items(scalar())),
    "Execution.script": or_null(text()),
    "Execution.login": value({"type": "boolean"}),
    "Execution.env": value(
        {"type": "object", "propertyNames": keys(VARIABLE), "additionalProperties": or_null(scalar())}
    ),
    "Execution.modules": or_null(items(text()), text()),
    "Execution.venv": or_null(text()),
    "Execution.model": or_null(*words(*MODELS)),
    "Execution.model_opts": value(
        {
            "type": "object",
            "properties": {
                "mpirun": or_null(text()),
                "mpirun_args": value(items(scalar())),
                "srun_args": value(items(scalar())),
            },
            "additionalProperties": False,
            "patternProperties": {HAS_PLACEHOLDER: {}},
        }
    ),
    "Size.scheduler": value(SCHEDULER),
    "Resources.wt": or_null(text(WALLTIME), {"type": "number", "exclusiveMinimum": 0}, PARTLY),
    "Resources.gpus": value(number(0)),
    "Resources.nodeCrs": value(
        {
            "type": "object",
            "properties": {"gpu": value(number(1))},
            "propertyNames": keys(f"^{any_case('gpu')}$"),
            "additionalProperties": value(number(1)),
        }
    ),
    "Iteration.start": value(number(0)),
    "Iteration.values": value(items(scalar(VALUE), minItems=1)),
    "Dependencies.after": or_null(items(text()), text()),
    "Job.name": or_null(text(JOB_NAME)),
}
"""What a key takes, where its type says less or more than that."""


def present(key: str) -> Schema:
    """The key is there for some choice of the parameters."""
    return {"required": [key], "properties": {key: {"not": NULL}}}


def given(key: str, schema: Schema) -> Schema:
    """The key has such a value whatever the parameters are."""
    return {"required": [key], "properties": {key: schema}}


def given_value(key: str) -> Schema:
    return given(key, {"not": {"anyOf": [NULL, WHOLE]}})


def given_text(key: str) -> Schema:
    return given(key, {"type": "string", "not": {"pattern": f"^(?:{PLACEHOLDER})*$"}})


def never(message: str, *schemas: Schema) -> Schema:
    return {"not": {"allOf": list(schemas)}, "errorMessage": message}  # this key is one of VS Code's


def one_of(message: str, *schemas: Schema) -> Schema:
    return {"anyOf": list(schemas), "errorMessage": message}


SOMETHING = {"type": "string", "minLength": 1}
ITEMS = {"type": "array", "minItems": 1}
RANGE = {"anyOf": [given_value("min"), given_value("max"), given_value("scheduler")]}
TOGETHER: Dict[str, List[Schema]] = {
    "Execution": [
        one_of(
            "Name the program to run in 'exec', or write a 'script'.",
            given("exec", SOMETHING),
            given("script", SOMETHING),
        ),
        never("Keep one of 'exec' and 'script'.", given_text("exec"), given_text("script")),
        never("A script holds its own commands: leave 'args' out.", given_text("script"), given("args", ITEMS)),
    ],
    "Size": [
        one_of("Write 'exact', or 'min' and 'max'.", present("exact"), present("min"), present("max")),
        never("Keep 'exact', or 'min' and 'max'.", given_value("exact"), RANGE),
        one_of(
            "Write 'max' too, or a scheduler in an array.",
            {"not": given_value("min")},
            present("max"),
            present("scheduler"),
            present("exact"),
        ),
        never("The scheduler chooses the size: leave 'max' out.", given_value("max"), given_value("scheduler")),
    ],
    "Iteration": [
        one_of("Write 'stop' or 'values'.", present("stop"), present("values")),
        never("Keep one of 'stop' and 'values'.", given_value("stop"), given_value("values")),
        never("Leave 'start' out: it does not go with 'values'.", given_value("start"), given_value("values")),
    ],
}
"""Which keys go together."""


def is_required(hint: Any) -> bool:
    origin: Any = typing.get_origin(hint)
    return origin is Required


def of_type(hint: Any) -> Schema:
    """Return the schema of what may be written for a type."""
    origin: Any = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is Required:
        return of_type(arguments[0])
    if is_typeddict(hint):
        return {"$ref": f"#/definitions/{hint.__name__}"}
    if origin is typing.Union:
        return {"anyOf": [of_type(argument) for argument in arguments]}
    if hint is int:
        return number(1)
    if hint is str:
        return text()
    if origin is dict:
        return {"type": "object"}
    raise TypeError(f"jobs.py has a field of the type {hint}; say in VALUES what is written there")


def of_field(name: str, key: str, hint: Any) -> Schema:
    if f"{name}.{key}" in VALUES:
        return VALUES[f"{name}.{key}"]
    schema = of_type(hint)
    if is_required(hint):
        return {"anyOf": [schema, WHOLE]}
    return or_null(schema) if schema.get("type") == "string" else value(schema)


def of_class(kind: Type[Any]) -> Schema:
    """Return the schema of one of the dictionaries."""
    name = kind.__name__
    hints = get_type_hints(kind, include_extras=True)
    described = descriptions()
    schema: Schema = {
        "type": "object",
        "description": described[name],
        "properties": {
            key: {"description": described[f"{name}.{key}"], **of_field(name, key, hint)} for key, hint in hints.items()
        },
        "additionalProperties": False,
        "patternProperties": {HAS_PLACEHOLDER: {}},  # which key it is, the parameter will say
    }
    required = [key for key, hint in hints.items() if is_required(hint)]
    if required:
        schema["required"] = required
    if name in TOGETHER:
        schema["allOf"] = TOGETHER[name]
    return schema


def descriptions() -> Dict[str, str]:
    """Return the docstrings of classes, and of their fields, which only the source has."""
    found = {}
    for node in ast.parse(inspect.getsource(jobs)).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = plain(ast.get_docstring(node) or "")
            for field, below in zip(node.body, node.body[1:]):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    found[f"{node.name}.{ast.unparse(field.target)}"] = plain(ast.literal_eval(below.value))
    return found


def plain(docstring: str) -> str:
    return re.sub(r"\s+", " ", docstring.replace("``", "`")).strip()


def schema() -> Schema:
    """Return the schema of a template file."""
    definitions = {
        kind.__name__: of_class(kind)
        for kind in (jobs.Job, jobs.Execution, jobs.Size, jobs.Resources, jobs.Iteration, jobs.Dependencies)
    }
    template = {**definitions["Job"], "properties": dict(definitions["Job"]["properties"])}
    template["properties"]["defaults"] = {
        "description": "Values for placeholders that are given none.",
        "type": ["object", "null"],
        "additionalProperties": {"not": PARTLY},
    }
    template["properties"]["$schema"] = {
        "description": "Where this schema is, for editors; it has to be the first key.",
        "type": "string",
    }
    job = {"$ref": "#/definitions/Job"}
    request = {"properties": {"request": {"const": "submit"}, "jobs": {"anyOf": [items(job, minItems=1), job]}}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A template of jobs for QCG-PilotJob",
        "description": "One job, or a list of jobs, with ${placeholders}.",
        "if": {"type": "array"},
        "then": {"minItems": 1, "items": job},
        "else": {
            "if": {"required": ["request"]},
            "then": {**request, "type": "object", "required": ["jobs"]},
            "else": {"$ref": "#/definitions/Template"},
        },
        "definitions": {"Template": template, **definitions},
    }


def text_of_schema() -> str:
    """Return the schema as it stands in the file."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text_of_schema())
