"""Make torch_sgd.json: what PyTorch's SGD does under CyclicLR and OneCycleLR.

Run once, in an environment with PyTorch (2.13.0, CPU):

    python tests/golden/make_torch_sgd.py

Every case trains the same small network for 200 full-batch steps in float64, from the same
start on the same data, and keeps its parameters after every 20th step.
"""

import itertools
import json
from pathlib import Path

import torch
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

STEPS, EVERY = 200, 20

CYCLES = {
    "triangular": {"step_size_up": 30, "step_size_down": 20},
    "triangular2": {"step_size_up": 25},
    "exp_range": {"step_size_up": 25, "gamma": 0.99},
}
ONECYCLES = {
    "cosine": {},
    "linear": {"anneal_strategy": "linear", "pct_start": 0.4},
    "three_phase": {"three_phase": True, "div_factor": 10.0, "final_div_factor": 100.0},
}


def problem():
    """Inputs, targets and the start: no random numbers, so that anybody can rebuild them."""
    grid = torch.arange(24, dtype=torch.float64).reshape(8, 3)
    inputs = torch.sin(grid)
    targets = torch.cos(2 * grid[:, :2])
    start = {
        "kernel": torch.sin(torch.arange(6, dtype=torch.float64) + 1).reshape(3, 2) / 2,
        "bias": torch.zeros(2, dtype=torch.float64),
    }
    return inputs, targets, start


def train(scheduler, *, nesterov, weight_decay):
    inputs, targets, start = problem()
    params = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.SGD(
        params.values(), lr=1.0, momentum=0.9, nesterov=nesterov, weight_decay=weight_decay
    )
    schedule = scheduler(optimizer)
    trace = []
    for step in range(STEPS):
        optimizer.zero_grad()
        outputs = torch.tanh(inputs @ params["kernel"] + params["bias"])
        torch.mean((outputs - targets) ** 2).backward()
        group = optimizer.param_groups[0]
        told = {"learning_rate": group["lr"], "momentum": group["momentum"]}
        optimizer.step()
        if (step + 1) % EVERY == 0:
            now = {name: value.tolist() for name, value in params.items()}
            trace.append({"steps": step + 1, **told, **now})
        if step + 1 < STEPS:
            schedule.step()
    return trace


def cases():
    for nesterov, weight_decay in itertools.product([False, True], [0.0, 0.01]):
        options = {"nesterov": nesterov, "weight_decay": weight_decay}
        for mode, cycle in CYCLES.items():
            kwargs = {"base_lr": 0.02, "max_lr": 0.2, "mode": mode, **cycle}
            trace = train(lambda optimizer, k=kwargs: CyclicLR(optimizer, **k), **options)
            yield {"scheduler": "CyclicLR", "kwargs": kwargs, **options, "trace": trace}
        for cycle in ONECYCLES.values():
            kwargs = {"max_lr": 0.2, "total_steps": STEPS, **cycle}
            trace = train(lambda optimizer, k=kwargs: OneCycleLR(optimizer, **k), **options)
            yield {"scheduler": "OneCycleLR", "kwargs": kwargs, **options, "trace": trace}


if __name__ == "__main__":
    inputs, targets, start = problem()
    golden = {
        "what": "SGD on mean((tanh(inputs @ kernel + bias) - targets)^2), in float64",
        "made_with": f"PyTorch {torch.__version__}",
        "inputs": inputs.tolist(),
        "targets": targets.tolist(),
        "start": {name: value.tolist() for name, value in start.items()},
        "cases": list(cases()),
    }
    path = Path(__file__).with_name("torch_sgd.json")
    path.write_text(json.dumps(golden) + "\n")
