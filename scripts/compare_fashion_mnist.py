#!/usr/bin/env python3
"""Training speed of SE-ResNet-20 on Fashion-MNIST: senet against the same loop in PyTorch, in turns.

Both train the same network for the same number of images with the same batch size, optimizer and augmentation
(pad-and-crop, flip), data loading included, on the same number of threads. PyTorch runs twice: as most people write
it (torchvision transforms in a DataLoader with workers), and as fast as eager PyTorch goes (the whole set as one
tensor, augmented in batches, channels_last).

    python3 -m venv VENV && VENV/bin/pip install -r scripts/requirements.txt
    VENV/bin/python scripts/compare_fashion_mnist.py --rounds 5
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torchvision import datasets, transforms

ROOT = Path(__file__).resolve().parent.parent
MEAN, STD = 0.2860, 0.3530


class Se(nn.Module):
    def __init__(self, channels, reduction=16):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        s = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(s))))


class Block(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.se = Se(c_out)
        self.stride, self.extra = stride, c_out - c_in

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.se(self.bn2(self.conv2(y)))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        return F.relu(x + y, inplace=True)


def se_resnet_20(channels=1, classes=10):
    layers = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    c_in = 16
    for i, width in enumerate([16, 32, 64]):
        for block in range(3):
            layers.append(Block(c_in, width, 2 if i > 0 and block == 0 else 1))
            c_in = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def fashion_mnist(transform):
    """The IDX files where torchvision looks for them."""
    folder = Path(tempfile.mkdtemp()) / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    import gzip

    for packed in (ROOT / "data" / "fashion-mnist").glob("*.gz"):
        (folder / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    return datasets.FashionMNIST(folder.parent.parent, train=True, transform=transform)


def usual_batches(args):
    transform = transforms.Compose([
        transforms.RandomCrop(28, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([MEAN], [STD]),
    ])
    data = torch.utils.data.Subset(fashion_mnist(transform), range(args.images))
    return torch.utils.data.DataLoader(
        data, batch_size=args.batch_size, shuffle=True, num_workers=args.threads, persistent_workers=True
    )


class TensorBatches:
    def __init__(self, args):
        data = fashion_mnist(None)
        self.images, self.labels = data.data[: args.images], data.targets[: args.images]
        self.batch_size = args.batch_size

    def __iter__(self):
        order = torch.randperm(len(self.images))
        for at in range(0, len(order), self.batch_size):
            chosen = order[at : at + self.batch_size]
            x = F.pad(self.images[chosen], (4, 4, 4, 4))
            rows = torch.arange(28) + torch.randint(0, 9, (len(chosen), 1))
            columns = torch.arange(28) + torch.randint(0, 9, (len(chosen), 1))
            x = x[torch.arange(len(chosen))[:, None, None], rows[:, :, None], columns[:, None, :]]
            flip = torch.rand(len(chosen)) < 0.5
            x[flip] = x[flip].flip(-1)
            x = ((x.float() / 255 - MEAN) / STD)[:, None]
            yield x.contiguous(memory_format=torch.channels_last), self.labels[chosen]


class PyTorch:
    def __init__(self, args, batches, channels_last):
        self.args, self.batches = args, batches
        self.net = se_resnet_20()
        if channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)

    def images_per_second(self):
        self.net.train()
        start = time.perf_counter()
        for x, y in self.batches:
            self.optimizer.zero_grad()
            F.cross_entropy(self.net(x), y).backward()
            self.optimizer.step()
        return self.args.images / (time.perf_counter() - start)


class Senet:
    def __init__(self, args):
        self.args = args

    def images_per_second(self):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                self.args.senet, "train", "--quiet", "--json", "--out", os.path.join(folder, "run"), "--epochs", "1",
                "--batch-size", str(self.args.batch_size), "--threads", str(self.args.threads),
                "--set", f"data.limit={self.args.images}", "--set", f"data.threads={self.args.threads}",
                "--set", "data.crop=pad",
            ]
            result = subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        return self.args.images / json.loads(result.stdout)["train_seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--senet", default=str(ROOT / "target/release/senet"))
    parser.add_argument("--images", type=int, default=12800, help="images a round")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    runners = {
        "senet": Senet(args),
        "PyTorch, DataLoader": PyTorch(args, usual_batches(args), channels_last=False),
        "PyTorch, tensors, channels_last": PyTorch(args, TensorBatches(args), channels_last=True),
    }
    speeds = {name: [] for name in runners}
    for round_ in range(args.rounds + 1):
        for name, runner in runners.items():
            speed = runner.images_per_second()
            if round_ > 0:  # the first one warms up
                speeds[name].append(speed)
    for name, figures in speeds.items():
        ratio = statistics.median(speeds["senet"]) / statistics.median(figures)
        print(f"{name}: median {statistics.median(figures):.0f} img/s, "
              f"min {min(figures):.0f}, max {max(figures):.0f}; senet is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
