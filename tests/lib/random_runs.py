#!/usr/bin/env python3
"""Make random runs of jobs with random faults, and hold what becomes of them against the model; print the seeds.

Each run submits jobs, arrays and dependants, cancels them, uses names again, kills or ends the client, the manager and
the process that starts jobs, alone or together and at any moment, and resumes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, List

import processes
from model import SCRIPT, Broken, Job, Model, expect

CLIENT = """
import json, sys
from concurrent.futures import wait
from qcg.pilotjob.executor_api import *
executor, futures = QCGPJExecutor(resources=2, **json.loads(sys.argv[1])), {}
process = executor._connection.dispatcher.link.process
def submit(jobs):
    for job in jobs:
        futures[job["name"]] = executor.submit(lambda: json.dumps(job))
    futures[job["name"]].status()  # so they have arrived
def states(names):
    whole = {name: futures[name].status().get(name) for name in names}  # first: when it has ended, so have its parts
    return {name: [whole[name], [one.state for one in futures[name].iterations().get(name, ())]] for name in names}
def attach(names):
    unknown = []
    for name in names:
        try:
            futures[name] = executor.attach(name)
        except JobUnknown:
            unknown.append(name)
    return unknown
does = {
    "submit": submit, "states": states, "attach": attach, "cancel": lambda name: futures[name].cancel(),
    "remove": lambda name: executor.qcgpj_manager.remove([name]),
    "wait": lambda names: len(wait([futures[name] for name in names], 120).not_done),
    "leave": lambda: executor.shutdown(),
}
print(json.dumps([process.pid, process.description["starter"]]), flush=True)
for line in sys.stdin:
    what, *arguments = json.loads(line)
    print(json.dumps(does[what](*arguments)), flush=True)
"""


class RandomRun:
    """A run in a directory, whose steps come of a seed; what goes on between them is a matter of timing."""

    def __init__(self, directory: Path, seed: str) -> None:
        self.directory, self.random, self.tags, self.model = directory, random.Random(seed), itertools.count(), Model()
        self.steps: List[Any] = []
        (directory / "job.sh").write_text(SCRIPT)

    def make(self, steps: int) -> None:
        """Take random steps, let all jobs end, and judge. Errors tell of the last steps and what the client said."""
        ways = [self.submit, self.use_again, self.cancel, self.look, self.kill, self.leave]
        try:
            self.start(wd=str(self.directory))
            for _ in range(steps):
                self.random.choices(ways, [8, 2, 3, 2, 2, 0.5])[0]()
            expect(self.ask("wait", list(self.model.jobs)) == 0, "jobs hang")
            self.look()
            self.ask("leave")
            self.model.over(self.lines())
        except Broken as broken:
            steps_before = "\n".join(str(step)[:300] for step in self.steps[-30:])
            raise Broken(f"{broken}\n{steps_before}\n{(self.directory / 'said').read_text()[-3000:]}") from None
        finally:
            self.client.kill()
            self.client.communicate()
        here = str(self.directory)
        expect(not (left := [one for one in processes.living() if processes.directory(one) == here]), f"left: {left}")

    def start(self, **options: str) -> None:
        command = [sys.executable, "-c", CLIENT, json.dumps(options)]
        with (self.directory / "said").open("a") as said:
            self.client = subprocess.Popen(
                command, cwd=self.directory, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
            )
        self.manager, self.starter = self.answer()

    def ask(self, *request: Any, wait: bool = True) -> Any:
        self.steps.append(request)
        self.client.stdin.write(json.dumps(request) + "\n")
        self.client.stdin.flush()
        return self.answer() if wait else None

    def answer(self) -> Any:
        line = self.client.stdout.readline()
        expect(line, "the client has ended")
        return json.loads(line)

    def lines(self) -> List[str]:
        path = self.directory / "ran"
        return path.read_text().splitlines() if path.exists() else []

    # ---- the steps

    def new_job(self, name: str) -> Job:
        jobs = [job for job in self.model.jobs.values() if job.name != name]
        count = self.random.choice([0, 0, 1, 3, 7])
        codes = "".join(self.random.choices("01", [9, 1], k=count or 1))
        after = []
        for job in self.random.sample(jobs, min(len(jobs), self.random.choice([0, 0, 1, 2]))):
            ways = ["", str(self.random.randrange(len(job.codes)))] if job.array else [""]
            same = job.array and count == len(job.codes)
            after.append((job, self.random.choice([*ways, *["${it}"] * (2 * same)])))
        return Job(name, next(self.tags), codes, count > 0, self.random.choice([0, 0.05, 0.3]), after)

    def submit(self, wait: bool = True) -> None:
        jobs = []
        for _ in range(self.random.randint(1, 4)):
            jobs.append(self.new_job(f"j{next(self.tags)}"))
            self.model.submitted(jobs[-1])
        self.ask("submit", [job.description() for job in jobs], wait=wait)
        for job in jobs:
            job.sure = wait

    def use_again(self) -> None:
        """Use the name of a job that has ended again."""
        self.look()
        if ended := self.model.may_be_removed():
            job = self.new_job(self.random.choice(ended).name)
            self.ask("remove", job.name)
            self.model.submitted(job)
            self.ask("submit", [job.description()])
            job.sure = True

    def cancel(self, wait: bool = True) -> None:
        if self.model.jobs:
            job = self.random.choice(list(self.model.jobs.values()))
            job.cancel_asked = True
            done = self.ask("cancel", job.name, wait=wait)
            if wait:
                self.look()
                self.model.cancelled(job, done)

    def look(self) -> None:
        self.model.seen(self.ask("states", list(self.model.jobs)), self.lines())

    def kill(self) -> None:
        """Kill some of our processes, at times in the middle of something, and resume the run."""
        self.random.choice([lambda: None, self.look, lambda: self.submit(False), lambda: self.cancel(False)])()
        time.sleep(self.random.choice([0, 0.01, 0.1, 0.4]) * self.random.random())  # the moment is what is varied
        victims = {"client": self.client.pid, "manager": self.manager, "starter": self.starter}
        chosen = self.random.sample(sorted(victims), self.random.choice([1, 1, 2, 3]))
        number = self.random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        self.steps.append([number.name, *chosen])
        for each in chosen:
            with contextlib.suppress(ProcessLookupError):  # what ended with one that was killed before
                os.kill(victims[each], number)
        self.model.killed()
        self.resume()

    def leave(self) -> None:
        """Leave as a program does that has come to its end, and resume the run."""
        self.ask("leave")
        self.resume()

    def resume(self) -> None:
        self.client.communicate()  # the end of its input is that of the client
        self.start(resume=str(self.directory))
        self.model.unknown(self.ask("attach", list(self.model.jobs)))
        self.look()


def main() -> int:
    """Make runs until the time is over; return 1 after the first that the model does not allow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--steps", type=int, default=25, help="of each run")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="of the first run; default: random")
    options = parser.parse_args()
    end, runs = time.monotonic() + options.seconds, 0
    while time.monotonic() < end:
        directory = Path(tempfile.mkdtemp(prefix="random-run-"))
        print(f"seed {options.seed}.{runs}", end=" ", flush=True)
        try:
            RandomRun(directory, f"{options.seed}.{runs}").make(options.steps)
        except Broken as broken:
            print(f"in {directory}: {broken}")
            return 1
        shutil.rmtree(directory)
        runs += 1
    print(f"\n{runs} runs as the model allows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
