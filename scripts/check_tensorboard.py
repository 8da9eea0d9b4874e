"""Reads runs' files of events with TensorBoard's own reader and compares every scalar with the runs' histories.

    senet train --tensorboard --out RUN         # killed and resumed as often as you like
    python scripts/check_tensorboard.py RUN…    # needs the package tensorboard alone

Points of steps that a resumed run has told again must be there once: TensorBoard drops the earlier ones."""
import json
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def float32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def told(run):
    """The scalars of events.jsonl: (tag, step) → value."""
    scalars = {}
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "steps":
            of = {key: event[key] for key in ("lr", "images_per_second", "waiting")}
            of["loss/train"] = event["loss"]
        elif event["event"] == "epoch":
            of = {"top1/train": event["train_top1"]}
            for whose in ("eval", "ema"):
                if evaluation := event.get(whose):
                    of[f"loss/{whose}"] = evaluation["loss"]
                    of[f"top1/{whose}"] = evaluation["top1"]["accuracy"]
                    of[f"top5/{whose}"] = evaluation["top5"]["accuracy"]
        else:
            continue
        scalars |= {(tag, event["step"]): float32(value) for tag, value in of.items()}
    return scalars


def shown(run):
    """What TensorBoard shows: (tag, step) → value."""
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=True)
    reader.Reload()
    points = [(tag, point) for tag in reader.Tags()["scalars"] for point in reader.Scalars(tag)]
    scalars = {(tag, point.step): point.value for tag, point in points}
    if len(scalars) < len(points):
        sys.exit(f"{run}: {len(points) - len(scalars)} points are shown twice")
    return scalars


def main():
    for run in map(Path, sys.argv[1:]):
        expected, found = told(run), shown(run)
        different = {key for key in expected | found if expected.get(key) != found.get(key)}
        for tag, step in sorted(different)[:10]:
            key = (tag, step)
            print(f"{tag} at step {step}: told {expected.get(key)}, shown {found.get(key)}")
        files = len(list((run / "tensorboard").iterdir()))
        if different or not expected:
            sys.exit(f"{run}: {len(different)} of {len(expected)} scalars differ")
        print(f"{run}: {len(expected)} scalars in {files} file(s), all as in events.jsonl")


main()
