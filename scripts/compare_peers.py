#!/usr/bin/env python3
"""Speed of SE-ResNet-50 against timm's eager PyTorch in channels_last: training steps and forward passes, in turns.

    python3 -m venv VENV && VENV/bin/pip install -r scripts/requirements.txt
    VENV/bin/python scripts/compare_peers.py --rounds 7

One round is a timing of each side; a side's figure is the median of its rounds. Both see made-up batches of the same size
on the same number of threads, in a process of their own, after a warm-up. timm runs as pip installs it, with its
defaults.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import timm
import torch

ROOT = Path(__file__).resolve().parent.parent


WARM_UP = 2  # as in `senet bench`


class Timm:
    """The peer, in this process."""

    def __init__(self, args, training):
        self.args = args
        self.net = timm.create_model(args.peer, num_classes=1000).to(memory_format=torch.channels_last)
        self.net.train(training)
        self.x = torch.randn(args.batch_size, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        self.y = torch.randint(0, 1000, (args.batch_size,))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
        self.step = self.train if training else self.evaluate
        for _ in range(WARM_UP):
            self.step()

    def train(self):
        self.optimizer.zero_grad()
        torch.nn.functional.cross_entropy(self.net(self.x), self.y).backward()
        self.optimizer.step()

    def evaluate(self):
        with torch.inference_mode():
            self.net(self.x)

    def images_per_second(self):
        figures = []
        for _ in range(self.args.steps):
            start = time.perf_counter()
            self.step()
            figures.append(self.args.batch_size / (time.perf_counter() - start))
        return statistics.median(figures)


def command(args, side, training):
    what = "train" if training else "eval"
    if side == "senet":
        return [
            args.senet, "bench", what, "--model", args.model, "--json", "--batch-size", str(args.batch_size),
            "--threads", str(args.threads), "--steps", str(args.steps),
        ]
    return [
        sys.executable, __file__, "--only-peer", what, "--peer", args.peer, "--batch-size", str(args.batch_size),
        "--threads", str(args.threads), "--steps", str(args.steps),
    ]


def images_per_second(args, side, training):
    result = subprocess.run(command(args, side, training), check=True, capture_output=True)
    return json.loads(result.stdout)["images_per_second"]["median"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--senet", default=str(ROOT / "target/release/senet"))
    parser.add_argument("--model", default="se-resnet-50")
    parser.add_argument("--peer", default="legacy_seresnet50", help="timm's name of the same network")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=5, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only-peer", choices=["train", "eval"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_peer:
        torch.set_num_threads(args.threads)
        print(json.dumps({"images_per_second": {"median": Timm(args, args.only_peer == "train").images_per_second()}}))
        return
    sides = ["senet", "timm eager channels_last"]
    for training in (True, False):
        rounds = {side: [] for side in sides}
        for _ in range(args.rounds):
            for side in sides:
                rounds[side].append(images_per_second(args, side, training))
        what = "train" if training else "eval"
        for side, figures in rounds.items():
            median = statistics.median(figures)
            print(f"{what} {side}: median {median:.2f} img/s, min {min(figures):.2f}, max {max(figures):.2f}")
        ours, theirs = (statistics.median(rounds[side]) for side in sides)
        print(f"{what}: senet is {ours / theirs:.2f} times as fast", flush=True)


if __name__ == "__main__":
    main()
