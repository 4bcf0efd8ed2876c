#!/usr/bin/env python3
"""One job: run `date`, wait for its end, read what it printed."""

from pathlib import Path

from qcg.pilotjob.executor_api import BasicTemplate, QCGPJExecutor

with QCGPJExecutor() as executor:
    future = executor.submit(BasicTemplate, name="today", exec="date", stdout="today.out")
    print(future.result())

print(Path("today.out").read_text().strip())
