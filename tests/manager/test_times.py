"""Times on record have a zone and durations come from a clock that never steps: neither the end of summer time nor a
wall clock that somebody sets makes them wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from datetime import datetime, timedelta, timezone

import pytest

from qcg.pilotjob.executor_api import ParallelTemplate, QCGPJExecutor, RunRecord

# A job runs until its program's local time, or what is told of it, has gone back.
PROGRAM = """
    import datetime, json, os, sys, time
    from pathlib import Path
    from qcg.pilotjob.executor_api import *
    with QCGPJExecutor(resources=2) as executor:
        job = executor.submit(ScriptTemplate, name="across", script="touch begun; until [ -e go ]; do sleep 0.01; done")
        array = executor.submit(IterationTemplate, name="array", exec="true", stop=3)
        array.result(60)
        while not os.path.exists("begun"):
            time.sleep(0.01)
        began = time.monotonic()
        {step}
        passed = time.monotonic() - began
        Path("go").touch()
        job.result(60)
        after = executor.submit(BasicTemplate, name="after", exec="true")
        after.result(60)
        rows = {{row["name"]: row for row in executor.record() if row["iteration"] is None}}
        print(json.dumps([
            passed,
            rows["across"]["seconds"],
            (rows["after"]["started"] - rows["across"]["ended"]).total_seconds(),
            executor.record().summary().wall_seconds,
            job.info()["across"]["runtime"]["rtime"],
        ]))
"""
# A library that is loaded before all others adds to the wall clock what a file says.
STEPPED_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long step(void) {
    char text[32] = "";
    int file = syscall(SYS_openat, AT_FDCWD, STEP, O_RDONLY);
    if (file < 0) return 0;
    if (syscall(SYS_read, file, text, 31) < 0) text[0] = 0;
    syscall(SYS_close, file);
    return atol(text);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += step();
    return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec moment;
    clock_gettime(CLOCK_REALTIME, &moment);
    now->tv_sec = moment.tv_sec, now->tv_usec = moment.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *now) {
    struct timespec moment;
    clock_gettime(CLOCK_REALTIME, &moment);
    if (now) *now = moment.tv_sec;
    return moment.tv_sec;
}
"""


def run(directory, step, **environment):
    """Run the program, and hold what it tells against the time that has passed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM).format(step=step)],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    passed, seconds, between, wall, rtime = json.loads(done.stdout)
    hours, minutes, rest = rtime.split(":")
    assert passed <= seconds < passed + 30
    assert abs(int(hours) * 3600 + int(minutes) * 60 + float(rest) - seconds) < 5
    assert 0 <= between < 30
    assert seconds <= wall < seconds + 60
    return RunRecord.of(directory)


def test_the_clocks_go_back_while_a_job_runs(tmp_path):
    when = datetime.now(timezone.utc) + timedelta(hours=1, seconds=4)  # as summer time tells it
    zone = f"STD0DST-1,0/0,{when.timetuple().tm_yday - 1}/{when:%H:%M:%S}"
    record = run(tmp_path, "[time.sleep(0.01) for _ in iter(lambda: time.localtime().tm_isdst, 0)]", TZ=zone)
    across = next(row for row in record if row["name"] == "across")
    assert across["started"] < across["ended"]
    assert re.search(
        r'"date": "[^"]+","time": \d+\.\d+', next(tmp_path.glob(".qcgpjm-service-*/jobs.report")).read_text()
    )


@pytest.mark.skipif(not shutil.which("gcc"), reason="there is no C compiler")
@pytest.mark.parametrize("seconds", [-7200, 90000])
def test_the_wall_clock_is_set_while_a_job_runs(tmp_path, seconds):
    library, step = tmp_path / "step.so", tmp_path / "step"
    command = ["gcc", "-shared", "-fPIC", f'-DSTEP="{step}"', "-x", "c", "-o", str(library), "-", "-ldl"]
    subprocess.run(command, input=STEPPED_CLOCK, text=True, check=True)
    run(tmp_path, f"Path({str(step)!r}).write_text('{seconds}')", LD_PRELOAD=str(library))


def test_a_record_without_zones_is_read_as_local_time(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        executor.submit(ParallelTemplate, name="a", exec="true").result(30)
    (rows,) = [RunRecord.of(tmp_path).rows]
    report, log = (next(tmp_path.glob(f".qcgpjm-service-*/{name}")) for name in ("jobs.report", "service.log"))
    report.write_text(re.sub(r',"time": [\d.]+', "", report.read_text()))
    log.write_text(re.sub(r"^([-\d]+ [:\d]+,\d+)[+-]\d{4}", r"\1", log.read_text(), flags=re.MULTILINE))
    old = RunRecord.of(tmp_path)
    assert [(row["started"], row["ended"]) for row in old] == [(row["started"], row["ended"]) for row in rows]
    assert old.summary().wall_seconds == pytest.approx(RunRecord.of(tmp_path).summary().wall_seconds)


def test_no_two_jobs_are_on_a_core_at_a_time_when_walltimes_end(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        for number in range(4):
            executor.submit(ParallelTemplate, name=f"long{number}", exec="sleep", args=["60"], walltime="1s")
            executor.submit(ParallelTemplate, name=f"short{number}", exec="true")
    rows = [row for row in RunRecord.of(tmp_path) if row["started"]]
    assert len(rows) == 8
    for row in rows:
        for other in rows:
            if row is not other and row["core_numbers"] == other["core_numbers"]:
                assert row["ended"] <= other["started"] or other["ended"] <= row["started"]
