"""The results as tables in Markdown."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Dict, Iterator, List, Optional

from harness.results import Document, Round, Spread, cpu, figure, rate, ratio, reference_of

_NOTHING = "-"


def tables(document: Document) -> Iterator[str]:
    """Return the lines of all tables of a document."""
    yield from _origin(document)
    yield ""
    yield from _systems(document["systems"], whole=True)
    if any(system["sizes"] for system in document["systems"].values()):
        yield ""
        yield from _sizes(document["systems"])
    if "slurm" in document:
        yield ""
        yield "In a Slurm allocation of two nodes with two cores each, both on this machine; threads on one of them:"
        yield ""
        yield from _systems(document["slurm"], whole=False)
    yield from _remarks(document)


def _origin(document: Document) -> Iterator[str]:
    machine, load = document["machine"], document["load"]
    job = f"/bin/sleep {load['seconds']}" if load["seconds"] else "/bin/true"
    yield (
        f"{document['date']}, `{document['command']}`, revision {document['revision'] or 'unknown'}: {load['jobs']} "
        f"times `{job}`, {load['workers']} at a time. {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory'] / 2**30:.0f} GiB, {machine['kernel']}, Python {machine['python']}, load at the start "
        f"{machine['load']:.1f}."
    )


def _systems(systems: Dict[str, Any], *, whole: bool) -> Iterator[str]:
    titles = ["System", "jobs/s (least, most)", "of threads", "submit, µs", "latency, ms", "CPU, ms a job"]
    last = {"whole": "whole script, s"} if whole else {"opening": "open, s", "closing": "close, s"}
    yield from _head([*titles, *last.values()])
    for system in sorted(systems.values(), key=_speed, reverse=True):
        rounds: List[Round] = system["rounds"]
        if not rounds:
            yield _row([system["label"], f"not run: {system['reason']}"], len(titles) + len(last))
            continue
        cells = [
            _with_limits(figure(rounds, rate)),
            _median(ratio(rounds, reference_of(systems)), 2),
            _median(figure(rounds, lambda one: 1e6 * one["submitting"] / one["jobs"]), 0)
            if system["open"]
            else _NOTHING,
            _median(figure(rounds, lambda one: 1000 * one["latency"] if "latency" in one else None), 1),
            _median(figure(rounds, cpu), 2) if system["open"] else _NOTHING,
        ]
        cells += [_median(figure(rounds, itemgetter(key)), 2) for key in last]
        yield _row([system["label"], *cells], len(cells) + 1)


def _sizes(systems: Dict[str, Any]) -> Iterator[str]:
    sizes = sorted({one["jobs"] for system in systems.values() for one in system["sizes"]})
    yield from _head(
        ["System: jobs/s by number of jobs", *(f"{size:,}" for size in sizes), "KB a job: client", "services"]
    )
    for system in sorted(systems.values(), key=_speed, reverse=True):
        by_size = {one["jobs"]: one for one in system["sizes"]}
        if by_size:
            rates = [_number(rate(by_size[size]), 0) if size in by_size else _NOTHING for size in sizes]
            yield _row([system["label"], *rates, *_memory(by_size[max(by_size)], system["open"])], len(sizes) + 3)


def _memory(one: Round, is_open: bool) -> List[str]:
    """Return what a job leaves behind in memory; with few jobs that is lost in what the allocators do."""
    if not is_open or one["jobs"] < 10_000:
        return [_NOTHING, _NOTHING]
    return [f"{one['cost'][whose] / 1000 / one['jobs']:.1f}" for whose in ("client_rss", "services_rss")]


def _remarks(document: Document) -> Iterator[str]:
    remarks = []
    for part in ("systems", "slurm"):
        for system in document.get(part, {}).values():
            every = [*system["rounds"], *system["sizes"]]
            stalled = sum(one["seconds"] is None for one in every)
            remarks += [f"{system['label']}: {stalled} of {len(every)} rounds stalled, an event was lost"] * bool(
                stalled
            )
            lost = sum(one["lost"] for one in every)
            remarks += [f"{system['label']}: {lost} jobs LOST"] * bool(lost)
            remarks += [f"{system['label']}: {system['skipped']}"] * bool(system["skipped"] and system["rounds"])
    if remarks:
        yield ""
        yield from (f"- {remark}" for remark in remarks)


def _speed(system: Dict[str, Any]) -> float:
    own = figure(system["rounds"] or system["sizes"], rate)
    return own.median if own else 0.0


def _with_limits(value: Optional[Spread]) -> str:
    return f"{value.median:.0f} ({value.least:.0f}, {value.most:.0f})" if value else "stalled"


def _median(value: Optional[Spread], digits: int) -> str:
    return _number(value.median, digits) if value else _NOTHING


def _number(value: Optional[float], digits: int) -> str:
    return "stalled" if value is None else f"{value:.{digits}f}"


def _head(titles: List[str]) -> Iterator[str]:
    yield _row(titles, len(titles))
    yield "|---|" + "---:|" * (len(titles) - 1)


def _row(cells: List[str], columns: int) -> str:
    return "| " + " | ".join([*cells, *[""] * (columns - len(cells))]) + " |"
