#!/usr/bin/env python3
"""Golden numbers of the networks, from PyTorch, timm and torchvision, for tests/golden/networks.json.

    make golden          (or: VENV/bin/pip install -r scripts/requirements.txt; VENV/bin/python scripts/golden.py)

No weights are stored: every tensor is filled by a formula of its name and the index of the value (`fill`), which
tests/networks.rs repeats. For each network the file holds logits in evaluation mode, and the loss, the norm of every
parameter's gradient and checksums of the batch-norm statistics of one training step, computed in float64.
"""
import json
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
SIZE, BATCH, CLASSES = 64, 4, 10


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value


def uniform(name, count):
    """`count` numbers in [0, 1) by SplitMix64 of (hash of the name + index), exact in float32."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def fill(name, shape):
    u = uniform(name, int(np.prod(shape)))
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        values = u + np.float32(0.5)
    elif len(shape) == 1:
        values = (u - np.float32(0.5)) * np.float32(0.2)
    else:
        fan_in = int(np.prod(shape[1:]))
        values = (u - np.float32(0.5)) * np.float32(2 * np.sqrt(6 / fan_in))
    return torch.from_numpy(values.reshape(shape))


def our_name(name):
    """timm's legacy names (`layer0.bn1`, `se_module`, `last_linear`) as torchvision spells them."""
    return name.replace("layer0.", "").replace("se_module.", "se.").replace("last_linear.", "fc.")


def numbers(net, x, y):
    net, x = net.double(), x.double()  # the truth, to which float32 on either side is an approximation
    for name, tensor in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            tensor.copy_(fill(our_name(name), tensor.shape))
    logits = net.eval()(x)
    net.train()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    statistics = {our_name(n): t.double().sum().item() for n, t in net.state_dict().items() if "running_" in n}
    return {
        "logits": logits.flatten().tolist(),
        "train_loss": loss.item(),
        "gradient_norms": {our_name(n): p.grad.double().norm().item() for n, p in net.named_parameters()},
        "statistics": statistics,
    }


def main():
    torch.manual_seed(0)
    legacy = dict(num_classes=CLASSES, drop_rate=0.0)
    nets = {
        "se-resnet-50": ("timm legacy_seresnet50", timm.create_model("legacy_seresnet50", **legacy)),
        "se-resnet-50-v1.5": ("timm seresnet50", timm.create_model("seresnet50", num_classes=CLASSES)),
        "resnet-18-v1.5": ("torchvision resnet18", torchvision.models.resnet18(num_classes=CLASSES)),
        "resnet-50-v1.5": ("torchvision resnet50", torchvision.models.resnet50(num_classes=CLASSES)),
    }
    x = torch.from_numpy(uniform("input", BATCH * 3 * SIZE * SIZE).reshape(BATCH, 3, SIZE, SIZE)) * 2 - 1
    y = torch.arange(BATCH) * 3 % CLASSES
    made = {name: {"source": source, **numbers(net, x, y)} for name, (source, net) in nets.items()}
    document = {
        "made_by": "scripts/golden.py",
        "versions": {"torch": torch.__version__, "timm": timm.__version__, "torchvision": torchvision.__version__},
        "size": SIZE, "batch": BATCH, "classes": CLASSES,
        "networks": made,
    }
    path = ROOT / "tests" / "golden" / "networks.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
