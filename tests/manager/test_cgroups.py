"""The CPU quota of a process, from what the kernel tells of its control groups."""

import pytest

from qcg.pilotjob.executor_api._processes.cpus import cpu_quota

V1 = "32 31 0:29 {root} {point} rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "24 23 0:22 {root} {point} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
OTHERS = (
    "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)


@pytest.fixture
def quota_of(tmp_path):
    """Make the files of a system, and return the quota there; groups are given as {directory: limit}."""

    def quota_of(membership, mounts, limits):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(membership)
        (tmp_path / "proc/self/mountinfo").write_text(OTHERS + mounts)
        for name, limit in limits.items():
            directory = tmp_path / name
            directory.mkdir(parents=True, exist_ok=True)
            if isinstance(limit, str):
                (directory / "cpu.max").write_text(f"{limit}\n")
            else:
                (directory / "cpu.cfs_quota_us").write_text(f"{limit}\n")
                (directory / "cpu.cfs_period_us").write_text("100000\n")
        return cpu_quota(tmp_path)

    return quota_of


def v1(root="/", point="/sys/fs/cgroup/cpu,cpuacct"):
    return V1.format(root=root, point=point)


def v2(root="/", point="/sys/fs/cgroup"):
    return V2.format(root=root, point=point)


TOP = "sys/fs/cgroup"
TOP_V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        ({f"{TOP}/a/b": "250000 100000"}, 2.5),
        ({f"{TOP}/a/b": "max 100000"}, None),
        ({f"{TOP}/a/b": "20000 10000", f"{TOP}/a": "max 100000"}, 2.0),
        ({f"{TOP}/a/b": "400000 100000", f"{TOP}/a": "150000 100000"}, 1.5),  # no more than its parent
        ({f"{TOP}/a/b": "max 100000", f"{TOP}/a": "300000 100000"}, 3.0),
        ({f"{TOP}/a": "30000 100000"}, 0.3),  # where the controller is not handed on, there is no file
        ({f"{TOP}/c": "100000 100000"}, None),  # another's
        ({}, None),
    ],
)
def test_version_2(quota_of, limits, quota):
    assert quota_of("0::/a/b\n", v2(), limits) == quota


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        ({TOP_V1: -1, f"{TOP_V1}/a/b": 250_000}, 2.5),
        ({TOP_V1: -1, f"{TOP_V1}/a": -1, f"{TOP_V1}/a/b": -1}, None),
        ({f"{TOP_V1}/a": 150_000, f"{TOP_V1}/a/b": 250_000}, 1.5),
        ({f"{TOP_V1}/a": 150_000, f"{TOP_V1}/a/b": -1}, 1.5),
        ({}, None),
    ],
)
def test_version_1(quota_of, limits, quota):
    assert quota_of("9:cpuset:/c\n4:cpu,cpuacct:/a/b\n1:name=systemd:/x\n0::/y\n", v1(), limits) == quota


def test_both_versions_at_once(quota_of):
    membership = "4:cpu,cpuacct:/a\n0::/a\n"
    limits = {f"{TOP_V1}/a": 300_000, f"{TOP}/unified/a": "200000 100000"}
    assert quota_of(membership, v1() + v2(point="/sys/fs/cgroup/unified"), limits) == 2.0


@pytest.mark.parametrize("membership", ["0::/\n", "0::/docker/id\n", "0::/../elsewhere\n"])
def test_a_container_that_sees_its_own_group_as_the_topmost(quota_of, membership):
    assert quota_of(membership, v2(root="/docker/id"), {TOP: "250000 100000"}) == 2.5


def test_a_container_in_which_the_names_are_those_of_the_host(quota_of):
    membership = "4:cpu,cpuacct:/docker/id/inner\n"
    limits = {TOP_V1: 400_000, f"{TOP_V1}/inner": 350_000}
    assert quota_of(membership, v1(root="/docker/id"), limits) == 3.5


def test_groups_of_the_host_that_are_mounted_for_a_look(quota_of):
    mounts = v2() + v2(root="/../..", point="/host/cgroup")
    assert quota_of("0::/\n", mounts, {TOP: "200000 100000", "host/cgroup/a": "100000 100000"}) == 2.0


def test_mount_points_with_blanks(quota_of):
    mounts = v2(point=r"/sys/fs/my\040groups")
    assert quota_of("0::/a\n", mounts, {"sys/fs/my groups/a": "200000 100000"}) == 2.0


def test_nothing_is_known_without_proc(tmp_path):
    assert cpu_quota(tmp_path) is None
