"""The options of ``qcg-pm-map``, and what is done with them."""

# No annotations from the future: typer reads them, and with Python 3.9 it cannot read those.

import json
import sys
from concurrent.futures import wait
from pathlib import Path
from typing import Any, Dict, List, Optional

from typing_extensions import Annotated

from qcg.pilotjob.executor_api._command import table
from qcg.pilotjob.executor_api._command.parameters import combined, grid, read_rows, settings
from qcg.pilotjob.executor_api._command.program import listing, run_app, typer
from qcg.pilotjob.executor_api._command.study import Study
from qcg.pilotjob.executor_api._command.submitted import Submitted
from qcg.pilotjob.executor_api._shared.run_files import find_run, of_this_user, runs_in
from qcg.pilotjob.executor_api.allocation import Allocation
from qcg.pilotjob.executor_api.errors import ManagerDied, QCGPJError
from qcg.pilotjob.executor_api.qcgpj_executor import QCGPJExecutor
from qcg.pilotjob.executor_api.run_record import RunRecord

__all__ = ["app", "main"]

app = typer.Typer(add_completion=False)

_PANEL = "An allocation of its own"
_FAILED = 1


@app.command()
def run(  # noqa: PLR0917  # typer makes options of them
    template: Annotated[
        Optional[str], typer.Argument(help="A template: a JSON file, or one of those of --list-templates.")
    ] = None,
    parameters: Annotated[
        Optional[Path], typer.Argument(help="A row for each job: CSV with a header, or JSON lines.")
    ] = None,
    grid_axes: Annotated[
        Optional[List[str]],
        typer.Option("--grid", metavar="NAME=FIRST:LAST:STEP", help="All of a range (or NAME=a,b,c); more than once."),
    ] = None,
    fixed: Annotated[
        Optional[List[str]], typer.Option("--set", metavar="NAME=VALUE", help="A parameter of all; more than once.")
    ] = None,
    name: Annotated[str, typer.Option(help="The jobs' names, by parameters and ${n}, the row's number.")] = "run${n}",
    wd: Annotated[Path, typer.Option(help="Where the jobs run.")] = Path(),
    resources: Annotated[
        Optional[str], typer.Option(help="Cores, or nodes with cores; by default all there are.")
    ] = None,
    nodes: Annotated[
        Optional[int],
        typer.Option(help="On a login node: ask the scheduler for so many nodes.", rich_help_panel=_PANEL),
    ] = None,
    walltime: Annotated[
        Optional[str], typer.Option(help="For how long, like 90m; by default an hour.", rich_help_panel=_PANEL)
    ] = None,
    queue: Annotated[Optional[str], typer.Option(help="The partition or queue.", rich_help_panel=_PANEL)] = None,
    account: Annotated[Optional[str], typer.Option(help="Whose core-hours.", rich_help_panel=_PANEL)] = None,
    cores_per_node: Annotated[
        Optional[int], typer.Option(help="Cores of each node; by default whole nodes.", rich_help_panel=_PANEL)
    ] = None,
    scheduler: Annotated[
        Optional[str], typer.Option(help="slurm, pbs, lsf, ...; by default what is here.", rich_help_panel=_PANEL)
    ] = None,
    renew: Annotated[
        Optional[int], typer.Option(help="How many more, when one has ended.", rich_help_panel=_PANEL)
    ] = None,
    results: Annotated[Path, typer.Option(help="The table of results, in the jobs' directory.")] = Path("results.csv"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the jobs as JSON lines, and run nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the jobs' directory.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="The same, and run again what has not succeeded.")
    ] = False,
    watch: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Follow the run that somebody has started there.")
    ] = None,
    list_templates: Annotated[bool, typer.Option("--list-templates", help="Print the templates' names.")] = False,
) -> None:
    """Run one job for each row of parameters; the exit code is 1 when one has not succeeded.

    In a Slurm allocation all of its nodes are used, elsewhere this machine, or an allocation that is asked for.
    """
    asked_for = {
        "nodes": nodes,
        "walltime": walltime,
        "queue": queue,
        "account": account,
        "cores_per_node": cores_per_node,
        "scheduler": scheduler,
        "renew": renew,
    }
    if list_templates:
        print(listing())
    elif watch is not None:
        if template is not None:
            raise typer.BadParameter("--watch follows a run that somebody else has started; leave the template out")
        _watch(watch)
    elif template is None:
        raise typer.BadParameter("give a template; --list-templates names those that come with this")
    else:
        fixed_values, points = settings(fixed or []), grid(grid_axes or [])
        rows = combined(fixed_values, read_rows(parameters) if parameters is not None else [{}], points)
        study = Study(template, rows, name)
        study.refuse_unused(list(dict.fromkeys(column for row in rows for column in row)))
        if dry_run:
            for job in study.descriptions():
                print(json.dumps(job))
        else:
            if parameters is not None and (wd / results).exists() and (wd / results).samefile(parameters):
                raise typer.BadParameter(f"--results: {parameters} is the table of parameters")
            options = {"resources": resources, "allocation": _allocation(asked_for)}
            _run(study, wd, options, results, resume=resume or retry_failed, retry_failed=retry_failed)


def _run(study: Study, wd: Path, options: Dict[str, Any], results: Path, *, resume: bool, retry_failed: bool) -> None:
    study.refuse_equal_names()  # what is wrong with one of them is told before any runs
    run = find_run("--wd", wd) if resume and of_this_user(runs_in(str(wd))) else None
    if run is not None:
        for remark in Submitted(Path(run)).remarks(study.rows, study.digest, retry_failed=retry_failed):
            print(remark, file=sys.stderr)
    elif (wd / results).exists():
        print(f"{wd / results} will be written anew; --resume goes on with an earlier run", file=sys.stderr)
    (wd / results).parent.mkdir(parents=True, exist_ok=True)
    futures: List[Any] = []
    try:
        where: Dict[str, Any] = {"wd": wd} if run is None else {"resume": run}
        with QCGPJExecutor(**options, progress=_has_tqdm(), **where) as executor:
            submitted = Submitted(_directory_of(executor))
            # one by one: those that an interrupt finds submitted are in the table
            futures.extend(
                study.submit(executor, submitted)
                if run is None
                else study.resume(executor, submitted, retry_failed=retry_failed)
            )
            wait(futures)
    except (QCGPJError, OSError) as error:
        if not futures:
            raise  # nothing was run
        print(error, file=sys.stderr)
        raise typer.Exit(_FAILED) from error
    finally:
        ended = table.ended(study.rows, futures)
        if ended:
            _write(wd / results, ended)
    if any(row["state"] != "SUCCEED" for row in ended):
        raise typer.Exit(_FAILED)


def _write(path: Path, ended: List[Dict[str, Any]]) -> None:
    try:
        table.write(path, ended)
    except OSError as error:
        print(f"{table.summary(ended)}; {path} cannot be written: {error.strerror}", file=sys.stderr)
        raise typer.Exit(_FAILED) from error
    print(f"{table.summary(ended)}; see {path}", file=sys.stderr)


def _directory_of(executor: QCGPJExecutor) -> Path:
    """Return the manager's directory."""
    report = executor._connection.dispatchers[0].link.report
    assert report is not None  # it is a manager of this package
    return report.path.parent


def _allocation(asked_for: Dict[str, Any]) -> Optional[Allocation]:
    given = {name: value for name, value in asked_for.items() if value is not None}
    return Allocation(**given) if given else None


def _watch(directory: Path) -> None:
    run = find_run("--watch", directory)
    try:
        ended = _followed(run)
    except ManagerDied as gone:  # before this, or in this moment: its record tells of all
        ended = [dict(row) for row in RunRecord.of(run)]
        if any(row["state"] == "UNFINISHED" for row in ended):
            print(gone, file=sys.stderr)
    print(table.summary(ended), file=sys.stderr)
    if any(row["state"] != "SUCCEED" for row in ended):
        raise typer.Exit(_FAILED)


def _followed(run: str) -> List[Dict[str, Any]]:
    with QCGPJExecutor(manager=run, progress=_has_tqdm()) as executor:
        names = sorted({row["name"] for row in RunRecord.of(run)})
        futures = [executor.attach(name) for name in names]
        wait(futures)
        return table.ended({name: {"name": name} for name in names}, futures)


def _has_tqdm() -> bool:
    import importlib.util

    return importlib.util.find_spec("tqdm") is not None


def main() -> None:
    """Run the command, and end the program with its exit code."""
    run_app(app, ImportError, OSError)
