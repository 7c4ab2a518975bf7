import dataclasses
import functools
import os
import sys
import types
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import python

import lrjax
from lrjax._fingerprints import fingerprint
from lrjax.sweeps.functions import comparable


@dataclasses.dataclass(frozen=True)
class Options:
    width: int
    data: Any


class Scorer:
    def __init__(self, smoothing):
        self.smoothing = smoothing

    def __call__(self, x):
        return x * self.smoothing


def add(x, y=1):
    return x + y


def adder(y):
    return lambda x: x + y


def factorial(scale):
    def again(n):
        return scale if n == 0 else n * again(n - 1)

    return again


def recursive_list(value):
    items = [value]
    items.append(items)
    return items


VALUES = [
    lambda: None,
    lambda: 1,
    lambda: 1.0,
    lambda: True,
    lambda: "1",
    lambda: b"1",
    lambda: float("nan"),
    lambda: [1, 2],
    lambda: [2, 1],
    lambda: (1, 2),
    lambda: [[1], 2],
    lambda: {"a": 1, "b": 2},
    lambda: {"b": 2, "a": 1},
    lambda: {"a", "b", "c"},
    lambda: np.arange(3),
    lambda: np.arange(3.0),
    lambda: np.arange(3)[:, None],
    lambda: np.arange(4)[::-1],
    lambda: np.zeros((0, 3)),
    lambda: np.zeros((3, 0)),
    lambda: np.array(["a", "b"]),
    lambda: np.array(["a", None]),
    lambda: jnp.arange(3),
    lambda: jnp.ones(3, jnp.bfloat16),
    lambda: jax.random.key(0),
    lambda: jax.random.key(1),
    lambda: jax.random.key(0, impl="rbg"),
    lambda: np.float32(1),
    lambda: np.dtype("f4"),
    lambda: add,
    lambda: functools.partial(add, y=2),
    lambda: functools.partial(add, y=3),
    lambda: jax.tree_util.Partial(add, y=3),
    lambda: jax.jit(add),
    lambda: adder(1),
    lambda: adder(2),
    lambda: lambda x: x - 1,
    lambda: lambda x: x - 2,
    lambda: lambda x, y=2: x - y,
    lambda: lambda x, y=3: x - y,
    lambda: factorial(1),
    lambda: factorial(2),
    lambda: recursive_list(1),
    lambda: recursive_list(2),
    lambda: Options(1, np.arange(2)),
    lambda: Options(1, np.arange(1, 3)),
    lambda: Scorer(1),
    lambda: Scorer(2),
    lambda: Scorer(2).__call__,
    lambda: Scorer,
    lambda: print,
    lambda: np.add,
    lambda: jax.nn.relu,
    lambda: jnp.add,
    lambda: optax.sgd(0.1),
    lambda: optax.sgd(0.2),
    lambda: lrjax.onecycle(0.1, 100),
    lambda: lrjax.onecycle(0.1, 200),
    lambda: lrjax.task(add, 1),
    lambda: lrjax.task(add, 2),
    lambda: object(),
]


def test_fingerprints_differ_where_values_do_and_only_there():
    once, twice = ([fingerprint(make()) for make in VALUES] for _ in range(2))
    assert once == twice
    assert len(set(once)) == len(once)


def test_fingerprints_are_the_same_in_other_processes(monkeypatch):
    code = (
        f"import sys; sys.path.insert(0, {__file__.rpartition('/')[0]!r})\n"
        "from test_fingerprints import VALUES, fingerprint\n"
        "print([fingerprint(make()) for make in VALUES])"
    )
    here = str([fingerprint(make()) for make in VALUES])
    for seed in "12":
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        assert python(code) == here


PROGRAM = """
import functools
import os
import math
import types
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import lrjax

SCALE, WEIGHTS, CACHE = 2.0, np.ones(3), {}
ACT, DTYPE, mean = jax.nn.relu, jnp.bfloat16, 1.0
ARGS, CONFIG = types.SimpleNamespace(power=2, unread=0), {"model": {"shift": 1}, "unread": 0}
CALLS, COUNTS = types.SimpleNamespace(n=0), {"n": 0}
MIX, PARTS, LOG, FUNCTIONS = {"a": 1.0, "b": [2.0]}, ["a"], [], {"f": len}

class Settings:
    def __init__(self, **fields):
        self.__dict__["fields"] = fields

    def __getattr__(self, name):
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(name) from None

SETTINGS = Settings(rate=0.1, unread=0)

def inner(x):
    return x * SCALE

@jax.jit
def helper(x):
    return inner(x) + WEIGHTS.sum()

class Base(nn.Module):
    def nonlinear(self, x):
        return nn.relu(x)

class Net(Base):
    width: int = 2

    @nn.compact
    def __call__(self, x):
        return self.nonlinear(nn.Dense(self.width)(x))

class Score:
    factor = 1

    def __call__(self, x):
        return (x - math.pi) * self.factor

class Slotted:
    __slots__ = ("target", "never")

    def __init__(self, target):
        self.target = target

    def __call__(self):
        return self.target

NETWORK, SCORE, SLOTTED = Net(), Score(), Slotted(1.0)

def loss(outputs, batch):
    CACHE["seen"] = CACHE.get("seen", 0) + 1
    return jnp.mean(ACT(helper(outputs)).astype(DTYPE)) + SCORE(0.0) + SLOTTED.target

def model(params, x):
    CALLS.n += 1
    COUNTS["n"] += 1
    return NETWORK.apply(params, configured(x))

def mixed(x):
    LOG.append(x)
    FUNCTIONS.get("f")
    return sum(MIX[part] * x for part in PARTS) + SETTINGS.rate

def configured(x):
    x = mixed(x)
    return x**ARGS.power + CONFIG["model"]["shift"]

batch = np.ones((2, 3), np.float32)
VALUES = loss, model, lrjax.linen_task(NETWORK, loss, batch), Score()
"""


def fingerprints(name, old="", new=""):
    """Of a program's functions, model, task and object, with some text of it replaced."""
    assert old in PROGRAM
    module = types.ModuleType(name)
    sys.modules[name] = module
    try:
        exec(compile(PROGRAM.replace(old, new), f"{name}.py", "exec"), module.__dict__)
        found = [fingerprint(value) for value in module.VALUES]
        module.CACHE["seen"] = module.CALLS.n = module.COUNTS["n"] = 1
        module.LOG.append(1.0)
        module.FUNCTIONS["g"] = print
        assert found == [fingerprint(value) for value in module.VALUES]
        return np.array(found)
    finally:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("", "", [False, False, False, False]),
        ("x * SCALE", "x / SCALE", [True, False, True, False]),
        ("SCALE, WEIGHTS, CACHE = 2.0", "SCALE, WEIGHTS, CACHE = 3.0", [True, False, True, False]),
        ("np.ones(3), {}", "np.zeros(3), {}", [True, False, True, False]),
        ("nn.relu(x)", "nn.tanh(x)", [False, True, True, False]),
        ("self.nonlinear(", "nn.gelu(", [False, True, True, False]),
        ("width: int = 2", "width: int = 4", [False, True, True, False]),
        ("x - math.pi", "x - math.e", [True, False, True, True]),
        ("factor = 1", "factor = 2", [True, False, True, True]),
        ("jax.nn.relu", "jax.nn.tanh", [True, False, True, False]),
        ("jnp.bfloat16", "jnp.float32", [True, False, True, False]),
        ("Slotted(1.0)", "Slotted(2.0)", [True, False, True, False]),
        ("power=2", "power=3", [False, True, False, False]),
        ('"shift": 1', '"shift": 2', [False, True, False, False]),
        ('"b": [2.0]', '"b": [3.0]', [False, True, False, False]),
        ('["a"], []', '["b"], []', [False, True, False, False]),
        ("rate=0.1", "rate=0.2", [False, True, False, False]),
        ("power=2, unread=0", "power=2, unread=1", [False] * 4),
        ('"unread": 0', '"unread": 1', [False] * 4),
        (
            "mean = jax.nn.relu, jnp.bfloat16, 1.0",
            "mean = jax.nn.relu, jnp.bfloat16, 2.0",
            [False] * 4,
        ),
    ],
)
def test_fingerprints_follow_what_a_function_names(old, new, changed):
    before, after = fingerprints("program"), fingerprints("program", old, new)
    np.testing.assert_array_equal(before != after, changed)


SEEN, CACHE, HISTORY, LISTS, KNOWN, SLICED, INNER = [], {}, [], {1: []}, {}, [1, 2], {}


class Failing(Mapping):
    def __getitem__(self, key):
        raise RuntimeError

    def __iter__(self):
        return iter("ab")

    def __len__(self):
        return 2


FAILING = Failing()


def remember(value):
    if value not in SEEN:
        SEEN.append(value)


def store(key):
    CACHE[key] = 1.0


def cached(key):
    if key not in CACHE:
        store(key)
    return CACHE[key]


def log(history, value):
    history.append(value)


def logged(value):
    log(HISTORY, value)


def listed(key):
    LISTS[key].append(1)


def known(key):
    return KNOWN[key] if key in KNOWN else KNOWN.setdefault(key, 2)


def sliced(value):
    SLICED[:] = [value]
    return [2 * entry for entry in SLICED]


def inside(key):
    def put(key):
        INNER[key] = 1

    put(key)
    return INNER[key]


def environment(key):
    return os.environ.get("LRJAX_TEST") or os.environ[key]


@pytest.mark.parametrize(
    "function", [remember, cached, logged, listed, known, sliced, inside], ids=lambda f: f.__name__
)
def test_caches_and_histories_do_not_count(function):
    before = fingerprint(function)
    function(1)
    assert fingerprint(function) == before


def test_the_environment_does_not_count(monkeypatch):
    before = fingerprint(environment)
    monkeypatch.setenv("LRJAX_TEST", "other")
    assert fingerprint(environment) == before


def test_what_cannot_be_read_hides_no_code():
    assert fingerprint(lambda key: FAILING[key] * 1) != fingerprint(lambda key: FAILING[key] * 2)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def deleted():
    array = jnp.ones(3)
    array.delete()
    return array


class Circular:
    def __init__(self):
        self.peers = {self}


class Endless:
    def __getattr__(self, name):
        return Endless()


@pytest.mark.parametrize("make", [deleted, Circular, Endless, lambda: nested(5000)])
def test_fingerprints_of_what_cannot_be_looked_into(make):
    assert fingerprint(make()) == fingerprint(make())


def test_fingerprints_look_at_all_of_an_array():
    large = np.zeros(2_000_000, np.uint8)
    before = fingerprint(large)
    large[1_234_567] = 1
    assert fingerprint(large) != before


def test_fingerprints_may_leave_large_arrays_out():
    small, large = np.zeros(4), np.zeros(1000)
    one = fingerprint((small, large), largest=100)
    assert one == fingerprint((small, large + 1), largest=100)
    assert one != fingerprint((small + 1, large), largest=100)
    assert one != fingerprint((small, large[1:]), largest=100)


def test_fingerprints_of_flax_models():
    from flax import linen, nnx

    def make(width):
        def model(rngs):
            return nnx.Linear(3, width, rngs=rngs)

        batch = np.ones((2, 3), np.float32)
        return lrjax.nnx_task(model, add), lrjax.linen_task(linen.Dense(width), add, batch)

    assert fingerprint(make(1)) == fingerprint(make(1)) != fingerprint(make(2))


class Method:
    def __init__(self, factor):
        self.factor = factor

    def call(self, x):
        return x * self.factor


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x, *, y=2: x - y, lambda x, *, y=3: x - y),
        (lambda a, b: 0, lambda b, a: 0),
        (functools.partial(add, 1), functools.partial(add, 2)),
        (Method(1).call, Method(2).call),
        (slice(1), slice(2)),
        (range(3), range(4)),
        (np.array(["a", None]), np.array(["b", None])),
    ],
    ids=["default", "order of arguments", "partial", "method", "slice", "range", "objects"],
)
def test_fingerprints_tell_small_differences(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_arrays_of_objects_count_by_what_they_hold():
    def make():
        return np.array(["".join(["made", " anew"]), None])

    assert fingerprint(make()) == fingerprint(make())


class Lazy:
    def __getitem__(self, key):
        pytest.fail("a fingerprint reads no data")

    @property
    def scale(self):
        pytest.fail("a fingerprint runs no properties")


LAZY = Lazy()


def test_a_fingerprint_runs_nothing():
    assert len(fingerprint(lambda x: x * LAZY[0] * LAZY.scale)) == 16


@pytest.mark.parametrize(("one", "other"), [((1,), (True,)), ((0.5,), (0.25,))])
def test_partials_of_other_arguments_are_others(one, other):
    def made(arguments):
        return comparable(functools.partial(lrjax.sgd, *arguments))

    assert made(one) == made(one)
    assert made(one) != made(other)


def test_a_partial_without_a_hash_stays_what_it_is():
    given = functools.partial(lrjax.sgd, [1])
    assert comparable(given) is given
