#!/usr/bin/env python3
"""What a job costs in the client: the time of submit(), CPU time and memory.

A stand-in takes the manager's place, in a process of its own: it takes every job and says that it has succeeded, so
that nothing but the client is measured. Each number of jobs has three rounds, each in a process of its own:

- idle: the stand-in answers nothing until all is submitted, so the dispatcher's thread sleeps meanwhile;
- busy: it ends each job as soon as it gets it, while more are submitted;
- traced: as idle, under tracemalloc, for the memory alone.

In idle and traced rounds all jobs arrive before the first one ends: "queued" is the memory when all are submitted,
"pending" when the stand-in has them, "done" when they have ended; the futures are held all the time.
"""

import argparse
import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from concurrent.futures import wait
from pathlib import Path
from typing import IO, Any, Dict, List

import psutil
import zmq


def stand_in(run: Path) -> None:
    """Be a manager: "take" jobs and "end" them from the moment that standard input says so, until it ends."""
    run.mkdir()
    context = zmq.Context()
    requests, events = context.socket(zmq.REP), context.socket(zmq.XPUB)
    events.set(zmq.SNDHWM, 0)
    for name, channel in (("requests", requests), ("events", events)):
        channel.bind(f"ipc://{run}/{name}")
    description = {
        "address": f"ipc://{run}/requests",
        "events": f"ipc://{run}/events",
        "capacity": {"nodes": 1, "cores": 4, "node_cores": [[4, True]], "resources": {}},
        "report": f"{run}/jobs.report",
        "recorded": 0,
        "pid": os.getpid(),
        "host": socket.gethostname(),
    }
    (run / "manager.json").write_text(json.dumps(description))
    print("ready", flush=True)
    poller = zmq.Poller()
    poller.register(0, zmq.POLLIN)
    poller.register(events, zmq.POLLIN)
    ends, names = False, []
    while True:
        ready = dict(poller.poll())
        if 0 in ready:
            order = os.read(0, 100)
            if not order:
                return
            ends = ends or b"end" in order
            poller.register(requests, zmq.POLLIN)
        if events in ready and events.recv() == b"\x01HLO":
            events.send(b"HLO {}")
        if requests in ready:
            request = json.loads(requests.recv())
            asked = {name: {"data": {"status": "QUEUED"}} for name in request.get("jobNames", ())}
            requests.send(json.dumps({"code": 0, "data": {"jobs": asked}}).encode())
            names += [job["name"] for job in request.get("jobs", ())]
        for name in names if ends else ():
            events.send(f"JFI {json.dumps({'job': name, 'state': 'SUCCEED'})}".encode())
        names = [] if ends else names


def line() -> str:
    """A job in one line."""
    return '{"name": "${name}", "execution": {"exec": "${exec}"}}'


def measure(kind: str, jobs: int, template: Any, run: Path, orders: IO[bytes]) -> Dict[str, float]:
    """Submit `jobs`, and return the figures of one round."""
    from qcg.pilotjob.executor_api import QCGPJExecutor

    figures: Dict[str, float] = {}

    def memory(key: str) -> None:
        figures[f"{key}, RSS"] = (psutil.Process().memory_info().rss - before) / jobs
        if kind == "traced":
            figures[f"{key}, traced"] = tracemalloc.get_traced_memory()[0] / jobs

    with QCGPJExecutor(manager=run) as executor:
        pending = executor._connection.dispatcher._pending
        futures: List[Any] = [None] * jobs
        if kind == "busy":
            orders.write(b"take, end")
            executor.submit(template, name="first", exec="/bin/true").result()
        gc.collect()
        before = psutil.Process().memory_info().rss
        if kind == "traced":
            tracemalloc.start()
        start, client, thread = time.perf_counter(), time.process_time(), time.thread_time()
        for number in range(jobs):
            futures[number] = executor.submit(template, name=f"job{number}", exec="/bin/true")
        figures["submit us"] = (time.perf_counter() - start) / jobs * 1e6
        figures["submit CPU us"] = (time.thread_time() - thread) / jobs * 1e6
        memory("queued")
        orders.write(b"take")
        while len(pending) < jobs and kind != "busy":
            time.sleep(0.05)
        memory("pending")
        orders.write(b"end")
        wait(futures)
        figures["client CPU us"] = (time.process_time() - client) / jobs * 1e6
        figures["jobs/s"] = jobs / (time.perf_counter() - start)
        memory("done")
    return figures


def worker(kind: str, jobs: int, template: str) -> None:
    """Run one round with a stand-in of its own, and print its figures."""
    from qcg.pilotjob.executor_api import BasicTemplate

    with tempfile.TemporaryDirectory(prefix="submit-") as directory:
        run = Path(directory, ".qcgpjm-service-stand-in")
        with subprocess.Popen(
            [sys.executable, __file__, "--stand-in", run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            print(json.dumps(measure(kind, jobs, {"basic": BasicTemplate, "line": line}[template], run, process.stdin)))
            process.stdin.close()


def main() -> None:
    """Print the figures of each number of jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", type=int, nargs="*", default=[1000, 20_000, 200_000])
    parser.add_argument("--template", choices=["basic", "line"], default="basic")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--worker", choices=["idle", "busy", "traced"], help=argparse.SUPPRESS)
    parser.add_argument("--stand-in", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stand_in:
        stand_in(options.stand_in)
    elif options.worker:
        worker(options.worker, options.jobs[0], options.template)
    else:
        for jobs in options.jobs:
            for kind, rounds in (("idle", options.rounds), ("busy", options.rounds), ("traced", 1)):
                show(kind, jobs, [in_process(kind, jobs, options.template) for _ in range(rounds)])


def in_process(kind: str, jobs: int, template: str) -> Dict[str, float]:
    """Run one round in a process of its own."""
    command = [sys.executable, __file__, str(jobs), "--worker", kind, "--template", template]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


def show(kind: str, jobs: int, rounds: List[Dict[str, float]]) -> None:
    """Print the smallest and the middle figure of the rounds: times in microseconds, or bytes a job."""
    wanted = {"idle": ("us", "jobs/s", "RSS"), "busy": ("us", "jobs/s"), "traced": ("traced",)}[kind]
    print(f"{jobs} jobs, {kind}: minimum and median of {len(rounds)} rounds")
    for key in rounds[0]:
        if key.endswith(wanted):
            figures = [figures[key] for figures in rounds]
            print(f"  {key:16} {min(figures):8.1f} {statistics.median(figures):8.1f}", flush=True)


if __name__ == "__main__":
    main()
