"""Every schedule that a peer has, in lrjax's spelling, against the peer's own numbers."""

import json
import pathlib
import re
import textwrap

import numpy as np
import pytest
from golden.spellings import AGREEING, EXCLUDED, GROUPS, MOMENTA, SPELLINGS

import lrjax.schedules as ls
from lrjax._checks import MAX_COUNT

GOLDEN = json.loads(
    pathlib.Path(__file__).with_name("golden").joinpath("schedules.json").read_text()
)
ENTRIES = {entry["id"]: entry for entry in GOLDEN["entries"]}
RELATIVE = 2e-6


def counts_of(entry):
    """fastai's entries take a position from 0 to 1, the others a count."""
    steps = np.asarray(entry["steps"])
    return np.rint(steps * 20).astype(int) if steps.dtype == float else steps


def agrees(schedule, entry, values):
    """At which of the entry's counts the schedule gives the values."""
    error = np.abs(np.asarray(schedule(counts_of(entry)), np.float64) - values)
    return error <= np.maximum(entry.get("tol", 1e-12), RELATIVE * np.abs(values))


def test_every_entry_is_spelled_or_excluded():
    assert SPELLINGS.keys() | EXCLUDED.keys() == ENTRIES.keys()
    assert not SPELLINGS.keys() & EXCLUDED.keys()
    assert MOMENTA.keys() == {name for name, entry in ENTRIES.items() if "momentum" in entry}
    assert GROUPS.keys() == {name for name, entry in ENTRIES.items() if "group_values" in entry}


@pytest.mark.parametrize(
    ("name", "key", "schedule"),
    [(name, "values", schedule) for name, schedule in SPELLINGS.items()]
    + [(name, "momentum", schedule) for name, schedule in MOMENTA.items()],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_golden(name, key, schedule):
    entry = ENTRIES[name]
    agreement = agrees(schedule, entry, np.asarray(entry[key]))
    expected = np.full_like(agreement, True)
    if (name, key) in AGREEING:
        expected = np.isin(counts_of(entry), AGREEING[name, key][0])
    np.testing.assert_array_equal(agreement, expected)


@pytest.mark.parametrize("name", GROUPS)
def test_golden_groups(name):
    for schedule, values in zip(GROUPS[name], ENTRIES[name]["group_values"], strict=True):
        assert agrees(schedule, ENTRIES[name], np.asarray(values)).all()


def formulas():
    """Entries of schedules that schedules.json has no run of, by the formulas of their sources."""
    steps = np.arange(60)
    warm = np.minimum(steps / 5, 1)
    left = np.maximum(steps - 5, 0)
    restarting = (1 + np.cos(np.pi * ((4 * left / 40) % 1))) / 2 * (left < 40)
    cosine = 0.1 + 0.9 * (1 + np.cos(np.pi * np.minimum(left / 20, 1))) / 2
    return [
        {
            "peer": "transformers",
            "schedule": "get_cosine_with_hard_restarts_schedule_with_warmup",
            "kwargs": {"num_warmup_steps": 5, "num_training_steps": 45, "num_cycles": 4},
            "steps": steps,
            "values": 0.1 * warm * restarting,
        },
        {
            "peer": "keras",
            "schedule": "CosineDecay",
            "kwargs": {
                "initial_learning_rate": 0.0,
                "decay_steps": 20,
                "alpha": 0.1,
                "warmup_target": 0.1,
                "warmup_steps": 5,
            },
            "steps": steps,
            "values": 0.1 * warm * cosine,
        },
    ]


def inner(name):
    """PyTorch's schedulers within others, as the entries have them: `ConstantLR(0.1,5)`."""
    return lambda **arguments: f"{name}({','.join(map(str, arguments.values()))})"


INNER = {n: inner(n) for n in ("ConstantLR", "ExponentialLR", "LinearLR", "CosineAnnealingLR")}
DEFAULTS = {"base_momentum": 0.8, "max_momentum": 0.9, "cycle_momentum": True}


def documented_rows():
    """What the docstring's table says: peer, its call, last count that agrees, what, our call."""
    for section in re.split(r"\n\n(?=\w+\n    \w)", ls.__doc__)[1:]:
        peer, body = section.split("\n", 1)
        for row in re.split(r"\n(?=\w)", textwrap.dedent(body).strip()):
            call, *ours = re.split(r"\n    (momentum )?= ", row)
            call, _, last = call.partition(" up to step ")
            for key, spelling in zip(ours[::2], ours[1::2], strict=True):
                yield peer, call, int(last or MAX_COUNT), key or "values", spelling


@pytest.mark.parametrize(("peer", "call", "last", "key", "ours"), list(documented_rows()))
def test_what_others_call_it(peer, call, last, key, ours):
    peer = {"PyTorch": "torch"}.get(peer, peer.lower())
    name, arguments = call.split("(")[0], eval(re.sub(r"^\w+", "dict", call), dict(INNER))
    [entry] = [
        entry
        for entry in [*ENTRIES.values(), *formulas()]
        if (entry["peer"], entry["schedule"].removesuffix(".lr")) == (peer, name)
        and {k: v for k, v in entry["kwargs"].items() if DEFAULTS.get(k) != v} == arguments
    ]
    agreement = agrees(eval(f"({ours})", vars(ls)), entry, np.asarray(entry[key.strip()]))
    assert agreement[counts_of(entry) <= last].all()


def test_the_table_knows_every_peer():
    assert {row[0] for row in documented_rows()} == {
        "PyTorch",
        "Keras",
        "timm",
        "transformers",
        "fastai",
        "Optax",
        "Ignite",
        "Megatron",
        "MaxText",
        "DeepSpeed",
        "fairseq",
    }
    assert len(list(documented_rows())) > 40
