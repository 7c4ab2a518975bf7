"""Every schedule that a peer has, in lrjax's spelling, against the peer's own numbers."""

import json
import pathlib

import numpy as np
import pytest
from golden.spellings import AGREEING, EXCLUDED, GROUPS, MOMENTA, SPELLINGS

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
