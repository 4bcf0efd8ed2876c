"""The record of a run: rows, summary, pictures, from an executor and from directories."""

import builtins
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime

import psutil
import pytest

from qcg.pilotjob.executor_api import (
    BasicTemplate,
    InvalidOption,
    IterationTemplate,
    ManagerDied,
    QCGPJExecutor,
    RunRecord,
    RunRow,
    ScriptTemplate,
)

# Older matplotlibs, the last ones for older Pythons, use what newer versions of their own dependencies deprecate.
pictures = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def run_in(directory):
    (run,) = directory.glob(".qcgpjm-service-*")
    return run


def by_name(record):
    assert len({(row["name"], row["iteration"]) for row in record}) == len(record)
    return {row["name"] if row["iteration"] is None else (row["name"], row["iteration"]): row for row in record}


def two_cores():
    return '{"name": "wide", "execution": {"exec": "sleep", "args": ["0.2"]}, "resources": {"numCores": {"exact": 2}}}'


@pytest.fixture
def ended(tmp_path):
    """A run of two cores that has ended, in tmp_path: each way in which a job ends, and an array."""
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        bad = executor.submit(
            ScriptTemplate, name="bad", script="sleep 0.1; echo so it is >&2; echo >&2; exit 3", stderr="bad.err"
        )
        executor.submit(ScriptTemplate, name="omitted", script="true", after=[bad])
        executor.submit(two_cores)
        executor.submit(IterationTemplate, name="array", start=2, stop=5, exec="sh", args=["-c", "[ ${it} != 3 ]"])
        executor.submit(BasicTemplate, name="nothing", exec="no-such-program")
        cancelled = executor.submit(BasicTemplate, name="cancelled", exec="sleep", args=["60"])
        wait([bad])
        cancelled.cancel()
    return tmp_path


def test_a_summary_quotes_no_lines_from_a_file_that_jobs_share(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        jobs = [
            executor.submit(BasicTemplate, name=name, exec="ls", args=[f"/missing-{name}"], stderr=stderr)
            for name, stderr in (("x", "stderr"), ("y", "stderr"), ("z", "z.err"))
        ]
        wait(jobs, 20)
    lines = [failure.last_line for failure in RunRecord.of(tmp_path).summary().failed]
    assert lines[:2] == ["", ""]
    assert "/missing-z" in lines[2]


def test_streams_that_are_no_files_are_not_read(ended):
    (ended / "bad.err").unlink()
    os.mkfifo(ended / "bad.err")
    with ThreadPoolExecutor(1) as pool:
        summary = pool.submit(lambda: str(RunRecord.of(ended).summary()))
        try:
            assert "bad: exit code 3" in summary.result(30)
        finally:  # whoever reads there gets an end
            os.close(os.open(ended / "bad.err", os.O_RDWR | os.O_NONBLOCK))


def test_there_is_a_row_for_each_job_and_iteration(ended):
    rows = by_name(RunRecord.of(ended))
    states = {name: row["state"] for name, row in rows.items()}
    assert states == {
        "bad": "FAILED", "omitted": "OMITTED", "wide": "SUCCEED", "nothing": "FAILED", "cancelled": "CANCELED",
        ("array", 2): "SUCCEED", ("array", 3): "FAILED", ("array", 4): "SUCCEED",
    }  # fmt: skip
    wide, bad = rows["wide"], rows["bad"]
    assert all(set(row) == set(RunRow.__annotations__) for row in rows.values())
    assert wide["submitted"] <= wide["started"] < wide["ended"] <= datetime.now().astimezone()
    assert wide["seconds"] == (wide["ended"] - wide["started"]).total_seconds() >= 0.2
    assert (wide["cores"], wide["core_seconds"]) == (2, 2 * wide["seconds"])
    assert sorted(wide["core_numbers"][wide["nodes"][0]]) == ["0", "1"]
    assert (bad["exit_code"], bad["stderr"]) == (3, str(ended / "bad.err"))
    assert "no-such-program" in rows["nothing"]["message"]
    assert rows["omitted"]["started"] is rows["omitted"]["seconds"] is rows["omitted"]["exit_code"] is None
    assert rows["array", 3]["submitted"] < rows["array", 3]["started"]
    assert {row["run"] for row in rows.values()} == {str(run_in(ended))}
    assert not any(row["interrupted"] for row in rows.values())


def test_a_summary_tells_what_it_comes_to(ended):
    record = RunRecord.of(run_in(ended))
    summary = record.summary(slowest=2)
    assert summary.jobs == len(record) == 8
    assert summary.states == {"FAILED": 3, "OMITTED": 1, "SUCCEED": 3, "CANCELED": 1}
    used = {state: sum(row["core_seconds"] or 0 for row in record if row["state"] == state) for state in summary.states}
    assert summary.succeeded_core_hours == pytest.approx(used["SUCCEED"] / 3600)
    assert summary.wasted_core_hours == pytest.approx((used["FAILED"] + used["CANCELED"]) / 3600)
    assert (summary.cores, summary.interrupted, summary.running_core_hours) == (2, 0, 0.0)
    assert 0.3 <= summary.wall_seconds < 30
    assert summary.mean_use == pytest.approx(sum(used.values()) / (2 * summary.wall_seconds))
    assert len(summary.slowest) == 2
    assert summary.slowest[0]["seconds"] >= summary.slowest[1]["seconds"]
    assert {failure.row["name"]: failure.last_line for failure in summary.failed}["bad"] == "so it is"
    text = str(summary)
    assert "bad: exit code 3; so it is" in text
    assert "3 FAILED" in text
    assert "array:3: exit code 1" in text
    assert "on 2 cores" in text


def test_a_file_that_has_gone_is_no_line(ended):
    summary = RunRecord.of(ended).summary()
    (ended / "bad.err").unlink()
    assert all(not failure.last_line for failure in summary.failed if failure.row["name"] == "bad")
    with pytest.raises(InvalidOption, match="slowest"):
        RunRecord.of(ended).summary(slowest=-1)


def test_an_executor_tells_of_jobs_that_have_not_ended(executor, tmp_path, wait_until):
    executor.submit(BasicTemplate, name="done", exec="true").result(20)
    script = "touch begun-${it}; until [ -e go ]; do sleep 0.01; done"
    array = executor.submit(IterationTemplate, name="array", start=0, stop=6, exec="sh", args=["-c", script])
    after = executor.submit(ScriptTemplate, name="after", script="true", after=[array])
    wait_until(lambda: len(list(tmp_path.glob("begun-*"))) == 4)
    record = executor.record()
    rows = by_name(record)
    assert (rows["done"]["state"], rows["after"]["state"]) == ("SUCCEED", "QUEUED")
    states = [rows["array", number]["state"] for number in range(6)]
    assert (states.count("EXECUTING"), states.count("QUEUED")) == (4, 2)
    running = next(row for row in record if row["state"] == "EXECUTING")
    assert running["submitted"] <= running["started"] <= record.taken
    assert running["cores"] == 1
    assert running["ended"] is running["seconds"] is running["core_seconds"] is None
    assert record.summary().running_core_hours > 0
    from_outside = by_name(RunRecord.of(tmp_path))
    assert set(from_outside) == set(rows)
    assert from_outside["array", 0]["state"] == from_outside["after"]["state"] == "UNFINISHED"
    (tmp_path / "go").touch()
    executor.shutdown()
    assert {row["state"] for row in executor.record()} == {"SUCCEED"}
    assert len(executor.record()) == 8
    assert after.done()


def test_in_a_callback_there_is_what_has_ended(executor):
    records = []
    future = executor.submit(BasicTemplate, name="one", exec="sleep", args=["0.2"])
    future.add_done_callback(lambda _: records.append(executor.record()))
    executor.shutdown()
    (record,) = records
    assert by_name(record)["one"]["state"] == "SUCCEED"


def test_an_executor_that_has_done_nothing_has_an_empty_record(executor):
    record = executor.record()
    assert list(record) == []
    assert record.summary().jobs == 0
    assert record.summary().cores == 4
    assert str(record.summary()).startswith("jobs:        0\n")


def test_a_summary_counts_runs_and_core_seconds(tmp_path):
    for number in range(2):
        with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
            executor.submit(BasicTemplate, name=f"n{number}", exec="sleep", args=["0.1"])
    record = RunRecord.of(tmp_path)
    summary, core_seconds = record.summary(), sum(row["core_seconds"] for row in record)
    assert (summary.runs, summary.jobs) == (2, 2)
    jobs, used, *_ = str(summary).splitlines()
    assert jobs == "jobs:        2 in 2 runs (2 SUCCEED)"
    name, number, rest = used.split(maxsplit=2)
    assert (name, rest) == ("core-s:", "succeeded, 0 wasted")
    assert float(number) == pytest.approx(core_seconds, rel=1e-3)
    assert core_seconds >= 0.2
    assert "1 run" not in str(RunRecord.of(RunRecord.of(tmp_path).runs[-1]).summary())


@pytest.mark.usefixtures("patient")
def test_a_resumed_run_counts_each_job_once(tmp_path, wait_until):
    script = "touch begun-$name; until [ -e go ]; do sleep 0.01; done"
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(wd=tmp_path, resources=2) as executor:  # noqa: PT012
        executor.submit(BasicTemplate, name="done", exec="true").result(20)
        for name in ("one", "two", "three"):
            executor.submit(ScriptTemplate, name=name, script=script.replace("$name", name))
        wait_until(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
        raise KeyboardInterrupt
    before = RunRecord.of(tmp_path)
    rows = by_name(before)
    assert {name: row["interrupted"] for name, row in rows.items()} == {
        "done": False, "one": True, "two": True, "three": True,
    }  # fmt: skip
    assert not before.interruptions
    wasted = before.summary().wasted_core_hours
    assert (before.summary().interrupted, wasted > 0) == (2, True)
    (tmp_path / "go").touch()
    with QCGPJExecutor(resume=tmp_path, resources=3) as executor:
        executor.attach("one", "two", "three").result(20)
        assert {row["state"] for row in executor.record()} == {"SUCCEED"}
    for record in (RunRecord.of(tmp_path), executor.record()):
        assert {name: row["state"] for name, row in by_name(record).items()} == dict.fromkeys(rows, "SUCCEED")
        assert sorted(row["name"] for row in record.interruptions) == ["one", "three", "two"]
        summary = record.summary()
        assert (summary.interrupted, summary.cores) == (2, 3)
        assert summary.wasted_core_hours == pytest.approx(wasted)


def test_what_a_killed_manager_has_not_recorded_is_unfinished(tmp_path, wait_until):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        executor.submit(BasicTemplate, name="good", exec="true").result(20)
        lost = executor.submit(ScriptTemplate, name="lost", script="touch begun; sleep 60")
        wait_until((tmp_path / "begun").exists)
        psutil.Process(executor._connection.dispatcher.link.process.pid).kill()
        with pytest.raises(ManagerDied):
            lost.result(20)
        states = {"good": "SUCCEED", "lost": "UNFINISHED"}
        assert {row["name"]: row["state"] for row in executor.record()} == states
    report = run_in(tmp_path) / "jobs.report"
    with report.open("a") as file:
        file.write('{"name": "lo')  # torn
    assert {row["name"]: row["state"] for row in RunRecord.of(tmp_path)} == states


def test_several_directories_make_one_record(tmp_path):
    for place in ("first", "first", "second"):
        with QCGPJExecutor(wd=tmp_path / place, resources=1) as executor:
            executor.submit(BasicTemplate, name="same", exec="true")
    assert len(RunRecord.of(tmp_path / "first")) == 2  # two runs, two jobs that have the name by chance
    record = RunRecord.of(tmp_path / "first", run_in(tmp_path / "second"), tmp_path / "second")
    assert (len(record), len(record.runs)) == (3, 3)
    assert len({row["run"] for row in record}) == 3
    assert record.summary().states == {"SUCCEED": 3}


@pytest.mark.usefixtures("patient")
def test_what_another_run_has_made_up_for_counts_once(tmp_path, wait_until):
    with pytest.raises(KeyboardInterrupt), QCGPJExecutor(wd=tmp_path, resources=1) as executor:  # noqa: PT012
        executor.submit(ScriptTemplate, name="again", script="touch begun; sleep 60")
        wait_until((tmp_path / "begun").exists)
        raise KeyboardInterrupt
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        executor.submit(BasicTemplate, name="again", exec="true")
    record = RunRecord.of(tmp_path)
    assert [row["state"] for row in record] == ["SUCCEED"]
    assert [row["interrupted"] for row in record.interruptions] == [True]


def test_a_report_alone_is_enough(ended, tmp_path_factory):
    """As the package up to 0.14.2 and the bare core leave one."""
    report = tmp_path_factory.mktemp("old") / "jobs.report"
    report.write_bytes((run_in(ended) / "jobs.report").read_bytes())
    for place in (report, report.parent):
        record = RunRecord.of(place)
        assert len(record) == 8
        assert record.summary().cores is record.summary().mean_use is None
        assert record.summary().wall_seconds > 0.3


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InvalidOption, match="has no record"):
        RunRecord.of(tmp_path)
    with pytest.raises(InvalidOption, match="takes a directory"):
        RunRecord.of()
    (tmp_path / "jobs.report").write_text("sleep (SUCCEED)\n")  # the core's other format
    with pytest.raises(InvalidOption, match=r"line 1 .* is not JSON"):
        RunRecord.of(tmp_path)
    (tmp_path / "jobs.report").write_text("[1]\n")
    with pytest.raises(InvalidOption, match=r"line 1 .* no record of a job"):
        RunRecord.of(tmp_path)


def test_a_manager_that_was_given_tells_what_it_knows(tmp_path):
    from qcg.pilotjob.api.manager import Manager

    with QCGPJExecutor(wd=tmp_path, resources=2) as owner:
        manager = owner.qcgpj_manager
        assert isinstance(manager, Manager)
        with QCGPJExecutor(manager=manager) as second:
            second.submit(BasicTemplate, name="one", exec="true").result(20)
            second.submit(IterationTemplate, name="array", start=0, stop=2, exec="true").result(20)
            assert {key: row["state"] for key, row in by_name(second.record()).items()} == {
                "one": "SUCCEED", ("array", 0): "SUCCEED", ("array", 1): "SUCCEED",
            }  # fmt: skip


def test_a_frame_has_the_rows(ended):
    pandas = pytest.importorskip("pandas")
    record = RunRecord.of(ended)
    frame = record.frame()
    assert list(frame.columns) == list(RunRow.__annotations__)
    assert len(frame) == len(record)
    assert frame[frame.name == "bad"].exit_code.item() == 3
    assert pandas.api.types.is_datetime64_any_dtype(frame.ended)
    assert frame.groupby("state").core_seconds.sum()["SUCCEED"] > 0.4


@pytest.mark.parametrize("wanted", ["frame", "timeline"])
def test_what_is_not_installed_is_named(ended, monkeypatch, wanted):
    def refuse(name, *rest, original=builtins.__import__):
        if name.partition(".")[0] in ("pandas", "matplotlib"):
            raise ModuleNotFoundError(name)
        return original(name, *rest)

    record = RunRecord.of(ended)
    monkeypatch.setattr(builtins, "__import__", refuse)
    needed = "pip install pandas" if wanted == "frame" else r"pip install 'qcg-pilotjob-executor-api\[pictures\]'"
    with pytest.raises(ImportError, match=needed):
        record.frame() if wanted == "frame" else record.timeline(ended / "picture.png")


@pictures
@pytest.mark.parametrize("picture", ["timeline", "utilisation"])
def test_pictures_are_pictures(ended, picture):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    draw = getattr(RunRecord.of(ended), picture)
    pixels = imread(draw(ended / "picture.png"))
    assert pixels.shape[0] > 200
    assert pixels.shape[1] > 1000
    assert {tuple(pixel) for pixel in (pixels[::3, ::3, :3] * 255).round().astype(int).reshape(-1, 3)} >= {
        (0x44, 0x77, 0xAA)
    }
    assert draw(str(ended / "picture.svg"), title="a $ in b$").read_text().count("<path") > 10
    assert draw(ended / "picture.pdf").read_bytes().startswith(b"%PDF")
    assert "matplotlib.pyplot" not in sys.modules
    with pytest.raises(InvalidOption, match=r"\.png"):
        draw(ended / "picture.doc")


def parts_of(page):
    """The picture in a page, which is XML, and what its script knows."""
    from xml.etree import ElementTree

    text = page.read_text()
    assert text.count("<svg") == text.count("</svg>") == 1
    assert text.count("</script>") == 2
    assert not re.findall(r"""(?:src|href)=["'](?!#)""", text)  # nothing is loaded from elsewhere
    svg = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    data = text.partition('id="data">')[2].partition("</script>")[0]
    return svg, json.loads(data)


def ids_of(svg, prefix):
    return [element for element in svg.iter() if element.get("id", "").startswith(prefix)]


@pictures
def test_a_page_tells_of_each_bar(ended):
    pytest.importorskip("matplotlib")
    (ended / "bad.err").write_text("</script><script>alert(1)</script>\n")
    record = RunRecord.of(ended)
    svg, data = parts_of(record.timeline(ended / "picture.html", title="a <b> $ @data@"))
    assert "<title>a &lt;b&gt; $ @data@</title>" in (ended / "picture.html").read_text()
    tips = {tip.split()[0]: tip for tip in data["tips"]}
    ran = [row for row in record if row["started"]]
    assert set(tips) == {
        row["name"] if row["iteration"] is None else f"{row['name']}:{row['iteration']}" for row in ran
    }
    (node,) = by_name(record)["wide"]["nodes"]
    assert "exit code 3\n" in tips["bad"]
    assert tips["bad"].endswith("\n</script><script>alert(1)</script>")
    assert f"2 cores   {node}: 0, 1" in tips["wide"]
    assert data["lanes"] == [f"{node}:0", f"{node}:1"]
    wide = [bar for lane in data["bars"] for bar in lane if data["tips"][bar[2]] == tips["wide"]]
    assert len(wide) == 2
    assert all(0 <= begin < end <= data["length"] for lane in data["bars"] for begin, end, _ in lane)
    assert ids_of(svg, "time-")
    assert ids_of(svg, "name-")
    assert ids_of(svg, "xtick_")
    assert all(0 < share < 1 for share in data["box"])


@pictures
def test_a_page_tells_how_many_cores_were_in_use(ended):
    pytest.importorskip("matplotlib")
    record = RunRecord.of(ended)
    svg, data = parts_of(record.utilisation(ended / "picture.html"))
    (bars,) = data["bars"]
    assert [before[1] for before in bars[:-1]] == [after[0] for after in bars[1:]]
    assert (bars[0][0], bars[-1][1]) == (0, pytest.approx(data["length"]))
    assert f"2 of 2 cores in use, for {by_name(record)['wide']['seconds']:.3g} s" in data["tips"]
    assert len(ids_of(svg, "time-")) == 2


@pictures
def test_a_record_of_nothing_makes_pictures_too(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "jobs.report").touch()
    record = RunRecord.of(tmp_path)
    assert record.timeline(tmp_path / "a.png").stat().st_size > 1000
    assert record.utilisation(tmp_path / "b.png").stat().st_size > 1000
    assert parts_of(record.timeline(tmp_path / "a.html"))[1]["bars"] == []
    parts_of(record.utilisation(tmp_path / "b.html"))


def test_a_core_that_nothing_ran_on_has_a_lane(ended):
    from qcg.pilotjob.executor_api._record.runs import read_run
    from qcg.pilotjob.executor_api._record.timelines import lanes_of

    run = run_in(ended)
    log = run / "service.log"
    (node,) = {node for row in RunRecord.of(run) for node in row["nodes"]}
    log.write_text(log.read_text().replace(f"\n{node} 2 (0 used)", f"\n{node} 4 (1 used)"))
    lanes = lanes_of([read_run(run / "jobs.report")], datetime.now().astimezone())
    assert [(lane.core, bool(lane.bars)) for lane in lanes] == [("0", True), ("1", True), ("2", False)]
    assert all(len(lane.there) == 1 for lane in lanes)


def test_a_lane_is_there_as_long_as_its_core(tmp_path):
    from qcg.pilotjob.executor_api._record.runs import read_run
    from qcg.pilotjob.executor_api._record.timelines import lanes_of

    for options in ({"wd": tmp_path, "resources": "node1:1,node2:1"}, {"resume": tmp_path, "resources": "node2:2"}):
        with QCGPJExecutor(**options) as executor:
            executor.submit(BasicTemplate, name="wd" if "wd" in options else "resume", exec="true")
    run = read_run(run_in(tmp_path) / "jobs.report")
    first, second = run.eras
    assert (first.nodes, second.nodes) == ({"node1": 1, "node2": 1}, {"node2": 2})
    assert first.started < run.rows[0]["started"] < first.ended < second.started < run.rows[1]["started"]
    one, two = ([(era.started, era.ended) for era in eras] for eras in ([first], [second]))
    lanes = lanes_of([run], datetime.now().astimezone())
    assert [(lane.node, lane.core, lane.there) for lane in lanes] == [
        ("node1", "0", one), ("node2", "0", one + two), ("node2", "1", two),
    ]  # fmt: skip


def test_nodes_and_cores_are_read_as_the_core_writes_them(tmp_path):
    times = {"EXECUTING": "2026-01-01T00:00:00", "SUCCEED": "2026-01-01T00:01:00"}
    line = {
        "name": "mpi",
        "state": "SUCCEED",
        "history": [{"state": state, "date": date} for state, date in times.items()],
        "runtime": {"allocation": "n1[0:2&3],n10[1]", "exit_code": "0"},
    }
    (tmp_path / "jobs.report").write_text(json.dumps(line) + "\n")
    (row,) = RunRecord.of(tmp_path)
    assert (row["nodes"], row["cores"], row["core_seconds"]) == (["n1", "n10"], 3, 180.0)
    assert row["core_numbers"] == {"n1": ["0", "2&3"], "n10": ["1"]}
    assert row["submitted"] is None


@pytest.fixture
def odd(tmp_path):
    """A run as an earlier release recorded it, with names that cannot be shown or encoded; returns its directory."""
    directory = tmp_path / os.fsdecode(b"w\xff\x1bd")
    directory.mkdir()
    (directory / "\x1b.err").write_text("a\x1b[31mb\n")
    times = {"QUEUED": "2026-01-01T00:00:00", "EXECUTING": "2026-01-01T00:00:01", "FAILED": "2026-01-01T00:01:00"}
    lines = [
        {
            "name": name,
            "state": "FAILED",
            "history": [{"state": state, "date": date} for state, date in times.items()],
            "runtime": {
                "allocation": f"n{name}[{core}]",
                "gpus": f"n{name}[0]",
                "exit_code": "-11",
                "stderr": str(directory / f"{name}.err"),
            },
            "messages": f"cannot start '{name}'\nand more",
        }
        for core, name in enumerate(["\udcff", "\x1b", "\u202e", "<&\x00]]>", "\ud83d", "é", "$x$"])
    ]
    (directory / "jobs.report").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


_SHOWN = ["\\udcff", "\\x1b", "\\u202e", "<&\\x00]]>", "\\ud83d", "é", "$x$"]


def test_names_that_cannot_be_shown_are_written_as_in_python(odd):
    record = RunRecord.of(odd)
    assert [row["name"] for row in record] == _SHOWN
    assert [row["message"] for row in record] == [f"cannot start '{name}'\nand more" for name in _SHOWN]
    assert [row["nodes"] for row in record] == [[f"n{name}"] for name in _SHOWN]
    assert record.rows[0]["stderr"] == str(odd / "\udcff.err")  # it is the path of a file
    summary = str(record.summary())
    summary.encode()
    assert all(line.isprintable() for line in summary.split("\n"))
    assert "\\x1b: " in summary
    assert "a [31mb" in summary


def test_a_frame_of_names_that_cannot_be_shown(odd):
    pytest.importorskip("pandas")
    frame = RunRecord.of(odd).frame()
    assert list(frame.name) == _SHOWN
    assert frame.stderr[0].endswith("w\\udcff\\x1bd/\\udcff.err")


@pictures
@pytest.mark.filterwarnings("ignore:Glyph .* missing from:UserWarning")
@pytest.mark.parametrize("picture", ["timeline", "utilisation"])
def test_pictures_of_names_that_cannot_be_shown(odd, picture):
    pytest.importorskip("matplotlib")
    from xml.etree import ElementTree

    draw = getattr(RunRecord.of(odd), picture)
    for kind in (".png", ".pdf"):
        assert draw(odd / f"p{kind}").stat().st_size > 1000
    ElementTree.parse(draw(odd / "p.svg"))
    _, data = parts_of(draw(odd / "p.html"))
    if picture == "timeline":
        assert sorted(tip.partition("   FAILED")[0] for tip in data["tips"]) == sorted(_SHOWN)
        assert "n\\x1b:1" in data["lanes"]


_STEPS = [{"state": "EXECUTING", "date": "2026-01-01T00:00:00"}, {"state": "FAILED", "date": "2026-01-01T00:00:02"}]


def entry(**changed):
    line = {"name": "a", "state": "FAILED", "history": _STEPS, "runtime": {"exit_code": "1"}}
    return json.dumps({**line, **changed}).encode() + b"\n"


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\0\n", b"\0" * 1000 + b"\n", b"[" * 100_000 + b"\n", b'{"a":' * 50_000 + b"\n", b'{"name": "a"}\n',
        entry(history=3), entry(history=[3]), entry(history=None), entry(history=[{"state": "QUEUED"}]),
        entry(history=[{"state": "QUEUED", "date": "never"}]), entry(history=[{"state": "QUEUED", "time": "x"}]),
        entry(history=[{"state": "QUEUED", "time": float("nan")}]), entry(history=[{"state": "QUEUED", "time": 1e300}]),
        entry(history=[{"state": "QUEUED", "time": -1e15}]), entry(runtime=3), entry(runtime=["interrupted"]),
        entry(runtime=None), entry(runtime={"exit_code": "x"}), entry(runtime={"exit_code": None}),
    ],
)  # fmt: skip
def test_a_line_that_no_manager_has_written_is_named(tmp_path, line):
    (tmp_path / "jobs.report").write_bytes(entry() + line)
    with pytest.raises(InvalidOption, match=re.escape(f"line 2 of {tmp_path}/jobs.report is no")):
        RunRecord.of(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"state": 3}, {"state": "\x1b[31m"}, {"messages": {"a": 1}}, {"name": ""}, {"name": "a:" + "9" * 30},
        {"runtime": {"allocation": "]][[,:"}}, {"runtime": {"allocation": 3, "gpus": [1]}}, {"runtime": {"stderr": 3}},
        {"runtime": {"stderr": ["x"], "stdout": {}}}, {"runtime": {"stderr": "a\0b"}}, {"runtime": {"signal": {}}},
        {"runtime": {"exit_code": "-999"}},
    ],
)  # fmt: skip
def test_a_line_that_is_odd_is_shown(tmp_path, changed):
    (tmp_path / "jobs.report").write_bytes(entry(**changed))
    record = RunRecord.of(tmp_path)
    assert str(record.summary()).replace("\n", "").isprintable()
    json.dumps([row["name"] for row in record])


@pytest.mark.parametrize(
    "iteration", [3, {"start": "x", "stop": 2}, {"stop": 1e9}, {"values": 3}, {"start": 1}, {"stop": 10**12}]
)
def test_a_request_that_no_manager_has_kept_is_named(tmp_path, iteration):
    (tmp_path / "jobs.report").write_bytes(entry())
    (tmp_path / "track.reqs").write_text(json.dumps({"name": "b", "iteration": iteration}) + "\n")
    with pytest.raises(InvalidOption, match=r"line 1 of .*/track\.reqs is no description of a job"):
        RunRecord.of(tmp_path)


_TOLD = "2026-01-01 00:00:00,000+0100: x: available resources: "


@pytest.mark.parametrize(
    "log",
    [
        _TOLD + "x\n", _TOLD + "2 cores on x nodes\n", _TOLD + "2 cores on 1 nodes\nn\n",
        _TOLD + "2 cores on 1 nodes\nn x (y used)\n", _TOLD[10:] + "2 cores on 1 nodes\nn 2 (0 used)\n",
        _TOLD.replace("-01-", "-99-") + "2 cores on 1 nodes\nn 2 (0 used)\n",
    ],
)  # fmt: skip
def test_a_log_that_no_manager_has_written_is_named(tmp_path, log):
    (tmp_path / "jobs.report").write_bytes(entry())
    (tmp_path / "service.log").write_text(log)
    with pytest.raises(InvalidOption, match=r"/service\.log is no log of a manager"):
        RunRecord.of(tmp_path)


def test_a_log_that_was_cut_short_tells_what_it_has(tmp_path):
    (tmp_path / "jobs.report").write_bytes(entry())
    (tmp_path / "service.log").write_text(_TOLD + "4 cores on 2 nodes\nn1 2 (0 used)\nn2 2 (")
    assert RunRecord.of(tmp_path).summary().jobs == 1
