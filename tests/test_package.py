import inspect
import pkgutil

import pytest
from helpers import python

import lrjax

MODULES = [module.name for module in pkgutil.iter_modules(lrjax.__path__)]
PUBLIC = [name for name in MODULES if not name.startswith("_")]


NEEDED = {"jax", "numpy", "optax"}


def test_import_loads_only_what_it_needs():
    """The bare import loads nothing, and the first public name loads all of lrjax."""
    code = "import sys, lrjax; print(*sys.modules); lrjax.__all__; print(*sys.modules)"
    bare, whole = (
        {name.partition(".")[0] for name in line.split()} for line in python(code).splitlines()
    )
    assert bare.isdisjoint(NEEDED)
    assert whole >= NEEDED
    assert whole.isdisjoint({"flax", "matplotlib", "orbax", "rich", "scipy", "sklearn", "xarray"})


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


def with_examples():
    for name in lrjax.__all__:
        value = getattr(lrjax, name)
        if inspect.isfunction(value):
            yield pytest.param(value, id=name)
    for kind in (lrjax.Curves, lrjax.Recipe):
        for name, value in vars(kind).items():
            is_method = inspect.isfunction(value) or isinstance(value, classmethod)
            if is_method and not name.startswith(("_", "tree_")):
                yield pytest.param(value, id=f"{kind.__name__}.{name}")


@pytest.mark.parametrize("value", list(with_examples()))
def test_every_function_and_method_has_a_runnable_example(value):
    assert ">>> " in inspect.getdoc(value)
