"""The scripts that reproduce published results, at a size that only shows that they run."""

import importlib
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parent.parent / "benchmarks" / "published"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


def write(path, shape, samples=16):
    rng = np.random.default_rng(0)
    parts = {
        f"{name}_{part}": rng.integers(high, size=size, dtype=np.uint8)
        for part in ("train", "test")
        for name, high, size in (("x", 256, (samples, *shape)), ("y", 10, samples))
    }
    np.savez(path, **parts)
    return str(path)


TINY = {
    "lenet_mnist": ["--batch", "8", "--rows", "1cycle", "--timing-steps", "0"],
    "clr_policies": ["--updates", "4", "--batch", "4", "--seeds", "1"],
    "weight_decay_figure": ["--updates", "4", "--batch", "4", "--seeds", "1"],
    "superconvergence_cifar": ["--steps", "2", "--batch", "4", "--depth", "8", "--width", "1"],
}
