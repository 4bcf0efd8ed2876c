"""The jobs that wait: who is started next, and who never is."""

from hypothesis import given, settings
from hypothesis import strategies as st
from qcg.pilotjob.joblist import Job, JobList, JobState

from qcg.pilotjob.executor_api import IterationTemplate, QCGPJExecutor
from qcg.pilotjob.executor_api._manager.job_queue import WaitingJob, WaitingJobs

JOB = """{'name': '${name}', 'execution': {'script': '${script}'}, 'resources': {'numCores': {'exact': ${cores}}},
          'dependencies': {'after': ${after}}, 'defaults': {'cores': 1, 'after': [], 'script': 'true'}}"""


def template():
    return JOB


def job(name, cores, after=()):
    return Job(name, {"exec": "true"}, {"numCores": cores}, dependencies={"after": list(after)})


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 4), st.lists(st.integers(0, 30), max_size=2)),
        st.tuples(st.just("start"), st.integers(0, 5)),
        st.tuples(st.just("end"), st.integers(0, 30), st.booleans()),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("put back"), st.integers(0, 30)),
    ),
    max_size=60,
)


class PlainQueue:
    """The same as WaitingJobs, by going through the whole queue each time."""

    def __init__(self, jobs):
        self.jobs, self.queue = jobs, []

    def settle(self):
        omitted = True
        while omitted:
            omitted = [
                one
                for one in self.queue
                if any(
                    self.jobs[name].state() in (JobState.FAILED, JobState.OMITTED) for name in one.dependencies.after
                )
            ]
            for one in omitted:
                self.queue.remove(one)
                one.set_state(JobState.OMITTED)

    def first(self, free):
        for one in self.queue:
            waits = any(self.jobs[name].state() != JobState.SUCCEED for name in one.dependencies.after)
            if not waits and one.resources.get_min_num_cores() <= free:
                return one.name
        return None


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_who_is_next_is_the_same_as_in_a_plain_queue(steps):
    jobs, copies, running = JobList(), {}, {}
    waiting = WaitingJobs(jobs, lambda omitted, _: end(omitted, JobState.OMITTED))
    plain = PlainQueue(copies)

    def end(ended, state):
        ended.set_state(state)
        waiting.ended(ended, None)

    for step, number, *more in steps:
        name = f"j{number}"
        if step == "add":
            name = f"j{len(copies)}"
            after = [f"j{other}" for other in more[0] if other < len(copies)]
            jobs.add(job(name, number, after))
            copies[name] = job(name, number, after)
            waiting.add(WaitingJob(jobs.get(name)))
            plain.queue.append(copies[name])
        elif step == "start":
            found = waiting.first(number, set())
            assert (found and found.name) == plain.first(number)
            if found is not None:
                running[found.name] = next(found.candidates())
                waiting.take(found, running[found.name])
                plain.queue.remove(copies[found.name])
        elif step == "end" and name in running:
            del running[name]
            state = JobState.SUCCEED if more[0] else JobState.FAILED
            copies[name].set_state(state)
            end(jobs.get(name), state)
        elif step == "put back" and name in running:
            waiting.put_back(running.pop(name))
            plain.queue.insert(0, copies[name])
        elif step == "remove" and copies.get(name) in plain.queue:
            waiting.remove(jobs.get(name))
            plain.queue.remove(copies[name])
        waiting.settle()
        plain.settle()
        assert sorted(one.name for one in waiting) == sorted(one.name for one in plain.queue)
        assert {one: jobs.get(one).state() for one in copies} == {one: copies[one].state() for one in copies}


def test_what_waits_for_a_failed_job_is_omitted_while_no_core_is_free(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        busy = executor.submit(template, name="busy", script="sleep 100")
        bad = executor.submit(template, name="bad", script="sleep 0.2; exit 3")
        other = executor.submit(template, name="other", script="sleep 100", after=[])
        dependent = executor.submit(template, name="dependent", after=bad)
        last = executor.submit(template, name="last", after=dependent)
        assert last.result(20) == {"last": "OMITTED"}
        assert dependent.result(0) == {"dependent": "OMITTED"}
        assert not busy.done()
        assert busy.cancel()
        assert other.cancel()


def test_the_oldest_that_fits_is_started(tmp_path, wait_until):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        executor.submit(template, name="first", script="until [ -e one ]; do sleep 0.01; done")
        executor.submit(template, name="wide", script="echo wide >> order", cores=2)
        narrow = "echo narrow >> order; touch begun; until [ -e two ]; do sleep 0.01; done"
        executor.submit(template, name="narrow", script=narrow)
        late = executor.submit(template, name="late", script="echo late >> order")
        wait_until((tmp_path / "begun").exists)
        assert late.status() == {"late": "QUEUED"}
        (tmp_path / "one").touch()
        assert late.result(20) == {"late": "SUCCEED"}
        (tmp_path / "two").touch()
    assert (tmp_path / "order").read_text().split() == ["narrow", "late", "wide"]


def test_a_job_waits_for_one_iteration_of_an_array(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        array = executor.submit(IterationTemplate, name="a", exec="sleep", args=["${itval}"], values=["0.1", "100"])
        assert executor.submit(template, name="after", after=["a:0"]).result(20) == {"after": "SUCCEED"}
        assert not array.done()
        assert array.cancel()
        assert executor.submit(template, name="omitted", after=["a:1"]).result(20) == {"omitted": "OMITTED"}
        names = {"r1": "a:2", "r2": "a:x", "r3": "a:${it}"}
        refused = [executor.submit(template, name=name, after=[after]) for name, after in names.items()]
        for future in refused:
            assert "does not have" in str(future.exception(20))


def test_iterations_that_wait_for_iterations(tmp_path):
    text = """{'name': 'b', 'execution': {'exec': 'true'}, 'iteration': {'stop': 150},
               'dependencies': {'after': ['a:$${it}']}}"""
    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        executor.submit(
            lambda: "{'name': 'a', 'execution': {'script': 'test $${it} -lt 130'}, 'iteration': {'stop': 150}}"
        )
        array = executor.submit(lambda: text)
        assert array.result(60) == {"b": "FAILED"}
        states = [iteration.state for iteration in array.iterations()["b"]]
    assert states == ["SUCCEED"] * 130 + ["OMITTED"] * 20


def test_an_array_whose_iterations_were_all_cancelled_one_by_one_waits_no_more(tmp_path):
    with QCGPJExecutor(wd=tmp_path, resources=1) as executor:
        busy = executor.submit(template, name="busy", script="sleep 100")
        array = executor.submit(IterationTemplate, name="a", exec="true", stop=150)
        assert len(array.cancel_iterations(range(150))) == 150
        assert array.result(20) == {"a": "FAILED"}
        assert busy.cancel()
