"""What can never run is refused before it is sent, with the place and what to write instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qcg.pilotjob.executor_api import InvalidJob, QCGPJExecutor
from qcg.pilotjob.executor_api._description.validation import validated
from qcg.pilotjob.executor_api._shared.rules import JOB_ID_VARIABLE
from qcg.pilotjob.executor_api.jobs import Capacity

RUNS = {"exec": "echo"}


def job(**parts):
    return {"name": "a", "execution": RUNS, **parts}


def executing(**parts):
    return job(execution={**RUNS, **parts})


def execution_of(**parts):
    return validated(executing(**parts), None)["execution"]


def refused(description, *parts, capacity=None):
    """`description` is refused, and the message has all `parts`."""
    with pytest.raises(InvalidJob) as caught:
        validated(description, capacity)
    assert isinstance(caught.value, ValueError)
    for part in parts:
        assert part in str(caught.value)


class TestShape:
    @pytest.mark.parametrize("description", [None, [], "a", 1])
    def test_a_job_is_a_dictionary(self, description):
        refused(description, "the job is ", "write a dictionary")

    def test_the_least_that_is_a_job(self):
        assert validated({"name": "a", "execution": {"exec": "e"}}, None) == {
            "name": "a",
            "execution": {"exec": "e", "args": [], "env": {JOB_ID_VARIABLE: "a"}},
        }

    def test_the_given_description_stays_as_it_is(self):
        given = executing(env={"A": 1}, args=[1], model="THREADS")
        given["resources"] = {"numCores": 2, "wt": ""}
        before = repr(given)
        validated(given, None)
        assert repr(given) == before

    @pytest.mark.parametrize(
        ("description", "place", "wrong", "meant"),
        [
            (job(dependency={}), "the job", "'dependency'", "'dependencies'"),
            (job(Resources={}), "the job", "'Resources'", "'resources'"),
            (executing(arg=[]), "job 'a': execution", "'arg'", "'args'"),
            (executing(std_out="o"), "job 'a': execution", "'std_out'", "'stdout'"),
            (job(resources={"numcores": 1}), "job 'a': resources", "'numcores'", "'numCores'"),
            (job(resources={"numCores": {"minimum": 1}}), "job 'a': resources: numCores", "'minimum'", "'min'"),
            (job(iteration={"step": 1}), "job 'a': iteration", "'step'", "'stop'"),
            (job(dependencies={"afters": []}), "job 'a': dependencies", "'afters'", "'after'"),
        ],
    )
    def test_an_unknown_key_has_a_neighbour(self, description, place, wrong, meant):
        refused(description, f"{place} has the unknown key {wrong}", f"did you mean {meant}?")

    def test_an_unknown_key_without_a_neighbour_gets_the_list(self):
        refused(job(zzz=1), "the job has the unknown key 'zzz'", "the keys are name, execution, resources")

    def test_keys_are_text(self):
        refused(job(attributes={1: 2}), "job 'a': attributes has the key 1", "write keys as text")
        refused({1: 2}, "the job has the key 1")

    @pytest.mark.parametrize("part", ["execution", "resources", "iteration", "dependencies", "attributes"])
    def test_every_part_is_a_dictionary(self, part):
        refused(job(**{part: "text"}), f"job 'a': {part} is 'text'", "write a dictionary")

    def test_long_values_are_shown_short(self):
        with pytest.raises(InvalidJob) as caught:
            validated(job(execution="x" * 1000), None)
        assert len(str(caught.value)) < 200

    def test_attributes_pass(self):
        assert validated(job(attributes={"a": [1]}), None)["attributes"] == {"a": [1]}


class TestPlace:
    """An error says where in the description it is, for programs too."""

    @pytest.mark.parametrize(
        ("description", "path", "key", "problem"),
        [
            (None, (), None, "is None; write a dictionary"),
            ({"name": "a"}, (), None, "has no 'execution'"),
            (job(dependency={}), (), "dependency", "has the unknown key 'dependency'; did you mean 'dependencies'?"),
            ({"name": "a b", "execution": RUNS}, ("name",), None, "'a b' contains ' '"),
            (executing(args=["a", None]), ("execution", "args", 1), None, "is None; write text or a number"),
            (executing(modules=["a", 1]), ("execution", "modules", 1), None, "is 1"),
            (executing(env={"1": "a"}), ("execution", "env"), "1", "has the variable '1'"),
            (executing(script="a"), ("execution",), "exec", "has both 'script' and 'exec'"),
            (job(resources={"numCores": {"exact": 0}}), ("resources", "numCores", "exact"), None, "is 0"),
            (job(resources={"numCores": {"exact": 1, "min": 1}}), ("resources", "numCores"), "exact", "beside a range"),
            (job(resources={"wt": "long"}), ("resources", "wt"), None, "is 'long'"),
            (job(iteration={"values": ["a", '"']}), ("iteration", "values", 1), None, "contains"),
            (job(iteration={"start": 1, "values": ["a"]}), ("iteration",), "start", "has 'start' beside 'values'"),
            (job(dependencies={"after": ["b", "a"]}), ("dependencies", "after", 1), None, "names the job itself"),
            (job(dependencies={"after": "a"}), ("dependencies", "after"), None, "names the job itself"),
        ],
    )
    def test_path_key_and_problem(self, description, path, key, problem):
        with pytest.raises(InvalidJob) as caught:
            validated(description, None)
        error = caught.value
        assert (error.path, error.key) == (path, key)
        assert problem in error.problem
        assert str(error).endswith(error.problem)


class TestName:
    @pytest.mark.parametrize("name", ["a", "a-b_c.d/e@f+g", "é😀", "0", "a" * 300])
    def test_good(self, name):
        assert validated({"name": name, "execution": RUNS}, None)["name"] == name

    def test_characters(self):
        """Exactly what the error lists can be in a name, and nothing else of ASCII."""
        with pytest.raises(InvalidJob) as caught:
            validated({"name": "a b", "execution": RUNS}, None)
        listed = re.search(r"use letters, digits and ((?:. )+)", str(caught.value))[1].split()
        for character in map(chr, range(1, 128)):
            description = {"name": f"a{character}b", "execution": RUNS}
            if character.isalnum() or character in listed:
                assert validated(description, None)["name"] == description["name"]
            else:
                refused(description, f"the job's name {description['name']!r} contains {character!r}", "use letters")

    @pytest.mark.parametrize("character", "\x85\xa0\xad\u2003\u200b\u200e\u2028\u202e\u2066\ufeff\udc80\U000e0001")
    def test_what_cannot_be_seen_or_turns_text_around(self, character):
        name = f"a{character}b"
        refused({"name": name, "execution": RUNS}, f"the job's name {name!r} contains {character!r}", "be printed")

    @pytest.mark.parametrize("name", ["a/b", ".a", "a..b", "...", "a/.b/c."])
    def test_parts(self, name):
        assert validated({"name": name, "execution": RUNS}, None)["name"] == name

    @pytest.mark.parametrize("name", ["../x", "a/../../x", "..", ".", "/x", "x/", "a//b", "a/./b"])
    def test_paths_that_lead_elsewhere(self, name):
        refused({"name": name, "execution": RUNS}, f"the job's name {name!r}", "its files would be elsewhere")

    def test_no_nul(self):
        refused({"name": "a\0b", "execution": RUNS}, "the job's name contains a NUL character")

    def test_empty(self):
        refused({"name": "", "execution": RUNS}, "the job's name is empty")

    @pytest.mark.parametrize("name", [1, ["a"], True])
    def test_text_only(self, name):
        refused({"name": name, "execution": RUNS}, f"the job's name is {name!r}", "write text in quotes")

    def test_without_one_a_new_one_is_made(self):
        made = {validated({"execution": RUNS}, None)["name"] for _ in range(50)}
        assert len(made) == 50
        assert all(re.fullmatch(r"[\w-]+", name) for name in made)


class TestExecution:
    def test_is_needed(self):
        refused({"name": "a"}, "job 'a' has no 'execution'", "write 'execution': {'exec': 'program'")

    @pytest.mark.parametrize(
        "execution", [{}, {"args": ["a"]}, {"exec": ""}, {"script": ""}, {"exec": "", "script": ""}]
    )
    def test_something_to_run_is_needed(self, execution):
        refused(job(execution=execution), "job 'a': execution has neither 'exec' nor 'script'", "'exec'")

    @pytest.mark.parametrize("other", [{"exec": "e"}, {"args": ["a"]}])
    def test_a_script_stands_alone(self, other):
        (key,) = other
        refused(job(execution={"script": "true", **other}), f"has both 'script' and {key!r}", "keep one")

    def test_nothing_beside_a_script_does_no_harm(self):
        execution = validated(job(execution={"script": "true", "exec": "", "args": []}), None)["execution"]
        assert set(execution) == {"script"}

    @pytest.mark.parametrize("key", ["exec", "script", "stdin", "stdout", "stderr", "wd", "venv", "model"])
    def test_text_is_text(self, key):
        execution = {key: 5} if key in ("exec", "script") else {**RUNS, key: 5}
        refused(job(execution=execution), f"job 'a': execution: {key} is 5", "write text in quotes")

    @pytest.mark.parametrize("key", ["exec", "script", "stdin", "stdout", "stderr", "wd", "venv"])
    def test_no_nul(self, key):
        execution = {key: "a\0b"} if key in ("exec", "script") else {**RUNS, key: "a\0b"}
        refused(job(execution=execution), f"execution: {key} contains a NUL character", "remove it")

    @pytest.mark.parametrize("key", ["stdin", "stdout", "stderr", "wd"])
    def test_an_empty_path_is_none(self, key):
        assert key not in execution_of(**{key: ""})

    def test_paths_may_be_path_objects(self):
        execution = execution_of(stdout=Path("a/b"), wd=Path("/c"), venv=Path("v"))
        assert (execution["stdout"], execution["wd"], execution["venv"]) == ("a/b", "/c", "v")

    @pytest.mark.parametrize(
        "nothing",
        [{"venv": ""}, {"modules": []}, {"modules": ""}, {"modules": [""]}, {"model": ""}, {"model_opts": {}}],
    )
    def test_nothing_means_none(self, nothing):
        assert execution_of(**nothing) == execution_of()

    def test_modules_may_be_one(self):
        assert execution_of(modules="gcc/12")["modules"] == ["gcc/12"]
        assert execution_of(modules=["gcc", "mpi"])["modules"] == ["gcc", "mpi"]
        refused(executing(modules=[1]), "execution: modules: [0] is 1", "write text")

    @pytest.mark.parametrize("model", ["default", "threads", "openmpi", "intelmpi", "srunmpi", "OpenMPI"])
    def test_models(self, model):
        assert execution_of(model=model)["model"] == model.lower()

    def test_an_unknown_model_gets_the_list(self):
        refused(executing(model="mpich"), "execution: model is 'mpich'", "default, threads, openmpi, intelmpi, srunmpi")


class TestArguments:
    def test_become_text(self):
        assert execution_of(args=["a", 1, 0.5, True, Path("/b")])["args"] == ["a", "1", "0.5", "True", "/b"]

    def test_text_is_no_list(self):
        refused(executing(args="-n '1 2'"), "execution: args is the text", "write a list: ['-n', '1 2']")
        refused(executing(args="it's"), "execution: args is the text", "an item for each argument")

    @pytest.mark.parametrize("key", ["mpirun_args", "srun_args"])
    def test_options_of_mpi_are_a_list_too(self, key):
        refused(
            executing(model_opts={key: "-x A"}), f"model_opts: {key} is the text '-x A'", "write a list: ['-x', 'A']"
        )
        refused(executing(model_opts={key: [None]}), f"model_opts: {key}: [0] is None", "write text or a number")
        assert validated(executing(model_opts={key: ["-x", 1]}), None)["execution"]["model_opts"] == {key: ["-x", "1"]}
        refused(executing(model_opts={key[:-1]: []}), f"has the unknown key {key[:-1]!r}", f"did you mean {key!r}?")

    def test_modules_as_text_are_one(self):
        assert validated(executing(modules="gcc/12"), None)["execution"]["modules"] == ["gcc/12"]
        refused(executing(modules="gcc/12 openmpi"), "modules is the text", "write a list: ['gcc/12', 'openmpi']")

    @pytest.mark.parametrize("args", [1, {"a": 1}, True])
    def test_must_be_a_list(self, args):
        refused(executing(args=args), "execution: args is", "write a list")

    @pytest.mark.parametrize("wrong", [None, ["a"], {}, b"a"])
    def test_the_message_has_the_number(self, wrong):
        refused(executing(args=["a", wrong]), f"execution: args: [1] is {wrong!r}", "write text or a number")

    def test_no_nul(self):
        refused(executing(args=["a", "b\0"]), "args: [1] contains a NUL character")


class TestEnvironment:
    def test_values_become_text(self):
        env = execution_of(env={"A": 1, "B": 0.5, "C": True, "D": "d", "E": Path("/e")})["env"]
        assert env == {"A": "1", "B": "0.5", "C": "True", "D": "d", "E": "/e", JOB_ID_VARIABLE: "a"}

    @pytest.mark.parametrize("key", ["", "1A", "A=B", "A B", "A-B", "é", "A\n"])
    def test_names_of_variables(self, key):
        refused(executing(env={key: "x"}), f"execution: env has the variable {key!r}", "letters, digits and _")

    @pytest.mark.parametrize("value", [None, [], b"a"])
    def test_values_are_text_or_numbers(self, value):
        refused(executing(env={"A": value}), f"execution: env: A is {value!r}", "write text or a number")

    def test_no_nul(self):
        refused(executing(env={"A": "\0"}), "execution: env: A contains a NUL character")

    def test_beside_a_script_it_is_exported(self):
        script = validated(job(execution={"script": "true\n", "env": {"A": "it's $x", "B": 1}}), None)["execution"]
        assert set(script) == {"script"}
        lines = script["script"].split("\n")
        assert """export A='it'"'"'s $x'""" in lines
        assert "export B=1" in lines
        assert f"export {JOB_ID_VARIABLE}=a" in lines
        assert lines[-2:] == ["true", ""]


class TestResources:
    @pytest.mark.parametrize("key", ["numCores", "numNodes"])
    @pytest.mark.parametrize("size", [0, -1, 1.5, True, "2", [1], None])
    def test_sizes_are_whole_numbers(self, key, size):
        refused(job(resources={key: size}), f"resources: {key} is {size!r}", "write a whole number, 1 or more")

    @pytest.mark.parametrize("key", ["exact", "min", "max"])
    def test_inside_a_size_too(self, key):
        refused(job(resources={"numCores": {key: 0}}), f"resources: numCores: {key} is 0", "whole number, 1 or more")

    @pytest.mark.parametrize(
        ("size", "sent"),
        [
            (2, {"exact": 2}),
            ({"exact": 2}, {"exact": 2}),
            ({"min": 2, "max": 4}, {"min": 2, "max": 4}),
            ({"max": 4}, {"min": 1, "max": 4}),
        ],
    )
    def test_good_sizes(self, size, sent):
        assert validated(job(resources={"numCores": size}), None)["resources"] == {"numCores": sent}

    @pytest.mark.parametrize(
        ("size", "message"),
        [
            ({}, "has no number; write {'exact': 4}, or {'min': 2, 'max': 4}"),
            ({"exact": 1, "min": 1}, "has 'exact' beside a range; keep 'exact', or 'min' and 'max'"),
            ({"min": 4, "max": 2}, "goes from 4 to 2; write the smaller number as 'min'"),
            ({"scheduler": {"name": "split-into"}}, "has no number"),
            ({"min": 2}, "has 'min' and no 'max'; write {'min': 2, 'max': 4}, or {'exact': 2}"),
            ({"min": 1, "scheduler": {"name": "split-into"}}, "has a scheduler, but the job has no iterations"),
            ({"min": 1, "scheduler": {"name": "fair"}}, "scheduler has the name 'fair'; the schedulers are"),
            (
                {"min": 1, "max": 2, "scheduler": {"name": "split-into"}},
                "scheduler stands beside 'max'; leave 'max' out",
            ),
        ],
    )
    def test_bad_sizes(self, size, message):
        refused(job(resources={"numCores": size}), "job 'a': resources: numCores", message)

    def test_a_job_without_sizes_has_one_core(self):
        assert validated(job(resources={"wt": "1h"}), None)["resources"] == {"numCores": {"exact": 1}, "wt": "1h"}

    @pytest.mark.parametrize("walltime", ["1h", "90s", "10m", "1h30m", "1h2m3s", "0h1s"])
    def test_walltimes(self, walltime):
        assert validated(job(resources={"wt": walltime}), None)["resources"]["wt"] == walltime

    def test_an_empty_walltime_is_none(self):
        assert "wt" not in validated(job(resources={"wt": ""}), None)["resources"]

    def test_consumables(self):
        assert validated(job(resources={"nodeCrs": {}}), None)["resources"] == {"numCores": {"exact": 1}}
        refused(job(resources={"nodeCrs": {"gpu": 0}}), "nodeCrs: gpu is 0", "whole number, 1 or more")
        refused(job(resources={"nodeCrs": {"fpga": 1}}), "nodeCrs names 'fpga'", "it can have 'gpu' only")
        for key in ("mem", "MEM"):
            refused(job(resources={"nodeCrs": {key: 1}}), f"nodeCrs names '{key}'", "no manager counts memory")
        none, one = Capacity(1, 4, ((4, True),), ({},)), Capacity(1, 4, ((4, True),), ({"gpu": 1},))
        wanted = job(resources={"nodeCrs": {"gpu": 1}})
        refused(wanted, "nodeCrs asks for 1 GPU on a node", "no node has more than 0", capacity=none)
        assert validated(wanted, one)["resources"]["nodeCrs"] == {"gpu": 1}
        refused(job(resources={"nodeCrs": {"gpu": 1, "GPU": 1}}), "nodeCrs names gpu twice", "keep one of them")

    def test_gpus_are_on_each_node_and_on_one_when_none_is_named(self):
        one_node = {"numCores": {"exact": 2}, "numNodes": {"exact": 1}, "nodeCrs": {"gpu": 3}}
        assert validated(job(resources={"numCores": 2, "gpus": 3}), None)["resources"] == one_node
        two_nodes = {"numCores": {"exact": 2}, "numNodes": {"exact": 2}, "nodeCrs": {"gpu": 3}}
        assert validated(job(resources={"numCores": 2, "numNodes": 2, "gpus": 3}), None)["resources"] == two_nodes
        alone = {"numCores": {"exact": 1}, "numNodes": {"exact": 1}, "nodeCrs": {"gpu": 1}}
        assert validated(job(resources={"gpus": 1}), None)["resources"] == alone
        assert validated(job(resources={"numCores": 2, "gpus": 0}), None)["resources"] == {"numCores": {"exact": 2}}

    @pytest.mark.parametrize("number", [-1, 0.5, "1", True, None])
    def test_gpus_are_a_whole_number(self, number):
        refused(job(resources={"gpus": number}), f"gpus is {number!r}", "whole number, 0 or more")

    def test_gpus_are_asked_for_once(self):
        refused(job(resources={"gpus": 1, "nodeCrs": {"gpu": 1}}), "'gpus' beside 'nodeCrs'", "keep 'gpus'")

    def test_gpus_that_no_node_or_too_few_nodes_have(self):
        capacity = Capacity(2, 8, ((4, True), (4, True)), ({"gpu": 2}, {"gpu": 4}))
        assert validated(job(resources={"gpus": 4}), capacity)
        many = job(resources={"gpus": 5})
        refused(many, "gpus asks for 5 GPUs on a node", "no node has more than 4", capacity=capacity)
        wide = job(resources={"numNodes": 2, "numCores": 1, "gpus": 3})
        refused(wide, "2 nodes with 1 core and 3 GPUs each", "1 node here can give that", capacity=capacity)
        whole = job(resources={"numNodes": 2, "gpus": 3})
        refused(whole, "2 whole nodes with 3 GPUs each", "1 node here can give that", capacity=capacity)

    def test_a_pool_has_no_more_workers_than_there_are_gpus_for(self):
        capacity = Capacity(2, 8, ((4, True), (4, True)), ({"gpu": 2}, {"gpu": 4}))
        assert [capacity.at_a_time(1, None, {"gpu": count}) for count in (1, 2, 3, 4)] == [6, 3, 1, 1]
        assert capacity.at_a_time(2, None, {}) == 4
        assert capacity.at_a_time(1, 2, {"gpu": 2}) == 1


TWO_NODES = Capacity(2, 7, ((4, True), (3, False)), ({}, {}))  # a core of the second node is kept for the manager
UNKNOWN_NODES = Capacity(2, 8)


class TestCapacity:
    @pytest.mark.parametrize(
        "resources",
        [
            {"numCores": 4},
            {"numCores": {"min": 4, "max": 99}},
            {"numNodes": 1},
            {"numNodes": 1, "numCores": 4},
            {"numNodes": 2, "numCores": 3},
            {"numNodes": {"min": 1, "max": 5}, "numCores": {"min": 3, "max": 99}},
        ],
    )
    def test_fits(self, resources):
        assert validated(job(resources=resources), TWO_NODES)

    @pytest.mark.parametrize(
        ("resources", "asked", "there"),
        [
            ({"numCores": 8}, "asks for 8 cores", "jobs can use 7 cores here; no node has 8 cores"),
            ({"numCores": 5}, "asks for 5 cores on one node", "no node has 5 cores; jobs can use 4 on one"),
            ({"numCores": {"min": 5, "max": 9}}, "asks for 5 cores on one node", "no node has 5 cores"),
            ({"numNodes": 3}, "asks for 3 nodes", "there are 2 here"),
            ({"numNodes": {"min": 3, "max": 4}}, "asks for 3 nodes", "there are 2 here"),
            ({"numNodes": 2}, "asks for 2 whole nodes", "1 node here can give that"),
            ({"numNodes": 1, "numCores": 5}, "asks for 5 cores on one node", "no node has 5 cores"),
            ({"numNodes": 2, "numCores": 4}, "asks for 2 nodes with 4 cores each", "1 node here"),
        ],
    )
    def test_can_never_fit(self, resources, asked, there):
        refused(job(resources=resources), "job 'a': resources", asked, there, capacity=TWO_NODES)
        assert validated(job(resources=resources), None)  # of a manager that does not tell, nothing is known

    @pytest.mark.parametrize("model", ["openmpi", "intelmpi", "srunmpi"])
    @pytest.mark.parametrize(
        ("resources", "problem"),
        [
            ({"numCores": 7}, ""),
            ({"numCores": {"min": 7, "max": 9}}, ""),
            ({"numCores": 8}, "asks for 8 cores; jobs can use 7 cores here"),
            ({"numCores": 6, "ranks": 2}, ""),
            ({"numCores": 4, "ranks": 1}, ""),
            ({"ranks": 7}, ""),
            ({"numNodes": 2, "numCores": 3, "ranks": 1}, ""),
            ({"numNodes": 1, "ranks": 2}, ""),
            ({"numCores": 5, "ranks": 1}, "asks for 1 rank with 5 cores each; each has them on one node, and there is"),
            ({"numNodes": 1, "ranks": 3}, "ranks is 3, and a whole node is 4 cores, which they cannot share equally"),
        ],
    )
    def test_ranks(self, resources, problem, model):
        wanted = job(execution={"exec": "e", "model": model}, resources=resources)
        if problem:
            refused(wanted, problem, capacity=TWO_NODES)
        else:
            sent = validated(wanted, TWO_NODES)
            assert sent["execution"].get("model_opts", {}) == (
                {"ranks": resources["ranks"]} if "ranks" in resources else {}
            )
            assert "numNodes" not in sent["resources"] or "numNodes" in resources

    def test_ranks_share_cores_equally(self):
        mpi = {"exec": "e", "model": "openmpi"}
        for resources, problem in (
            (
                {"numCores": 8, "ranks": 3},
                "ranks is 3, and numCores is 8 cores, which they cannot share equally; write",
            ),
            ({"numCores": 2, "ranks": 4}, "ranks is 4, and numCores is 2 cores"),
            ({"numCores": {"min": 2, "max": 4}, "ranks": 2}, "ranks stands beside a range of cores"),
            ({"numCores": 2, "ranks": "2"}, "ranks is '2'; write a whole number, 1 or more"),
        ):
            refused(job(execution=mpi, resources=resources), "job 'a': resources", problem)
        refused(job(resources={"numCores": 2, "ranks": 2}), "ranks is 2, but the model starts one; those of MPI are")
        assert validated(job(resources={"numCores": 2, "ranks": 1}), None)["resources"] == {"numCores": {"exact": 2}}

    def test_one_process_is_on_one_node(self):
        for model in ("", "default", "threads"):
            sent = validated(job(execution={"exec": "e", "model": model}, resources={"numCores": 2}), TWO_NODES)
            assert sent["resources"] == {"numCores": {"exact": 2}, "numNodes": {"exact": 1}}
        assert validated(job(resources={"numCores": 1}), TWO_NODES)["resources"] == {"numCores": {"exact": 1}}

    def test_a_manager_that_does_not_tell_of_its_nodes(self):
        assert validated(job(resources={"numNodes": 2, "numCores": 4}), UNKNOWN_NODES)
        refused(job(resources={"numNodes": 2, "numCores": 5}), "asks for 2 x 5 cores", "8", capacity=UNKNOWN_NODES)
        refused(job(resources={"numCores": 9}), "asks for 9 cores", "8", capacity=UNKNOWN_NODES)
        refused(job(resources={"numNodes": 3}), "asks for 3 nodes", "2", capacity=UNKNOWN_NODES)

    @staticmethod
    def submit(executor, **resources):
        text = '{"execution": {"exec": "true"}, "resources": ${resources}}'
        return executor.submit(lambda: text, resources=resources)

    def test_by_submit(self, executor):
        with pytest.raises(InvalidJob, match="asks for 5 cores; jobs can use 4 cores here"):
            self.submit(executor, numCores=5)
        with pytest.raises(InvalidJob, match="asks for 2 nodes; there are 1 here"):
            self.submit(executor, numNodes=2)
        everything = [self.submit(executor, numCores=4), self.submit(executor, numNodes=1)]
        assert [set(future.result(30).values()) for future in everything] == [{"SUCCEED"}, {"SUCCEED"}]

    def test_with_a_reserved_core(self, tmp_path):
        with QCGPJExecutor(wd=tmp_path, resources="n1:2,n2:2", reserve_core=True) as executor:
            with pytest.raises(InvalidJob, match="asks for 3 cores on one node; no node has 3 cores"):
                self.submit(executor, numCores=3)
            with pytest.raises(InvalidJob, match="asks for 2 whole nodes; 1 node here can give that"):
                self.submit(executor, numNodes=2)
            with pytest.raises(InvalidJob, match="asks for 2 nodes with 2 cores each; 1 node here"):
                self.submit(executor, numNodes=2, numCores=2)
            fitting = [{"numCores": 2}, {"numNodes": 1}, {"numNodes": 2, "numCores": 1}]
            results = [self.submit(executor, **resources).result(30) for resources in fitting]
            assert [set(result.values()) for result in results] == [{"SUCCEED"}] * 3


class TestIteration:
    @pytest.mark.parametrize(
        ("iteration", "sent"),
        [
            ({"stop": 2}, {"start": 0, "stop": 2}),
            ({"start": 3, "stop": 5}, {"start": 3, "stop": 5}),
            ({"values": ["a", 1, 0.5, ""]}, {"values": ["a", "1", "0.5", ""]}),
        ],
    )
    def test_good(self, iteration, sent):
        assert validated(job(iteration=iteration), None)["iteration"] == sent

    @pytest.mark.parametrize(
        ("iteration", "message"),
        [
            ({}, "iteration needs either 'stop' or 'values'; write {'stop': 4} or {'values': ['a', 'b']}"),
            ({"start": 1}, "iteration needs either 'stop' or 'values'"),
            ({"stop": 1, "values": ["a"]}, "iteration needs either 'stop' or 'values'"),
            ({"start": 1, "values": ["a"]}, "iteration has 'start' beside 'values'; leave 'start' out"),
            ({"stop": 0}, "iteration goes from 0 to 0; 'stop' must be greater than 'start'"),
            ({"start": 3, "stop": 2}, "iteration goes from 3 to 2"),
            ({"start": -1, "stop": 2}, "iteration: start is -1; write a whole number, 0 or more"),
            ({"stop": "2"}, "iteration: stop is '2'; write a whole number"),
            ({"stop": 1.5}, "iteration: stop is 1.5"),
            ({"values": []}, "iteration: values is empty; the job would never end; give at least one value"),
            ({"values": "abc"}, "iteration: values is 'abc'; write a list"),
            ({"values": ["a", None]}, "iteration: values: [1] is None; write text or a number"),
        ],
    )
    def test_bad(self, iteration, message):
        refused(job(iteration=iteration), f"job 'a': {message}")

    @pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "a\x01"])
    def test_values_that_the_manager_cannot_pass(self, value):
        refused(
            job(iteration={"values": ["good", value]}),
            "iteration: values: [1] contains",
            repr(value),
            "pass a file's name",
        )


class TestDependencies:
    @pytest.mark.parametrize(
        ("after", "sent"), [([], []), ("b", ["b"]), (["b", "c:0"], ["b", "c:0"]), (("b",), ["b"]), (["ab"], ["ab"])]
    )
    def test_good(self, after, sent):
        assert validated(job(dependencies={"after": after}), None)["dependencies"] == {"after": sent}

    @pytest.mark.parametrize("after", ["a", ["a"], ["b", "a"], ["a:0"]])
    def test_a_job_cannot_wait_for_itself(self, after):
        refused(
            job(dependencies={"after": after}), "job 'a': dependencies: after", "names the job itself", "another job"
        )

    @pytest.mark.parametrize("after", [1, {"b": 1}, [1], [None]])
    def test_names_are_text(self, after):
        refused(job(dependencies={"after": after}), "job 'a': dependencies: after", " is ")


def test_one_bad_job_of_a_list_sends_none(executor, tmp_path):
    text = '[{"name": "a", "execution": {"exec": "touch", "args": ["made"]}}, {"name": "b", "execution": ${b}}]'
    with pytest.raises(InvalidJob, match="job 'b'"):
        executor.submit(lambda: text, b={})
    # the first job's name is still free, so it was not sent
    assert executor.submit(lambda: text, b={"exec": "true"}).result(30) == {"a": "SUCCEED", "b": "SUCCEED"}


def test_environment_reaches_programs_and_scripts(executor, tmp_path):
    env = {"TEXT": 'it\'s "$HOME" $$ \\ \n', "NUMBER": 5, JOB_ID_VARIABLE: "mine"}
    texts = [
        '{"name": "program", "execution": {"exec": "env", "args": ["-0"], "env": ${env}, "stdout": "program"}}',
        '{"name": "script", "execution": {"script": "env -0", "env": ${env}, "stdout": "script"}}',
    ]
    for name, text in zip(("program", "script"), texts):
        assert executor.submit(lambda text=text: text, env=env).result(30) == {name: "SUCCEED"}
        seen = dict(line.split("=", 1) for line in (tmp_path / name).read_text().split("\0")[:-1])
        assert (seen["TEXT"], seen["NUMBER"], seen[JOB_ID_VARIABLE]) == (env["TEXT"], "5", name)
