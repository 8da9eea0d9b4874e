#!/usr/bin/env python3
"""What training together costs: N processes of one thread each that train one SE-ResNet-20 on Fashion-MNIST, beside N that
train one each, in turns on the same machine.

    scripts/compare_ranks.py [--processes 2] [--rounds 5] [--images 12800] [--batch-size 128] [--set KEY=VALUE ...]

`--batch-size` is that of all processes together; each of those that train by themselves has its share of it. Speeds are the
runs' own (`train_images_per_second`: without start and evaluation); the table has medians, in images a second of all
processes.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SENET = ROOT / "target/release/senet"


def start(out, batch_size, args, more):
    words = ["train", "--quiet", "--json", "--out", str(out), "--epochs", "1", "--threads", "1"]
    words += ["--batch-size", str(batch_size), "--data", str(ROOT / "data/fashion-mnist")]
    for setting in ["data.threads=1", f"data.limit={args.images}", *args.set]:
        words += ["--set", setting]
    return subprocess.Popen([SENET, *words, *more], stdout=subprocess.DEVNULL)


def speed(out):
    return json.loads((out / "result.json").read_text())["train_images_per_second"]


def measure(folder, jobs):
    """The summed speed of jobs that run side by side."""
    running = [start(out, *rest) for out, *rest in jobs]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"error: senet ended with {codes} in {folder}")
    return sum(speed(out) for out, *_ in jobs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=12800)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    count = args.processes
    together, apart = [], []
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            job = (folder / "together", args.batch_size, args, ["--nproc", str(count)])
            together.append(measure(folder, [job]))
            jobs = [(folder / f"apart-{rank}", args.batch_size // count, args, []) for rank in range(count)]
            apart.append(measure(folder, jobs))
        print(f"round {number + 1}: together {together[-1]:.0f}, apart {apart[-1]:.0f}", flush=True)
    ratios = [one / other for one, other in zip(together, apart)]
    print(f"| processes | together | apart | ratio |\n|---|---|---|---|")
    medians = statistics.median(together), statistics.median(apart), statistics.median(ratios)
    print(f"| {count} | {medians[0]:.0f} | {medians[1]:.0f} | {medians[2]:.3f} |")


if __name__ == "__main__":
    main()
