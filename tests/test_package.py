import importlib
import inspect
import pkgutil

import pytest
from helpers import python

import lrjax

MODULES = [module.name for module in pkgutil.iter_modules(lrjax.__path__)]
PUBLIC = [name for name in MODULES if not name.startswith("_")]


@pytest.mark.parametrize("module", ["flax", "matplotlib", "orbax", "rich", "sklearn"])
def test_import_loads_only_what_it_needs(module):
    code = f"import sys, lrjax; print(any(m.split('.')[0] == {module!r} for m in sys.modules))"
    assert python(code) == "False"


@pytest.mark.parametrize("name", ["recipes", "sweeps", "transforms"])
def test_a_module_may_be_imported_first(name):
    assert python(f"import lrjax.{name} as module; print(module.__name__)") == f"lrjax.{name}"


def test_every_public_name_is_at_the_top_and_documented():
    for name in lrjax.__all__:
        value = getattr(lrjax, name)
        assert inspect.getdoc(value), name
    assert len(set(lrjax.__all__)) == len(lrjax.__all__)


def test_no_module_shares_a_name_with_a_function():
    assert set(PUBLIC).isdisjoint(lrjax.__all__)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "cli"])
def test_modules_name_what_they_offer(name):
    module = importlib.import_module(f"lrjax.{name}")
    for public in module.__all__:
        assert hasattr(module, public)


@pytest.mark.parametrize(
    "name", [n for n in lrjax.__all__ if inspect.isfunction(getattr(lrjax, n))]
)
def test_every_function_has_a_runnable_example(name):
    assert ">>> " in inspect.getdoc(getattr(lrjax, name)), name
