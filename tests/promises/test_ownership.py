"""What another user has put on disk, or may have changed, is neither run nor connected to; records tell whose it is.

Where a test needs a second user, the first one is root: what it gives away is that of `nobody`.
"""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from qcg.pilotjob.executor_api import (
    Allocation,
    BasicTemplate,
    InvalidOption,
    ManagerDied,
    ManagerStartError,
    QCGPJExecutor,
    RunRecord,
    ScriptTemplate,
)
from qcg.pilotjob.executor_api._client.links import link_to_directory
from qcg.pilotjob.executor_api._functions.rendezvous import Rendezvous
from qcg.pilotjob.executor_api._shared.ownership import NotOwned, open_owned, read_owned
from qcg.pilotjob.executor_api._shared.sockets import make_socket_directory

NOBODY = 65534
two_users = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")


def give_away(path, uid=NOBODY):
    """Let a directory, with what is in it, be another user's."""
    for found in [path, *path.rglob("*")]:
        os.chown(found, uid, uid, follow_symlinks=False)


def plant(run, command):
    """Make a directory that looks like an interrupted run with one job, which runs `command`."""
    run.mkdir(parents=True)
    job = {
        "name": "evil",
        "execution": {"exec": "sh", "args": ["-c", command]},
        "resources": {"numCores": {"exact": 1}},
    }
    (run / "track.reqs").write_text(json.dumps(job) + "\n")
    for name in ("service.log", "jobs.report", "track.states", "manager.json"):
        (run / name).touch()
    return run


def as_nobody(program):
    """Run a program as another user, who may not read this package: all that it needs is imported before."""
    head = "import fcntl, os, pwd\nfrom qcg.pilotjob.executor_api import *\n"
    head += "import qcg.pilotjob.executor_api._client.kinds\n"
    head += (
        f"import qcg.pilotjob.executor_api._record.live\nos.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    )
    done = subprocess.run([sys.executable, "-c", head + program], capture_output=True, text=True, check=False, cwd="/")
    return done.stdout + done.stderr


@pytest.fixture
def interrupted(tmp_path):
    """The directory of an ended run of this user, in `study`."""
    with QCGPJExecutor(wd=tmp_path / "study", resources=1) as executor:
        executor.submit(BasicTemplate, name="own", exec="true").result(20)
    (run,) = (tmp_path / "study").glob(".qcgpjm-service-*")
    return run


@two_users
def test_a_planted_run_is_not_taken_for_ones_own(interrupted, tmp_path):
    planted = plant(tmp_path / "study" / ".qcgpjm-service-x", f"id -un > {tmp_path}/pwned")
    give_away(planted)
    os.utime(interrupted, (1, 1))  # the planted one is newer
    (tmp_path / "study").chmod(0o777)
    with QCGPJExecutor(resume=tmp_path / "study", resources=1) as executor:
        assert executor.attach("own").result(20) == {"own": "SUCCEED"}
        assert [row["name"] for row in executor.record()] == ["own"]
    assert not (tmp_path / "pwned").exists()


@two_users
@pytest.mark.parametrize("option", ["resume", "manager"])
@pytest.mark.parametrize("given", ["study", "study/.qcgpjm-service-x"])
def test_the_run_of_another_user_is_refused_and_its_owner_named(tmp_path, option, given):
    give_away(plant(tmp_path / "study" / ".qcgpjm-service-x", f"touch {tmp_path}/pwned"))
    with pytest.raises(InvalidOption, match=rf"{option} is .*{given}.* nobody.*has to be yours"):
        QCGPJExecutor(**{option: tmp_path / given})
    assert not (tmp_path / "pwned").exists()


@two_users
def test_a_link_that_another_user_has_made_leads_nowhere(interrupted, tmp_path):
    (tmp_path / "shared").mkdir()
    link = tmp_path / "shared" / ".qcgpjm-service-x"
    link.symlink_to(interrupted)
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    for given in (tmp_path / "shared", link):
        with pytest.raises(InvalidOption, match="nobody"):
            QCGPJExecutor(resume=given)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_run_that_others_could_write_is_refused(interrupted, mode):
    interrupted.chmod(mode)
    for option in ("resume", "manager"):
        with pytest.raises(InvalidOption, match=rf"can write to .*mode {mode:04o}.*go-w"):
            QCGPJExecutor(**{option: interrupted})
    assert [row["name"] for row in RunRecord.of(interrupted)] == ["own"]  # which is only told


def test_a_working_directory_that_others_can_write_to_is_no_hindrance(interrupted, tmp_path):
    for mode in (0o775, 0o2775, 0o1777, 0o777):  # as with umask 002, or in the directory of a project
        (tmp_path / "study").chmod(mode)
        with QCGPJExecutor(resume=tmp_path / "study", resources=1) as executor:
            assert executor.attach("own").result(20) == {"own": "SUCCEED"}
            assert QCGPJExecutor(manager=tmp_path / "study").attach("own").result(20) == {"own": "SUCCEED"}


def test_a_run_of_a_user_with_umask_002_is_taken_up(tmp_path, run_script):
    umask = os.umask(0o002)
    try:
        with QCGPJExecutor(wd=tmp_path / "study", resources=1) as executor:
            executor.submit(BasicTemplate, name="own", exec="true").result(20)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "study").stat().st_mode) == 0o775
    (run,) = (tmp_path / "study").glob(".qcgpjm-service-*")
    (run / "track.reqs").chmod(0o664)  # as it was made before; nobody else gets into the directory
    with QCGPJExecutor(resume=tmp_path / "study", resources=1) as executor:
        assert executor.attach("own").result(20) == {"own": "SUCCEED"}


@two_users
@pytest.mark.parametrize("name", ["track.reqs", "track.states", "jobs.report"])
@pytest.mark.parametrize("how", ["given away", "a link", "writable"])
def test_a_file_that_another_user_may_have_written_is_not_believed(interrupted, tmp_path, name, how):
    if how == "given away":
        os.chown(interrupted / name, NOBODY, NOBODY)
    elif how == "a link":
        (interrupted / name).rename(tmp_path / name)
        (interrupted / name).symlink_to(tmp_path / name)
    else:
        interrupted.chmod(0o755)
        (interrupted / name).chmod(0o666)
    with pytest.raises(ManagerStartError, match=f"cannot be resumed.*{name}|{name}.*symbolic"):
        QCGPJExecutor(resume=interrupted, resources=1)


@two_users
def test_keys_and_addresses_of_another_user_are_not_believed(interrupted):
    (interrupted / "keys.json").write_text('{"client": {}}')
    os.chown(interrupted / "keys.json", NOBODY, NOBODY)
    with pytest.raises(InvalidOption, match=r"keys\.json belongs to nobody"):
        QCGPJExecutor(manager=interrupted)
    with pytest.raises((PermissionError, InvalidOption), match=r"keys\.json belongs to nobody"):
        QCGPJExecutor(resume=interrupted, allocation=Allocation(scheduler="local"))
    (interrupted / "keys.json").unlink()
    (interrupted / "manager.json").write_text("{}")
    os.chown(interrupted / "manager.json", NOBODY, NOBODY)
    with pytest.raises(InvalidOption, match=r"manager\.json belongs to nobody"):
        QCGPJExecutor(manager=interrupted)
    (interrupted / "manager.json").write_text('{"host": "here"}')
    with pytest.raises(ManagerStartError, match=r"manager\.json belongs to nobody"):
        QCGPJExecutor(resume=interrupted)


@pytest.fixture
def listener():
    """A socket that listens at a path."""
    with socket.socket(socket.AF_UNIX) as made:
        yield made


@two_users
def test_a_socket_that_another_user_has_put_in_place_of_the_managers_is_not_connected_to(
    executor, tmp_path, listener, monkeypatch
):
    executor.submit(BasicTemplate, name="own", exec="true").result(20)
    sockets = Path(executor._connection.dispatcher.link.process._sockets)
    sockets.rename(f"{sockets}.gone")
    sockets.mkdir()
    listener.bind(str(sockets / "manager:0"))
    listener.listen()
    give_away(sockets)
    with pytest.raises(InvalidOption, match=f"{sockets} belongs to nobody"):
        QCGPJExecutor(manager=tmp_path)
    shutil.rmtree(sockets)
    Path(f"{sockets}.gone").rename(sockets)
    QCGPJExecutor(manager=tmp_path).shutdown()
    monkeypatch.setattr(
        socket.socket, "getsockopt", lambda *_: (1).to_bytes(4, "little") + NOBODY.to_bytes(8, "little")
    )
    with pytest.raises(InvalidOption, match="nobody listens at"):
        link_to_directory(tmp_path)


def test_a_manager_whose_sockets_were_cleaned_away_is_said_to_live(executor, tmp_path):
    executor.submit(BasicTemplate, name="own", exec="true").result(20)
    sockets = Path(executor._connection.dispatcher.link.process._sockets)
    sockets.rename(f"{sockets}.gone")
    with pytest.raises(ManagerDied, match=r"lives, but its sockets are gone: .*TMPDIR"):
        QCGPJExecutor(manager=tmp_path)
    Path(f"{sockets}.gone").rename(sockets)
    QCGPJExecutor(manager=tmp_path).shutdown()


def test_sockets_are_not_where_others_could_rename_their_directory(tmp_path, monkeypatch):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "shared"))
    made = make_socket_directory(str(tmp_path), "requests")
    made.rmdir()
    assert made.parent == Path("/tmp")
    (tmp_path / "shared").chmod(0o1777)
    made = make_socket_directory(str(tmp_path), "requests")
    assert made.parent == tmp_path / "shared"


@two_users
def test_orders_of_another_user_start_no_worker(tmp_path):
    place = Rendezvous(tmp_path, across_nodes=False, ranks=1, several=False, same_python=True)
    try:
        command = [sys.executable, *place.job(0, sys.executable)["execution"]["args"]]
        os.chown(place._orders, 1, 1)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1
        assert "belongs to another user" in done.stderr
        content = place._orders.read_text()
        place._orders.unlink()
        (tmp_path / "theirs").write_text(content)
        place._orders.symlink_to(tmp_path / "theirs")
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert "symbolic links" in done.stderr
    finally:
        place.close()


@two_users
def test_a_colleagues_run_can_be_read_and_is_called_that(interrupted, tmp_path):
    give_away(interrupted)
    with pytest.warns(UserWarning, match=f"{interrupted} is a run of nobody"):
        assert [row["name"] for row in RunRecord.of(interrupted)] == ["own"]
    os.chown(interrupted / "jobs.report", 1, 1)
    with (
        pytest.warns(UserWarning, match="of nobody"),
        pytest.raises(InvalidOption, match=r"no single user's: .*jobs\.report belongs to"),
    ):
        RunRecord.of(interrupted)


@two_users
def test_runs_of_others_are_left_out_of_ones_own(interrupted, tmp_path):
    planted = plant(tmp_path / "study" / ".qcgpjm-service-x", "true")
    give_away(planted)
    with pytest.warns(UserWarning, match="left out: .*qcgpjm-service-x"):
        assert [row["name"] for row in RunRecord.of(tmp_path / "study")] == ["own"]
    give_away(interrupted, 1)
    with pytest.raises(InvalidOption, match=r"runs of several users, .*nobody; name one"):
        RunRecord.of(tmp_path / "study")


@two_users
@pytest.mark.parametrize(
    "call",
    ["RunRecord.of({0!r})", "QCGPJExecutor(resume={0!r})", "QCGPJExecutor(manager={0!r})", "RunRecord.of({1!r})"],
)
def test_a_directory_that_is_closed_is_said_to_be_so(interrupted, tmp_path, call):
    for closed in (interrupted, tmp_path / "study"):
        closed.chmod(0o700)
        for parent in closed.parents:
            if parent != Path("/") and parent.stat().st_mode & 0o7777 == 0o700 and parent != closed:
                parent.chmod(0o711)
        said = as_nobody(call.format(str(interrupted), str(tmp_path / "study")))
        assert "InvalidOption" in said
        assert "belongs to root" in said or "root, not to nobody" in said
        assert "\nPermissionError" not in said


@two_users
def test_a_run_that_was_opened_for_others_is_read_by_them_and_nothing_more(interrupted, tmp_path):
    for parent in interrupted.parents:
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    interrupted.chmod(0o755)
    for name in ("jobs.report", "track.reqs", "service.log"):
        (interrupted / name).chmod(0o644)
    said = as_nobody(f"print([row['name'] for row in RunRecord.of({str(interrupted)!r})])")
    assert "['own']\n" in said
    assert f"UserWarning: {interrupted} is a run of root" in said
    said = as_nobody(f"QCGPJExecutor(resume={str(interrupted)!r})")
    assert "belongs to root, not to nobody; what is there would be run as you" in said
    with QCGPJExecutor(resume=interrupted, resources=1) as executor:  # its owner goes on with it
        assert executor.attach("own").result(20) == {"own": "SUCCEED"}


def test_files_are_judged_by_what_was_opened(tmp_path):
    place = tmp_path / "run"
    place.mkdir(mode=0o700)
    (place / "file").write_bytes(b"content")
    assert read_owned(place / "file") == b"content"
    os.mkfifo(place / "fifo")
    with pytest.raises(NotOwned, match="no regular file"):
        open_owned(place / "fifo")  # which nobody writes to
    with pytest.raises(FileNotFoundError):
        open_owned(place / "nothing")
    (place / "file").chmod(0o666)
    assert read_owned(place / "file") == b"content"  # nobody else gets there
    place.chmod(0o711)
    with pytest.raises(NotOwned, match="mode 0666"):
        open_owned(place / "file")


def test_jobs_on_record_are_not_writable_for_others(tmp_path):
    umask = os.umask(0)
    try:
        with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
            executor.submit(ScriptTemplate, name="a", script="true").result(20)
    finally:
        os.umask(umask)
    (run,) = tmp_path.glob(".qcgpjm-service-*")
    for name in ("track.reqs", "track.states", "jobs.report"):
        assert stat.S_IMODE((run / name).stat().st_mode) == 0o644
