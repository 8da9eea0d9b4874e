#!/usr/bin/env python3
"""Golden numbers of evaluation for tests/golden/evaluation.json, from numpy and torchvision.

    make golden          (or: VENV/bin/pip install -r scripts/requirements.txt; VENV/bin/python scripts/golden_evaluation.py)

Logits are filled by golden.py's formula `uniform` of a name. The calibration error is that of Guo et al. 2017, written out
over the edges of the bins; the windows of five crops are where torchvision's Resize and FiveCrop take them from.
"""
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import functional

from golden import uniform

OUT = Path(__file__).resolve().parent.parent / "tests/golden/evaluation.json"
SAMPLES, CLASSES, BINS = 400, 7, 15


def calibration(name, scale):
    logits = (uniform(name, SAMPLES * CLASSES).reshape(SAMPLES, CLASSES) - np.float32(0.5)) * np.float32(scale)
    logits = logits.astype(np.float64)
    # Two of three samples have the best class as their label, the others the next class.
    labels = (logits.argmax(1) + (np.arange(SAMPLES) % 3 == 0)) % CLASSES
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, BINS + 1)
    ece, bins = 0.0, []
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        seen = int(inside.sum())
        accuracy, mean = (right[inside].mean(), confidence[inside].mean()) if seen else (None, None)
        if seen:
            ece += seen / SAMPLES * abs(accuracy - mean)
        bins.append({"seen": seen, "accuracy": accuracy, "confidence": mean})
    order = np.argsort(-logits, 1, kind="stable")[:, :5]
    return {"name": name, "scale": scale, "labels": labels.tolist(), "ece": ece, "bins": bins,
            "top5": int((order == labels[:, None]).any(1).sum()),
            "of_label": probabilities[np.arange(SAMPLES), labels].tolist(),
            "precision": [right[probabilities.argmax(1) == c].mean() for c in range(CLASSES)],
            "recall": [right[labels == c].mean() for c in range(CLASSES)]}


def crops(width, height, resize, size):
    resized = functional.resize(Image.new("L", (width, height)), resize)
    w, h = resized.size
    # Each pixel has its own number, so that a crop says where it begins.
    places = torch.arange(w * h).reshape(1, h, w)
    corners = [[int(crop[0, 0, 0]) % w, int(crop[0, 0, 0]) // w] for crop in functional.five_crop(places, size)]
    return {"width": width, "height": height, "resize": resize, "size": size, "resized": [w, h], "corners": corners}


def main():
    cases = [(500, 375, 256, 224), (375, 500, 256, 224), (333, 500, 366, 320), (225, 225, 224, 224), (640, 111, 320, 299)]
    document = {
        "samples": SAMPLES,
        "classes": CLASSES,
        "calibration": [calibration("sure", 12), calibration("unsure", 2)],
        "crops": [crops(*case) for case in cases],
    }
    OUT.write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
