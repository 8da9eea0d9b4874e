#!/usr/bin/env python3
"""Golden numbers of optimizers, schedules and losses, from PyTorch and timm, for tests/golden/optim.json.

    make golden          (or: VENV/bin/pip install -r scripts/requirements.txt; VENV/bin/python scripts/golden_optim.py)

Parameters, gradients and logits are filled by golden.py's formula `uniform` of a name; everything is computed in float64.
"""
import json
from pathlib import Path

import timm
import torch
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import Lamb, RMSpropTF
from timm.utils import ModelEmaV3
from torch.nn import functional as F
from torch.optim import lr_scheduler

from golden import uniform

OUT = Path(__file__).resolve().parent.parent / "tests/golden/optim.json"
SHAPES = {"conv.weight": [2, 3, 2, 2], "bn.weight": [4], "fc.weight": [3, 5], "fc.bias": [3]}
STEPS = 10
# Steps of a schedule.
TOTAL = 40
WEIGHT_DECAY = 0.05


def filled(name, shape, scale=1.0):
    count = int(torch.Size(shape).numel())
    return (torch.from_numpy(uniform(name, count)).double().reshape(shape) - 0.5) * scale


def parameters():
    return {name: filled(name, shape).requires_grad_() for name, shape in SHAPES.items()}


def set_gradients(params, step):
    # Some are long enough to be clipped, some are not.
    for name, param in params.items():
        param.grad = filled(f"{name} {step}", SHAPES[name], 0.1 + step % 3)


def lr_at(base, step):
    return base * (1 - step / 20)


OPTIMIZERS = {
    "sgd": ({"momentum": 0.9, "nesterov": False}, lambda groups: torch.optim.SGD(groups, 0.1, momentum=0.9)),
    "sgd nesterov": ({"momentum": 0.8, "nesterov": True},
                     lambda groups: torch.optim.SGD(groups, 0.1, momentum=0.8, nesterov=True)),
    "adamw": ({"betas": [0.9, 0.99], "eps": 1e-8},
              lambda groups: torch.optim.AdamW(groups, 0.1, betas=(0.9, 0.99), eps=1e-8)),
    "lamb": ({}, lambda groups: Lamb(groups, 0.1)),
    "lamb unclipped": ({"betas": [0.8, 0.95], "eps": 1e-5, "clip": None},
                       lambda groups: Lamb(groups, 0.1, betas=(0.8, 0.95), eps=1e-5, max_grad_norm=None)),
    "rmsprop-tf": ({"alpha": 0.9, "momentum": 0.9, "eps": 1e-3},
                   lambda groups: RMSpropTF(groups, 0.1, alpha=0.9, momentum=0.9, eps=1e-3)),
    "rmsprop-tf plain": ({"alpha": 0.8, "momentum": 0, "eps": 1e-3},
                         lambda groups: RMSpropTF(groups, 0.1, alpha=0.8, momentum=0.0, eps=1e-3)),
}
CLIPS = [None, {"norm": 1.0}, {"value": 0.1}]


def optimizer_case(name, weight_decay, clip):
    settings, make = OPTIMIZERS[name]
    params = parameters()
    decayed = [p for n, p in params.items() if not n.startswith("bn")]
    exempt = [p for n, p in params.items() if n.startswith("bn")]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    optimizer = make(groups)
    for step in range(STEPS):
        set_gradients(params, step)
        if clip and "norm" in clip:
            torch.nn.utils.clip_grad_norm_(params.values(), clip["norm"])
        if clip and "value" in clip:
            torch.nn.utils.clip_grad_value_(params.values(), clip["value"])
        for group in optimizer.param_groups:
            group["lr"] = lr_at(0.1, step)
        optimizer.step()
    spec = {"kind": name.split()[0], "lr": 0.1, "weight_decay": weight_decay, "no_decay": ["norm"], **settings}
    return {"optim": spec, "clip": clip, "params": {n: p.detach().flatten().tolist() for n, p in params.items()}}


def factors(make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = make(optimizer)
    found = []
    for step in range(TOTAL):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        # PyTorch's one cycle refuses a step beyond its last.
        if step + 1 < TOTAL:
            scheduler.step()
    return found


def warmed(make, steps=5, start=0.01):
    def scheduler(optimizer):
        warm = lr_scheduler.LinearLR(optimizer, start_factor=start, total_iters=steps)
        return lr_scheduler.SequentialLR(optimizer, [warm, make(optimizer)], [steps])
    return scheduler


def schedule_cases():
    warm = {"warmup": "5st", "warmup_start": 0.01}
    cases = [
        ({"kind": "constant"}, lambda o: lr_scheduler.ConstantLR(o, 1.0)),
        ({"kind": "cosine", "end": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, 40, 0.1)),
        ({"kind": "cosine", **warm}, warmed(lambda o: lr_scheduler.CosineAnnealingLR(o, 35))),
        ({"kind": "linear", "end": 0.2}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, 40)),
        ({"kind": "linear", **warm}, warmed(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, 35))),
        ({"kind": "step", "every": "12st", "factor": 0.3}, lambda o: lr_scheduler.StepLR(o, 12, 0.3)),
        ({"kind": "multi-step", "milestones": ["10st", "75%"], "factor": 0.5},
         lambda o: lr_scheduler.MultiStepLR(o, [10, 30], 0.5)),
        ({"kind": "one-cycle", "peak": "25%", "start": 0.04, "end": 0.0004},
         lambda o: lr_scheduler.OneCycleLR(o, 1.0, TOTAL, pct_start=0.25, anneal_strategy="linear",
                                           cycle_momentum=False, div_factor=25, final_div_factor=100)),
    ]
    return [{"schedule": spec, "factors": factors(make)} for spec, make in cases]


def loss_cases():
    n, classes = 6, 7
    labels = torch.arange(n) % classes
    other = (torch.arange(n) * 3 + 1) % classes
    share = 0.3
    found = []

    def case(loss, smoothing, mixed, criterion, target):
        logits = filled("logits", [n, classes], 6.0).requires_grad_()
        value = criterion(logits, target)
        value.backward()
        found.append({"loss": loss, "smoothing": smoothing, "mixed": mixed, "value": value.item(),
                      "gradient": logits.grad.flatten().tolist()})

    def soft(smoothing):
        off = smoothing / classes
        hot = lambda y: torch.full((n, classes), off, dtype=torch.double).scatter_(1, y.view(-1, 1), 1 - smoothing + off)
        return hot(labels) * share + hot(other) * (1 - share)

    for smoothing in [0.0, 0.1]:
        hard = LabelSmoothingCrossEntropy(smoothing)
        case("cross-entropy", smoothing, False, hard, labels)
        case("cross-entropy", smoothing, True, SoftTargetCrossEntropy(), soft(smoothing))
        for threshold in [None, 0.2]:
            for summed in [False, True]:
                spec = {"kind": "bce", "target_threshold": threshold, "sum_classes": summed}
                criterion = BinaryCrossEntropy(smoothing, target_threshold=threshold, sum_classes=summed)
                case(spec, smoothing, False, criterion, labels)
                case(spec, smoothing, True, criterion, soft(smoothing))
    return {"labels": labels.tolist(), "other": other.tolist(), "share": share, "classes": classes, "cases": found}


def ema_decays():
    model = torch.nn.Linear(1, 1)
    found = []
    for warmup in [True, False]:
        ema = ModelEmaV3(model, decay=0.9, use_warmup=warmup)
        found.append({"warmup": warmup, "decay": 0.9, "decays": [ema.get_decay(step) for step in range(1, 41)]})
    return found


def main():
    cases = [optimizer_case(name, weight_decay, clip)
             for name in OPTIMIZERS for weight_decay in [0.0, WEIGHT_DECAY] for clip in CLIPS]
    document = {
        "sources": {"torch": torch.__version__.split("+")[0], "timm": timm.__version__},
        "shapes": SHAPES, "steps": STEPS, "total": TOTAL,
        "optimizers": cases, "schedules": schedule_cases(), "losses": loss_cases(), "ema": ema_decays(),
    }
    OUT.write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
