"""What can be imported, and that it is what the documentation says."""

import concurrent.futures
import importlib
import re

import pytest

import qcg.pilotjob.executor_api as api
from qcg.pilotjob.executor_api import errors

DOCUMENTED = {
    "qcgpj_executor": "QCGPJExecutor",
    "qcgpj_future": "QCGPJFuture",
    "templates.qcgpj_template": "QCGPJTemplate",
    "templates.basic_template": "BasicTemplate",
}


@pytest.mark.parametrize("module", DOCUMENTED)
def test_documented_import_paths(module):
    name = DOCUMENTED[module]
    found = getattr(importlib.import_module(f"qcg.pilotjob.executor_api.{module}"), name)
    assert found is getattr(api, name)


def test_every_public_name_is_there():
    assert sorted(api.__all__) == list(dict.fromkeys(sorted(api.__all__)))
    for name in api.__all__:
        assert getattr(api, name).__name__ == name
    assert set(api.__all__) <= set(dir(api))
    assert set(api._HOMES) == set(api.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Executer"):
        api.Executer  # noqa: B018


def test_all_exceptions_are_public_and_in_the_drawn_tree():
    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__)) | {"QCGPJError"}
    assert classes == drawn == set(errors.__all__)
    assert classes <= set(api.__all__)


def test_each_exception_derives_from_the_builtin_that_is_drawn_beside_it():
    for name, base in re.findall(r"[├└]── (\w+) +([A-Z]\w+)", errors.__doc__):
        drawn = getattr(__import__("builtins"), base, None) or getattr(concurrent.futures, base)
        assert issubclass(getattr(errors, name), (drawn,))
        assert issubclass(getattr(errors, name), errors.QCGPJError)


def test_a_timeout_is_caught_under_both_of_its_names():
    assert issubclass(api.JobTimeout, TimeoutError)
    assert issubclass(api.JobTimeout, concurrent.futures.TimeoutError)


def test_executor_and_future_are_those_of_the_standard_library():
    assert issubclass(api.QCGPJExecutor, concurrent.futures.Executor)
    assert issubclass(api.QCGPJFuture, concurrent.futures.Future)
