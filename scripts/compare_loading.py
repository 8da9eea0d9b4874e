"""Loading, product and peers in turns: images a second of ready batches of normalised floats.

    python scripts/compare_loading.py FOLDER [--shards SHARDS] [--threads 2] [--rounds 7]

FOLDER holds class folders of JPEGs, such as ImageNet's val/ sorted into classes. The peers are torchvision's ImageFolder in
PyTorch's DataLoader and, where `nvidia-dali-cuda130` is installed, DALI's CPU pipeline. SHARDS is what
`senet data pack` made of it. Medians of the rounds go to stdout as a Markdown table, each round to stderr."""
import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torchvision
from torchvision import transforms

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BATCH = 64
SENET = Path(__file__).resolve().parent.parent / "target" / "release" / "senet"


def senet(folder, pipeline, options):
    command = [SENET, "data", "bench", folder, "--pipeline", pipeline, "--size", "224", "--batch-size", str(BATCH)]
    command += ["--threads", str(options.threads), "--seconds", str(options.seconds), "--json", "--quiet"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def data_loader(folder, pipeline, options):
    tail = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    head = {
        "train": [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()],
        "eval": [transforms.Resize(256), transforms.CenterCrop(224)],
    }[pipeline]
    data = torchvision.datasets.ImageFolder(folder, transforms.Compose(head + tail))
    data = torch.utils.data.ConcatDataset([data] * max(1, 1024 // len(data)))
    loader = torch.utils.data.DataLoader(
        data, BATCH, shuffle=pipeline == "train", num_workers=options.threads, persistent_workers=True
    )
    rates = []
    for _ in range(3):
        start, seen = time.perf_counter(), 0
        for images, _ in loader:
            seen += len(images)
        rates.append(seen / (time.perf_counter() - start))
    return max(rates[1:])


def dali(folder, pipeline, options):
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def
    def graph(train):
        jpegs, labels = fn.readers.file(file_root=folder, random_shuffle=train)
        if train:
            images = fn.decoders.image_random_crop(jpegs, device="cpu", output_type=types.RGB)
            images = fn.resize(images, resize_x=224, resize_y=224, interp_type=types.INTERP_TRIANGULAR)
        else:
            images = fn.decoders.image(jpegs, device="cpu", output_type=types.RGB)
            images = fn.resize(images, size=256, mode="not_smaller", interp_type=types.INTERP_TRIANGULAR)
        images = fn.crop_mirror_normalize(
            images,
            dtype=types.FLOAT,
            output_layout="CHW",
            crop=(224, 224),
            mean=[255 * mean for mean in MEAN],
            std=[255 * std for std in STD],
            mirror=fn.random.coin_flip() if train else 0,
        )
        return images, labels

    train = pipeline == "train"
    running = graph(train, batch_size=BATCH, num_threads=options.threads, device_id=None, prefetch_queue_depth=2)
    running.build()
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(16):
            running.run()
        rates.append(16 * BATCH / (time.perf_counter() - start))
    return max(rates[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--shards")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    peers = {"torchvision DataLoader": data_loader}
    try:
        import nvidia.dali  # noqa: F401

        peers["DALI CPU"] = dali
    except ImportError:
        print("DALI is not installed: left out", file=sys.stderr)

    figures = {}
    for round in range(options.rounds):
        for pipeline in ("train", "eval"):
            rates = {"senet": senet(options.folder, pipeline, options)["images_per_second"]}
            if options.shards:
                rates["senet, shards"] = senet(options.shards, pipeline, options)["images_per_second"]
            rates |= {name: peer(options.folder, pipeline, options) for name, peer in peers.items()}
            for name, rate in rates.items():
                figures.setdefault(pipeline, {}).setdefault(name, []).append(rate)
            print(f"round {round + 1}, {pipeline}: {({name: round_(rate) for name, rate in rates.items()})}", file=sys.stderr)
    print("| pipeline | | images a second | senet is faster by |\n|---|---|---|---|")
    for pipeline, rates in figures.items():
        ours = statistics.median(rates["senet"])
        for name, of in rates.items():
            middle = statistics.median(of)
            ratio = f"{ours / middle:.2f}" if name in peers else ""
            print(f"| {pipeline} | {name} | {middle:.0f} | {ratio} |")


def round_(rate):
    return int(rate + 0.5)


main()
