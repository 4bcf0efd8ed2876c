"""Remote tracebacks: what is said of a call that fails, with the source of functions that travel by value."""

import json
import os
import re
import sys
import textwrap
from dataclasses import dataclass

import pytest

from qcg.pilotjob.executor_api import CallFailed, CallUnreadable, QCGPJExecutor, RemoteTraceback

# Functions that fail, each in a way of its own; run here and by a worker, they must have the same traceback.
FAILING = """
import contextlib, functools

def plain(x=3):
    y = x * 2
    raise ValueError("plain %d" % y)  # the line to see

short = lambda x=0: 1 / x

def outer():
    def nested():
        return {}["missing"]
    return nested()

def closing(x):
    def closure():
        return [1, 2, 3][x]
    return closure

class Model:
    scale = 0
    def method(self):
        return self.run(1)
    def run(self, x):
        return x / self.scale
    @property
    def rate(self):
        return self.run(2)
    @classmethod
    def of_class(cls):
        return 3 / cls.scale
    @staticmethod
    def static():
        return 4 / 0

class Lower(Model):
    def method(self):
        return super().method()

def generating():
    def numbers():
        yield 1
        raise KeyError("in a generator")
    return list(numbers())

def comprehending():
    return [10 / x for x in (2, 1, 0)]

def generator_expression():
    return sum(10 / x for x in (2, 1, 0))

def with_odd_constant():
    return [1 / x for x in (1, 0)]  # as code has it that a library has made: a constant that no compiler makes

with_odd_constant.__code__ = with_odd_constant.__code__.replace(
    co_consts=(*with_odd_constant.__code__.co_consts, Model)
)

def decorator(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper

@decorator
@decorator
def decorated():
    raise RuntimeError("decorated")

def over_lines():
    first = 1
    return (first
            + plain(
                7,
            ))

def caused():
    try:
        plain(1)
    except ValueError as error:
        raise RuntimeError("caused") from error

def in_context():
    try:
        outer()
    except KeyError:
        short()

def suppressed():
    try:
        plain()
    except ValueError:
        raise OSError("alone") from None

def recursing(depth=50):
    if depth == 0:
        raise LookupError("deep")
    return recursing(depth - 1)

def too_deep():
    return too_deep()

def not_python():
    compile("x = (1,\\\\ny = 2 +", "given.py", "exec")

def noted():
    error = ValueError("noted")
    if hasattr(error, "add_note"):
        error.add_note("a note\\nof two lines")
    else:
        error.__notes__ = ["a note"]
    raise error

def with_generated_code():
    space = {}
    exec(compile("def made(): raise OSError('made')", "<made here>", "exec"), space)
    space["made"]()

@contextlib.contextmanager
def managing():
    yield
    raise ValueError("at the end")

def in_context_manager():
    with managing():
        "åäö €, 字"; assert "字" == short(1)

def grouped():
    errors = []
    for fail in (plain, caused, Model().method):
        try:
            fail()
        except Exception as error:
            errors.append(error)
    group = ExceptionGroup("several", errors[:2])
    raise ExceptionGroup("all", [group, errors[2]]) from errors[2]

cases = {
    "plain": plain, "lambda": short, "nested": outer, "closure": closing(5), "method": Model().method,
    "property": lambda: Model().rate, "classmethod": Model.of_class, "staticmethod": Model.static,
    "super": Lower().method, "generator": generating, "comprehension": comprehending,
    "genexpr": generator_expression, "decorated": decorated, "partial": functools.partial(plain, 4),
    "lines": over_lines, "cause": caused, "context": in_context, "from None": suppressed, "recursion": recursing,
    "too deep": too_deep, "syntax": not_python, "notes": noted, "exec": with_generated_code,
    "constant": with_odd_constant,
    "context manager": in_context_manager,
}
if hasattr(__import__("builtins"), "ExceptionGroup"):
    cases["group"] = grouped
"""
COMPARING = """
import json, sys, tempfile, traceback
from qcg.pilotjob.executor_api import QCGPJExecutor

def here(case):
    try:
        cases[case]()
    except Exception as error:
        below = error.__traceback__.tb_next
        return "".join(traceback.format_exception(type(error), error, below))

def compare():
    with tempfile.TemporaryDirectory() as wd:
        open(wd + "/relative.py", "w").write("another file\\n" * 300)
        with QCGPJExecutor(wd=wd, resources=2) as executor:
            pool = executor.functions()
            futures = {case: pool.submit(function) for case, function in cases.items()}
            there = {case: future.exception().__cause__.traceback for case, future in futures.items()}
    print(json.dumps({case: [here(case), there[case]] for case in cases}))
"""
# How the source of those functions comes to be known to Python.
WAYS = {
    "script": FAILING + COMPARING + "compare()\n",
    "command": FAILING + COMPARING + "compare()\n",
    "notebook": f"""
import linecache
{COMPARING}
source = {FAILING!r}
for name in ("<ipython-input-1-abc>", "/tmp/ipykernel_1234/5678.py"):
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    exec(compile(source, name, "exec"))
    compare()
""",
    "relative": f"""
{COMPARING}
open("relative.py", "w").write({FAILING!r})
exec(compile({FAILING!r}, "relative.py", "exec"))
compare()
""",
}
# A later cloudpickle, of which nothing is known but that code has lost the name of its file.
LATER = """
import importlib.machinery, os, sys
from collections import ChainMap
from types import CodeType
here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
elsewhere = [path for path in sys.path if os.path.abspath(path) != here]
__path__ = list(importlib.machinery.PathFinder.find_spec("cloudpickle", elsewhere).submodule_search_locations)
from cloudpickle import cloudpickle as now
from cloudpickle.cloudpickle import *
def reduce_code(code):
    return now._code_reduce(code.replace(co_filename="<said nowhere>"))
class Pickler(now.Pickler):
    {hook}
def dumps(obj, protocol=None, buffer_callback=None):
    import io
    file = io.BytesIO()
    Pickler(file, protocol, buffer_callback).dump(obj)
    return file.getvalue()
CloudPickler = Pickler
"""
HOOKS = {
    "a table": "dispatch_table = ChainMap({CodeType: reduce_code}, now.Pickler.dispatch_table)",
    "an override": """def reducer_override(self, obj):
        return reduce_code(obj) if type(obj) is CodeType else super().reducer_override(obj)""",
    "more than two": """def reducer_override(self, obj):
        return (*reduce_code(obj), None, None) if type(obj) is CodeType else super().reducer_override(obj)""",
}
# The worker's own frame, from its own file, which is there in all of them.
OWN_FRAME = re.compile(
    r'^(.*)  File ".*worker\.py", line \d+, in _answer\n\1    result = function\(\*arguments, \*\*keywords\)\n'
    r"(\1 +\^+\n)?",
    re.MULTILINE,
)
DEPTH = re.compile(r"repeated 9\d\d")  # how deep it can be depends on what is above


@pytest.fixture
def later_cloudpickle(tmp_path):
    """A function that returns the environment in which cloudpickle is a later one, with a hook of that kind."""

    def later(kind):
        package = tmp_path / "later" / "cloudpickle"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(LATER.format(hook=HOOKS[kind]))
        return {
            "PYTHONPATH": os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        }

    return later


@pytest.fixture
def run_way(run_script, tmp_path):
    """A function that runs one of WAYS and returns what it has printed."""

    def run(way, env=None):
        if way == "command":
            return run_script(WAYS[way], env=env).stdout
        (tmp_path / "script.py").write_text(WAYS[way], encoding="utf-8")
        return run_script("import runpy", options=("script.py",), env=env).stdout

    return run


def check(printed):
    for line in printed.splitlines():
        for case, (here, there) in json.loads(line).items():
            without = DEPTH.sub("repeated many", OWN_FRAME.sub("", there, count=1))
            assert without == DEPTH.sub("repeated many", here), f"{case}: {there}\n---- but here\n{here}"
            assert OWN_FRAME.search(there), there
            yield case, there


@pytest.mark.parametrize("way", WAYS)
def test_a_remote_traceback_is_that_of_a_call_made_here(run_way, way):
    found = dict(check(run_way(way)))
    lines_are_known = way != "command" or sys.version_info >= (3, 13)
    assert ('raise ValueError("plain %d" % y)  # the line to see' in found["plain"]) == lines_are_known
    assert re.search(r'File "[^"]+", line 6, in plain\n', found["plain"])
    assert "in short\n" not in found["lambda"]
    assert "Previous line repeated" in found["recursion"]
    if sys.version_info >= (3, 11) and lines_are_known:
        assert "~~^~~" in found["lambda"]


@pytest.mark.parametrize("kind", HOOKS)
def test_a_later_cloudpickle_that_does_not_tell_the_file(run_way, later_cloudpickle, kind):
    found = dict(check(run_way("script", env=later_cloudpickle(kind))))
    assert "# the line to see" in found["plain"]


def test_cloudpickle_itself_is_not_changed(run_script):
    completed = run_script(
        """
        import cloudpickle, tempfile
        before = cloudpickle.dumps(lambda: 1)
        state = {**vars(cloudpickle.Pickler)}, {**cloudpickle.Pickler.dispatch_table}
        from qcg.pilotjob.executor_api import QCGPJExecutor
        with QCGPJExecutor(resources=1) as executor:
            print(executor.functions().submit(lambda: 2).result())
        print(state == ({**vars(cloudpickle.Pickler)}, {**cloudpickle.Pickler.dispatch_table}))
        print(b"qcg" in cloudpickle.dumps(lambda: 1))
        """
    )
    assert completed.stdout == "2\nTrue\nFalse\n"


def test_a_function_that_comes_back_has_its_file(executor):
    def make():
        return lambda: 1 / 0

    made = executor.functions().submit(make).result(30)
    assert made.__code__.co_filename == __file__


def test_the_source_that_the_worker_alone_can_read(executor, tmp_path):
    """A function from a file that is gone here; it is there for the worker, which is told to have it."""
    path = tmp_path / "gone.py"
    path.write_text("def fail():\n    return 1 / 0\n")
    space = {"__name__": "gone"}
    exec(compile(path.read_text(), str(path), "exec"), space)
    path.unlink()

    def write_and_call():
        path.write_text("def fail():\n    return 1 / 0  # there\n")
        try:
            space["fail"]()
        finally:
            import linecache

            linecache.getlines(str(path))
            linecache.checkcache = lambda *_: None
            path.unlink()

    error = executor.functions().submit(write_and_call).exception(30)
    assert "    return 1 / 0  # there\n" in str(error.__cause__)


def test_a_line_that_cannot_be_read(executor, tmp_path):
    path = tmp_path / "odd.py"
    path.write_bytes(b"# coding: no-such-coding\n\n")
    space = {}
    exec(compile("\ndef fail(): return 1 / 0", str(path), "exec"), space)
    text = str(executor.functions().submit(space["fail"]).exception(30).__cause__)
    assert f'File "{path}", line 2, in fail\n' in text
    assert text.count("ZeroDivisionError: division by zero") == 1


def test_a_file_that_is_shorter_now(executor, tmp_path):
    path = tmp_path / "shorter.py"
    path.write_text("def fail():\n\n    return 1 / 0\n")
    space = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    path.write_text("nothing = 0\n")
    text = str(executor.functions().submit(space["fail"]).exception(30).__cause__)
    assert f'File "{path}", line 3, in fail\nZeroDivisionError: division by zero\n' in text


def test_standard_error_that_somebody_has_removed(executor):
    pool = executor.functions(1)
    first = pool.submit(pow, 2, 3)
    assert first.result(30) == 8
    os.unlink(first._streams[0][1])
    error = pool.submit(lambda: [os.write(2, b"unheard"), 1 / 0]).exception(30)
    assert "1 / 0" in str(error.__cause__)
    assert "No such file" in str(error.__cause__)
    assert pool.submit(pow, 2, 3).result(30) == 8


def test_a_name_of_several_lines(executor):
    space = {}
    exec(compile("def fail(): return 1 / 0", "one\ntwo", "exec"), space)
    text = str(executor.functions().submit(space["fail"]).exception(30).__cause__)
    assert 'File "one\ntwo", line 1, in fail\nZeroDivisionError' in text


def test_the_ranks_of_an_mpi_job(tmp_path, monkeypatch):
    """This mpirun starts as many processes as the job has cores, and each knows its rank, as those of MPI do."""
    launcher = tmp_path / "mpirun"
    launcher.write_text('#!/bin/sh\nshift 2  # -n 2\nPMI_RANK=0 "$@" &\nPMI_RANK=1 "$@"\nwait\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def fail_on_the_last():
        rank = int(os.environ["PMI_RANK"])
        return 1 / (1 - rank)  # the line to see

    with QCGPJExecutor(wd=tmp_path, resources=2) as executor:
        pool = executor.functions(cores=2, model="openmpi")
        text = str(pool.submit(fail_on_the_last).exception(60).__cause__)
    assert f'File "{__file__}", line ' in text
    assert "    return 1 / (1 - rank)  # the line to see\n" in text


# ---- exceptions whose classes do not do what one may ask of them


class Unsaid(Exception):
    def __str__(self):
        raise KeyError("str")

    __repr__ = __str__


class Ends(Unsaid):
    def __str__(self):
        raise SystemExit("str")


class Asks(Exception):
    def __getattribute__(self, name):
        if name in ("__notes__", "__cause__", "__suppress_context__"):
            raise SystemExit(name)
        return super().__getattribute__(name)


class NoText(Exception):
    def __str__(self):
        return 3  # noqa: PLE0307  # that is what it is for


class Local(Unsaid):
    def __reduce__(self):
        raise OSError("not to be pickled")


@dataclass(frozen=True)
class Frozen(Exception):
    number: int

    def __reduce__(self):
        return Frozen, (self.number,)


@pytest.mark.parametrize("kind", [Unsaid, Ends, Asks, NoText, Local, Frozen])
def test_an_exception_that_cannot_be_told_ends_neither_worker_nor_pool(executor, kind):
    def fail():
        raise kind(3)

    pool = executor.functions(1)
    worker = pool.submit(os.getpid).result(30)
    error = pool.submit(fail).exception(30)
    assert type(error) is (CallFailed if kind is Local else kind)
    assert isinstance(BaseException.__cause__.__get__(error), RemoteTraceback)
    assert kind.__name__ in str(BaseException.__cause__.__get__(error))
    assert "raise kind(3)" in str(BaseException.__cause__.__get__(error)) or kind is Asks
    assert pool.submit(os.getpid).result(30) == worker


def test_what_cannot_be_unpickled_in_a_way_that_cannot_be_told(executor):
    def raise_it():
        raise Unsaid

    class Unreadable:
        def __init__(self, where):
            self.here = where

        def __reduce__(self):
            return _raise_in_other_processes, (self.here,)

    pool = executor.functions(1)
    with pytest.raises(CallUnreadable, match=r"Unsaid whose repr\(\) raises KeyError"):
        pool.submit(lambda: Unreadable(os.getpid())).result(30)
    with pytest.raises(CallUnreadable, match=r"Unsaid whose str\(\) raises KeyError"):
        pool.submit(str, Unreadable(os.getpid())).result(30)
    assert pool.submit(pow, 2, 3).result(30) == 8


def _raise_in_other_processes(here):
    if os.getpid() != here:
        raise Unsaid


class FullDisk:
    def __init__(self, error):
        self.error = error

    def write(self, text):
        pass

    def flush(self):
        raise self.error


@pytest.mark.parametrize("error", [OSError(28, "No space left"), SystemExit(3), Unsaid(), ValueError("closed")])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_whose_flush_raises(executor, stream, error):
    def replace():
        setattr(sys, stream, FullDisk(error))
        return os.getpid()

    pool = executor.functions(1)
    future = pool.submit(replace)
    worker = future.result(30)
    assert pool.submit(os.getpid).result(30) == worker
    said = "" if isinstance(error, ValueError) else f"sys.{stream} could not be flushed: "
    assert future.stderr.startswith(said)
    assert bool(future.stderr) == bool(said)


def test_a_script_whose_functions_are_told_in_words(run_script, tmp_path):
    """What is printed of an exception that nobody catches has the lines too."""
    (tmp_path / "script.py").write_text(
        textwrap.dedent(
            """
            from qcg.pilotjob.executor_api import QCGPJExecutor
            def simulate(x):
                return 1 / x  # the line to see
            with QCGPJExecutor(resources=1) as executor:
                executor.functions().submit(simulate, 0).result()
            """
        )
    )
    completed = run_script("", options=("script.py",), check=False)
    assert (
        f'File "{tmp_path}/script.py", line 4, in simulate\n    return 1 / x  # the line to see\n' in completed.stderr
    )
