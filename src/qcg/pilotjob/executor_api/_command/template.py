"""The options of ``qcg-pm-template``, and what is done with them."""

# No annotations from the future: typer reads them, and with Python 3.9 it cannot read those.

import json
from pathlib import Path
from typing import Any, List

from typing_extensions import Annotated

from qcg.pilotjob.executor_api._command.program import listing, run_app, typer
from qcg.pilotjob.executor_api._description.check.report import Finding, Report, checked
from qcg.pilotjob.executor_api._description.reading import text_of
from qcg.pilotjob.executor_api.errors import TemplateError

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Templates of jobs: what is wrong in them, and more."
)

_SCHEMA = Path(__file__).parents[1] / "job.schema.json"
_WRONG = 1


@app.command()
def check(
    files: Annotated[List[Path], typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True)],
) -> None:
    """Say all that is wrong in templates: FILE:LINE:COLUMN: what; the exit code is 1 when there is something.

    Of a good file the parameters are told. Nothing is run.
    """
    wrong = False
    for file in files:
        report = _report(file)
        wrong = wrong or bool(report.findings)
        for finding in report.findings:
            print(f"{file}:{finding.line}:{finding.column}: {finding.problem}")
        if not report.findings:
            print(f"{file}: {_parameters(report)}")
    if wrong:
        raise typer.Exit(_WRONG)


@app.command()
def schema(path: Annotated[bool, typer.Option("--path", help="Print where the file is.")] = False) -> None:
    """Print the JSON Schema of template files, for editors."""
    print(_SCHEMA if path else _SCHEMA.read_text(encoding="utf-8"), end="\n" if path else "")


@app.command(name="list")
def list_templates() -> None:
    """Print the names of the templates that come with the package."""
    print(listing())


def _report(file: Path) -> Report:
    try:
        text = text_of(file)
    except TemplateError as error:
        return Report([Finding(error.line or 1, error.column or 1, error.problem)])
    return checked(text)


def _parameters(report: Report) -> str:
    parts = [f"parameters: {', '.join(report.required)}"] if report.required else []
    if report.defaults:
        parts.append(
            f"with defaults: {', '.join(f'{name}={_shown(value)}' for name, value in report.defaults.items())}"
        )
    if report.waits_for:
        parts.append(f"submitted before: {', '.join(report.waits_for)}")
    return "; ".join(parts) or "no parameters"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    """Run the command, and end the program with its exit code."""
    run_app(app, OSError)
