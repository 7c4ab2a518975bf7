r"""Is a sweep faster than what people run without it: torch-lr-finder, fastai, Lightning?

    python3.11 -m venv peers && . peers/bin/activate
    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    pip install torch-lr-finder==0.2.2 lightning==2.6.6 -e .
    pip install --no-deps fastai==2.8.12      # whose torchvision is for images only
    pip install fastcore fasttransform fastdownload fastprogress matplotlib pandas pyyaml \
        requests pillow scikit-learn cloudpickle

    python benchmarks/peers.py                               tiny, mlp and cnn: some minutes
    python benchmarks/peers.py mlp --data mnist.npz          one of them, on a file's images

Every tool runs the range test over 16 weight decays: lrjax as 16 lanes, the others one after
another, with the same model, data, batch size, optimizer (SGD) and number of updates, and two
ways to load batches: PyTorch's `DataLoader` as its documentation has it ("samples"), and one
that takes a batch at once ("batches").

warm: milliseconds per lane and update, of one call that comes after another; medians of calls
that take turns in one process. cold: seconds from the start of a process to suggestions for all
16 weight decays, compilation included; medians of processes that take turns. "cached" is a process
that finds its programs in JAX's persistent compilation cache, because one before has filled it.

Last answers, on a 2-core x86-64 CPU with JAX 0.10.2, of a run for each. The peers' own times differ
by half from run to run: earlier torch-lr-finder took 2.1 ms on mlp. What bounds lrjax: its update
takes 1.24 times what its matrix products alone would on mlp, and 1.28 times on cnn (see
`floor.py`), so that the best peer is at 2.5 and at 1.75 times the floor, and no program could be 3
times as fast. A sweep of the tiny network takes 0.0125 ms per lane and update, and some 9 ms
besides, which 100 updates share: a call of one update takes 6, and suggestions 3.5.

    tiny, 100 updates                warm, ms             cold, s
    lrjax                              0.020    1.0x       2.453    1.0x
    torch-lr-finder   samples          0.606   29.7x       4.852    2.0x
    torch-lr-finder   batches          0.425   20.8x       4.608    1.9x
    fastai            samples          1.143   56.0x       6.024    2.5x
    fastai            batches          0.972   47.6x       5.746    2.3x
    Lightning         samples          1.036   50.7x       6.748    2.8x
    Lightning         batches          0.862   42.2x       6.586    2.7x
    lrjax             cached                               1.393    0.6x
    best peer / lrjax                          20.8x                1.9x

    mlp, 100 updates                warm, ms             cold, s
    lrjax                              0.661    1.0x       4.044    1.0x
    torch-lr-finder   samples          1.827    2.8x       8.844    2.2x
    torch-lr-finder   batches          1.392    2.1x       6.677    1.7x
    fastai            samples          2.481    3.8x      10.438    2.6x
    fastai            batches          2.037    3.1x       8.877    2.2x
    Lightning         samples          2.304    3.5x      10.807    2.7x
    Lightning         batches          1.806    2.7x      11.692    2.9x
    lrjax             cached                               3.159    0.8x
    best peer / lrjax                           2.1x                1.7x

    cnn, 30 updates                  warm, ms             cold, s
    lrjax                             14.138    1.0x      10.513    1.0x
    torch-lr-finder   samples         27.846    2.0x      20.752    2.0x
    torch-lr-finder   batches         19.256    1.4x      17.982    1.7x
    fastai            samples         28.958    2.0x      21.938    2.1x
    fastai            batches         20.503    1.5x      19.498    1.9x
    Lightning         samples         29.162    2.1x      22.828    2.2x
    Lightning         batches         20.623    1.5x      19.228    1.8x
    lrjax             cached                               8.390    0.8x
    best peer / lrjax                           1.4x                1.7x
"""

import argparse
import contextlib
import functools
import io
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
from workloads import END, START, WORKLOADS, decays, load

LANES = 16
STEPS = {"tiny": 100, "mlp": 100, "cnn": 30}


def by_lrjax(name, data, steps, loading):
    """Returns a function that runs all lanes, and gives the updates of a lane and suggestions."""
    import lrjax

    workload = WORKLOADS[name]
    task = lrjax.task(workload.loss, workload.init)
    batches = lrjax.array_batches(data, workload.batch)

    def run(weight_decays):
        curves = lrjax.range_test(
            task, batches, lanes={"weight_decay": weight_decays}, start=START, end=END, steps=steps
        )
        return steps, lrjax.suggest(curves)

    return run


def network(name):
    from torch import nn

    if name == "tiny":
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    dense = [nn.Linear(784 if name == "mlp" else 1600, 256), nn.ReLU(), nn.Linear(256, 10)]
    if name == "mlp":
        return nn.Sequential(*dense)
    convolutions = [
        layer
        for inputs, outputs in ((1, 32), (32, 64))
        for layer in (nn.Conv2d(inputs, outputs, 3), nn.ReLU(), nn.MaxPool2d(2))
    ]
    return nn.Sequential(*convolutions, nn.Flatten(), *dense)


def tensors(data):
    import torch

    x, y = data
    if x.ndim == 4:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y).long())


def loader(name, data, loading):
    """A shuffling `DataLoader` of single samples, or of whole batches."""
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler

    dataset, size = tensors(data), WORKLOADS[name].batch
    if loading == "samples":
        return DataLoader(dataset, size, shuffle=True, drop_last=True)
    batches = BatchSampler(RandomSampler(dataset), size, drop_last=True)
    return DataLoader(dataset, batch_size=None, sampler=batches)


def steepest(rates, losses):
    """The rate at which the loss falls fastest, as these tools suggest."""
    return rates[int(np.gradient(np.array(losses)).argmin())]


def one_by_one(search):
    """All weight decays, one after another."""

    def run(weight_decays):
        found = [search(float(decay)) for decay in weight_decays]
        return found[0][0], [suggestion for _, suggestion in found]

    return run


def by_torch_lr_finder(name, data, steps, loading):
    import torch
    from torch_lr_finder import LRFinder

    batches = loader(name, data, loading)

    def search(decay):
        model = network(name)
        optimizer = torch.optim.SGD(model.parameters(), lr=START, weight_decay=decay)
        finder = LRFinder(model, optimizer, torch.nn.CrossEntropyLoss(), device="cpu")
        finder.range_test(batches, end_lr=END, num_iter=steps, diverge_th=np.inf)
        losses = finder.history["loss"]
        return len(losses), steepest(finder.history["lr"], losses)

    return one_by_one(search)


def by_fastai(name, data, steps, loading):
    import torch
    from fastai.callback.schedule import steep  # which also adds `lr_find` to `Learner`
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import SGD

    batches = loader(name, data, loading)
    dls = DataLoaders(batches, batches, device=torch.device("cpu"))

    def search(decay):
        optimizer = functools.partial(SGD, mom=0.0, decouple_wd=False)
        learner = Learner(
            dls, network(name), torch.nn.CrossEntropyLoss(), opt_func=optimizer, wd=decay
        )
        with learner.no_bar(), learner.no_logging():
            found = learner.lr_find(
                START, END, steps, stop_div=False, show_plot=False, suggest_funcs=steep
            )
        return len(learner.recorder.losses), found.steep

    return one_by_one(search)


def by_lightning(name, data, steps, loading):
    import lightning
    import torch
    from lightning.pytorch.tuner import Tuner

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    batches = loader(name, data, loading)

    class Module(lightning.LightningModule):
        def __init__(self, decay):
            super().__init__()
            self.network, self.decay, self.lr = network(name), decay, START

        def training_step(self, batch, _):
            x, y = batch
            return torch.nn.functional.cross_entropy(self.network(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr, weight_decay=self.decay)

    def search(decay):
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=-1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        finder = Tuner(trainer).lr_find(
            Module(decay),
            batches,
            min_lr=START,
            max_lr=END,
            num_training=steps,
            early_stop_threshold=None,
            update_attr=False,
        )
        return len(finder.results["loss"]), finder.suggestion(skip_begin=0)

    return one_by_one(search)


PEERS = {
    "torch-lr-finder": by_torch_lr_finder,
    "fastai": by_fastai,
    "Lightning": by_lightning,
}
TOOLS = {"lrjax": by_lrjax} | PEERS
LOADING = ("samples", "batches")
WAYS = [("lrjax", "batches")] + [(peer, loading) for peer in PEERS for loading in LOADING]
CACHED = ("lrjax", "cached")  # with the programs that a process before has compiled


@contextlib.contextmanager
def quiet():
    """Without the tools' progress bars, which take time and space."""
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def warm(name, data, steps, repeats):
    """Milliseconds per lane and update: the medians, of one run where runs are alike."""
    runs = {(tool, loading): TOOLS[tool](name, data, steps, loading) for tool, loading in WAYS}
    took = {way: [] for way in WAYS}
    for turn in range(repeats + 1):
        for (tool, loading), run in runs.items():
            count = LANES if tool == "lrjax" else 1
            with quiet():
                start = time.perf_counter()
                updates, _ = run(decays(LANES)[:count])
                seconds = time.perf_counter() - start
            if updates < steps - 1:
                raise RuntimeError(f"{tool} made only {updates} of {steps} updates")
            if turn:
                took[tool, loading].append(1e3 * seconds / count / steps)
    return {way: statistics.median(each) for way, each in took.items()}


def cold(name, path, steps, repeats):
    """Seconds of processes that make all suggestions."""

    def seconds(way, **variables):
        command = [sys.executable, __file__, name, "--steps", str(steps), "--child", *way]
        command += ["--data", path] if path else []
        start = time.perf_counter()
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | variables,
        )
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        kept = {
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        ways = {way: {} for way in WAYS} | {CACHED: kept}
        seconds(CACHED, **kept)
        turns = [{way: seconds(way, **more) for way, more in ways.items()} for _ in range(repeats)]
    return {way: statistics.median(turn[way] for turn in turns) for way in ways}


def compare(name, path, steps, repeats, cold_repeats):
    measured = {"warm, ms": warm(name, load(WORKLOADS[name], path), steps, repeats)}
    if cold_repeats:
        measured["cold, s"] = cold(name, path, steps, cold_repeats)
    print(f"\n{name}, {steps} updates{'':12}" + "".join(f"{title:>12}{'':8}" for title in measured))

    def cell(took, way):
        return f"{took[way]:12.3f}{took[way] / took[WAYS[0]]:7.1f}x" if way in took else " " * 20

    for way in WAYS + [CACHED] * bool(cold_repeats):
        print(f"{way[0]:18}{way[1] if way != WAYS[0] else '':10}", end="")
        print("".join(cell(took, way) for took in measured.values()))
    print(f"{'best peer / lrjax':28}", end="")
    for took in measured.values():
        best = min(took[way] for way in WAYS[1:])
        print(f"{'':12}{best / took[WAYS[0]]:7.1f}x", end="")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(STEPS))
    parser.add_argument("--data", help="a .npz file with x_train and y_train")
    parser.add_argument("--steps", type=int, help="updates of a range test")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cold-repeats", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("NO_COLOR", "1")
    for name in options.workloads or STEPS:
        steps = options.steps or STEPS[name]
        if options.child:
            tool, loading = options.child
            data = load(WORKLOADS[name], options.data)
            TOOLS[tool](name, data, steps, loading)(decays(LANES))
        else:
            compare(name, options.data, steps, options.repeats, options.cold_repeats)


if __name__ == "__main__":
    main()
