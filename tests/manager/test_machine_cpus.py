"""CPUs and cores, from what the kernel tells of a machine."""

import os
import random

import pytest

from qcg.pilotjob.executor_api._processes.cpus import (
    cores_of,
    given_cpus,
    machine_cores,
    parse_cpus,
    slots,
    usable_cpus,
)


@pytest.fixture
def topology(tmp_path):
    """Write the kernel's files for CPUs given as {cpu: (socket, siblings)}; returns their directory."""

    def write(cpus, online=None):
        (tmp_path / "online").write_text(online or ",".join(map(str, cpus)))
        for cpu, (socket, siblings) in cpus.items():
            directory = tmp_path / f"cpu{cpu}" / "topology"
            directory.mkdir(parents=True)
            (directory / "physical_package_id").write_text(f"{socket}\n")
            (directory / "thread_siblings_list").write_text(f"{siblings}\n")
        return tmp_path

    return write


def test_siblings_are_one_core_whatever_the_kernel_calls_them(topology):
    far = topology({0: (0, "0,4"), 1: (0, "1,5"), 2: (1, "2,6"), 3: (1, "3,7"),
                    4: (0, "0,4"), 5: (0, "1,5"), 6: (1, "2,6"), 7: (1, "3,7")})  # fmt: skip
    assert machine_cores(far) == [(0, 4), (1, 5), (2, 6), (3, 7)]


def test_neighbours_may_be_siblings_too(topology):
    near = topology({0: (0, "0-1"), 1: (0, "0-1"), 2: (0, "2-3"), 3: (0, "2-3")})
    assert machine_cores(near) == [(0, 1), (2, 3)]


def test_cores_come_socket_by_socket_as_slurm_counts_them(topology):
    in_turns = topology({cpu: (cpu % 2, str(cpu)) for cpu in range(6)})
    assert machine_cores(in_turns) == [(0,), (2,), (4,), (1,), (3,), (5,)]


def test_a_cpu_that_is_offline_is_not_there(topology):
    assert machine_cores(topology({0: (0, "0,2"), 1: (0, "1,3"), 3: (0, "1,3")}, online="0-1,3")) == [(0,), (1, 3)]


def test_without_a_word_of_the_kernel_each_cpu_is_a_core(tmp_path):
    assert machine_cores(tmp_path) == [(cpu,) for cpu in usable_cpus()]


def test_this_machine_has_the_cpus_that_this_process_may_use():
    assert sorted(cpu for core in cores_of(usable_cpus(), machine_cores()) for cpu in core) == usable_cpus()
    assert usable_cpus() == sorted(os.sched_getaffinity(0))


def test_of_a_core_only_what_is_given_counts():
    machine = [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert cores_of([1, 5, 6], machine) == [(1, 5), (6,)]
    assert cores_of([0, 1, 2, 3], machine) == [(0,), (1,), (2,), (3,)]
    assert cores_of([9, 0], machine) == [(0,), (9,)]
    assert cores_of([], machine) == []


@pytest.mark.parametrize(
    ("threads_per_core", "expected"),
    [(1, [(0, 4), (1, 5), (6,)]), (2, [(0,), (1,), (4,), (5,), (6,)]), (8, [(0,), (1,), (4,), (5,), (6,)])],
)
def test_hardware_threads_share_a_core_only_where_it_is_asked_for(threads_per_core, expected):
    assert slots([(0, 4), (1, 5), (6,)], threads_per_core) == expected


@pytest.mark.parametrize("seed", range(40))
def test_no_cpu_is_lost_and_none_is_given_twice(seed):
    chance = random.Random(seed)
    cpus, width, threads_per_core = chance.sample(range(64), chance.randrange(65)), chance.randint(1, 4), seed % 5 + 1
    machine = [tuple(range(first, first + width)) for first in range(0, 60, width)]
    pieces = slots(cores_of(cpus, machine), threads_per_core)
    assert sorted(cpu for piece in pieces for cpu in piece) == sorted(cpus)


HYPERTHREADS = [(0, 4), (1, 5), (2, 6), (3, 7)]


@pytest.mark.parametrize(
    ("usable", "numbers", "count", "expected"),
    [
        # confined, as by cgroups: what may be used is all that was given, whatever it is called
        ([1, 5], [2, 3], 2, [1, 5]),
        ([2, 3], [0, 1], 2, [2, 3]),
        ([0, 1, 4, 5], [0, 1, 2, 3], 3, [0, 1, 4, 5]),
        ([2], [0, 1, 2, 3], 4, [2]),
        # not confined: Slurm's numbers go from core to core
        (range(8), [2, 3], 2, [1, 5]),
        (range(8), [0, 1, 6, 7], 4, [0, 3, 4, 7]),
        (range(8), range(8), 8, list(range(8))),
        # one thread of each core is wanted, and the others come with it
        (range(8), range(8), 4, list(range(8))),
        # which they are cannot be told
        (range(8), None, 2, []),
        (range(8), [8, 9], 2, []),
        ([0, 1, 2], [6, 7], 2, []),
        # more than there are
        (range(8), range(16), 16, []),
        (range(8), None, 16, []),
    ],
)
def test_what_was_given_is_what_is_used(usable, numbers, count, expected):
    assert given_cpus(list(usable), HYPERTHREADS, numbers and list(numbers), count) == expected


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_used_that_may_not_be(seed):
    chance = random.Random(seed)
    usable, numbers = (set(chance.sample(range(most), chance.randint(1, most))) for most in (8, 12))
    count = chance.randint(1, 12)
    found = given_cpus(sorted(usable), HYPERTHREADS, sorted(numbers), count)
    assert set(found) <= usable
    assert len(found) <= len(numbers)


@pytest.mark.parametrize(("text", "expected"), [("", []), ("3\n", [3]), ("0-2,8", [0, 1, 2, 8]), ("5,3-4", [5, 3, 4])])
def test_lists_of_cpus_are_read_as_they_are_written(text, expected):
    assert parse_cpus(text) == expected


@pytest.mark.parametrize("text", ["a", "-1", "1--2", "3-1", "0x3"])
def test_what_is_no_list_of_cpus_is_an_error(text):
    with pytest.raises(ValueError, match=r"invalid literal|not a list"):
        parse_cpus(text)
