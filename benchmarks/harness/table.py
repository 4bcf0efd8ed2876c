"""The results as tables in Markdown."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Optional

from harness.results import Document, Round, Spread, cpu, every_round, figure, rate, ratio, reference_of

_NOTHING = "-"
_SHOWN = ("qcg-pilotjob-executor-api", "qcg-pilotjob", "executorlib", "parsl", "distributed", "hyperqueue")
_FEWEST_FOR_MEMORY = 10_000  # with fewer jobs theirs is lost in what the allocators do

Cell = Callable[[List[Round]], str]


def _median_of(get: Callable[[Round], Optional[float]], digits: int) -> Cell:
    def cell(rounds: List[Round]) -> str:
        value = figure(rounds, get)
        return _number(value.median, digits) if value else _NOTHING

    return cell


_OF_OPEN: Dict[str, Cell] = {
    "submit, µs": _median_of(lambda one: 1e6 * one["submitting"] / one["jobs"], 0),
    "latency, ms": _median_of(lambda one: 1000 * one["latency"], 1),
    "CPU, ms a job": _median_of(cpu, 2),
}
_OPEN_AND_CLOSE: Dict[str, Cell] = {
    "open, s": _median_of(lambda one: one["opening"], 2),
    "close, s": _median_of(lambda one: one["closing"], 2),
}
_SECONDS = _median_of(lambda one: one["seconds"], 2)


def tables(document: Document) -> Iterator[str]:
    """Return the lines of all tables of a document."""
    systems = document["systems"]
    yield _origin(document)
    if any(system["rounds"] or system["reason"] for system in systems.values()):
        yield ""
        yield from _head(["System", "jobs/s (least, most)", "of threads", *_OF_OPEN, "whole script, s"])
        yield from (_row([*_rates(each, systems), _SECONDS(each["scripts"])]) for each in _fastest_first(systems))
    if any(system["sizes"] for system in systems.values()):
        yield ""
        yield from _sizes(systems)
    if "slurm" in document:
        systems = document["slurm"]
        yield ""
        yield "In a Slurm allocation of two nodes with two cores each, both on this machine; threads on one of them:"
        yield ""
        yield from _head(["System", "jobs/s (least, most)", "of threads", *_OF_OPEN, *_OPEN_AND_CLOSE])
        for each in _fastest_first(systems):
            yield _row([*_rates(each, systems), *(cell(each["rounds"]) for cell in _OPEN_AND_CLOSE.values())])
    yield from _remarks(document)


def _origin(document: Document) -> str:
    machine, load = document["machine"], document["load"]
    job = f"/bin/sleep {load['seconds']}" if load["seconds"] else "/bin/true"
    return (
        f"{document['date']}, `{document['command']}`, revision {document['revision'] or 'unknown'}: {load['jobs']} "
        f"times `{job}`, {load['workers']} at a time. {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory'] / 2**30:.0f} GiB, {machine['kernel']}, Python {machine['python']}, load at the start "
        f"{machine['load']:.1f}.{_versions(document)}"
    )


def _versions(document: Document) -> str:
    installed = {item for system in document["systems"].values() for item in system["packages"].items()}
    shown = [f"{name} {version}" for name, version in sorted(installed) if name in _SHOWN]
    return f" {', '.join(shown)}." if shown else ""


def _rates(system: Dict[str, Any], systems: Dict[str, Any]) -> List[str]:
    """Return the cells of a system up to its CPU time."""
    rounds: List[Round] = system["rounds"]
    if not rounds:
        return [system["label"], f"not run: {system['reason'] or 'no rounds'}", *[""] * (len(_OF_OPEN) + 1)]
    beside = ratio(rounds, reference_of(systems))
    return [
        system["label"],
        _with_limits(figure(rounds, rate)),
        _number(beside.median, 2) if beside else _NOTHING,
        *(cell(rounds) if system["open"] else _NOTHING for cell in _OF_OPEN.values()),
    ]


def _sizes(systems: Dict[str, Any]) -> Iterator[str]:
    sizes = sorted({one["jobs"] for system in systems.values() for one in system["sizes"]})
    titles = ["System: jobs/s by number of jobs", *(f"{size:,}" for size in sizes)]
    yield from _head([*titles, "KB a job: client", "services"])
    for system in _fastest_first(systems):
        by_size = {one["jobs"]: one for one in system["sizes"]}
        if by_size:
            rates = [_number(rate(by_size[size]), 0) if size in by_size else _NOTHING for size in sizes]
            last = by_size[max(by_size)]
            yield _row([system["label"], *rates, *(_memory(system, last, whose) for whose in ("client", "services"))])


def _memory(system: Dict[str, Any], one: Round, whose: str) -> str:
    """Return what a job leaves behind in memory."""
    if not system["open"] or one["jobs"] < _FEWEST_FOR_MEMORY:
        return _NOTHING
    return _number(one["cost"][f"{whose}_rss"] / 1000 / one["jobs"], 1)


def _remarks(document: Document) -> Iterator[str]:
    """Return what the figures do not tell, each with the systems of which it is true."""
    of: Dict[str, List[str]] = {}
    for part in ("systems", "slurm"):
        for system in document.get(part, {}).values():
            for remark in _remarks_on(system):
                of.setdefault(remark, []).append(system["label"])
    if of:
        yield ""
        yield from (f"- {'; '.join(labels)}: {remark}." for remark, labels in of.items())


def _remarks_on(system: Dict[str, Any]) -> Iterator[str]:
    every = every_round(system)
    lost = sum(one["lost"] for one in every)
    stalled = sum(one["seconds"] is None for one in every)
    if lost:
        yield f"{lost} jobs LOST"
    if stalled:
        yield f"{stalled} of {len(every)} rounds stalled, as an event was lost"
    if system["skipped"] and every:
        yield system["skipped"]


def _fastest_first(systems: Dict[str, Any]) -> List[Dict[str, Any]]:
    def speed(system: Dict[str, Any]) -> float:
        own = figure(system["rounds"] or system["sizes"], rate)
        return own.median if own else 0.0

    return sorted(systems.values(), key=speed, reverse=True)


def _with_limits(value: Optional[Spread]) -> str:
    return f"{value.median:.0f} ({value.least:.0f}, {value.most:.0f})" if value else "stalled"


def _number(value: Optional[float], digits: int) -> str:
    return "stalled" if value is None else f"{value:.{digits}f}"


def _head(titles: List[str]) -> Iterator[str]:
    yield _row(titles)
    yield "|---|" + "---:|" * (len(titles) - 1)


def _row(cells: List[str]) -> str:
    return f"| {' | '.join(cells)} |"
