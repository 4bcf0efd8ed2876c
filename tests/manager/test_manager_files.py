"""What the manager writes: the same as the core would, and all of it."""

import asyncio
import io
import json
import logging
import re
from datetime import datetime
from pathlib import Path

import pytest
from qcg.pilotjob.joblist import Job, JobState
from qcg.pilotjob.reports import JsonFileReport

from qcg.pilotjob.executor_api._manager import records
from qcg.pilotjob.executor_api._manager.records import BufferedLog, LinesFile, Record


def jobs():
    plain = Job("plain", {"exec": "true"}, {"numCores": 1})
    odd = Job("odd", {"script": 'echo "ü" \udce4\n'}, {"numCores": 2, "numNodes": 1}, dependencies={"after": ["plain"]})
    array = Job("array", {"exec": "true"}, {"numCores": 1}, iteration={"start": 3, "stop": 5})
    for job, iteration in ((plain, None), (odd, None), (array, 3)):
        job.set_state(JobState.EXECUTING, iteration)
        job.append_runtime({"exit_code": "1", "wd": '/tmp/"'}, iteration)
        job.set_state(JobState.FAILED, iteration, 'no "luck"')
    return [(plain, None), (odd, None), (array, 3), (array, None)]


@pytest.mark.parametrize("number", range(4))
def test_a_line_tells_what_the_core_would(tmp_path, number):
    job, iteration = jobs()[number]
    ours, core = io.StringIO(), io.StringIO()
    Record(str(tmp_path / "ours")).report_job_entry(job, iteration, ours)
    JsonFileReport(str(tmp_path / "core")).report_job_entry(job, iteration, core)
    line = json.loads(ours.getvalue())
    for step in line["history"]:
        assert datetime.fromtimestamp(step.pop("time")) == datetime.fromisoformat(step["date"])
    assert line == json.loads(core.getvalue())
    assert ours.getvalue().endswith("}\n")
    assert ours.getvalue().count("\n") == 1


def test_a_file_that_is_removed_is_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_LOOK_SECONDS", 0.0)
    file = LinesFile(tmp_path / "lines")
    file.append(b"one\n")
    (tmp_path / "lines").unlink()
    file.append(b"two\n")
    assert (tmp_path / "lines").read_bytes() == b"two\n"
    file.close()


def test_what_cannot_be_written_is_written_later(tmp_path):
    place = tmp_path / "place"
    file = LinesFile(place / "lines")
    file.append_sooner_or_later(b"one\n")
    with pytest.raises(FileNotFoundError):
        file.append(b"not kept\n")
    place.mkdir()
    file.append(b"two\n")
    assert (place / "lines").read_bytes() == b"one\ntwo\n"
    file.close()


def test_a_full_disk_stops_nobody_who_writes_to_the_log():
    loop = asyncio.new_event_loop()
    log = BufferedLog(Path("/dev/full"), loop)
    for _ in range(1000):
        log.note("job a ended, and the disk is full")
    log._flush_now()
    loop.close()
    log.close()


def test_notes_look_like_the_other_lines_of_the_log(tmp_path):
    loop = asyncio.new_event_loop()
    log = BufferedLog(tmp_path / "log", loop)
    log.note("job a ended")
    log.emit(logging.makeLogRecord({"msg": "something else", "levelno": logging.INFO}))
    loop.close()
    log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    texts = [re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}[+-]\d{4}: (.*)", line)[1] for line in lines]
    assert texts == ["job a ended", "something else"]
