"""Makes tests/golden/events.out.tfevents.golden: a file of events as TensorBoard's own messages and writer make it, with
what src/report/tensorboard.rs has in its test.

    python scripts/golden_tensorboard.py        # needs the package tensorboard alone"""
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

BEGIN = 1_700_000_000
STEPS = {"loss/train": 2.5, "lr": 0.1, "images_per_second": 1234.5, "waiting": 0.25}
EPOCH = {
    "top1/train": 0.0,
    "loss/eval": 1.75, "top1/eval": 10 / 16, "top5/eval": 14 / 16,
    "loss/ema": 1.5, "top1/ema": 11 / 16, "top5/ema": 15 / 16,
}


def scalars(values):
    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def main():
    start = SessionLog(status=SessionLog.START)
    events = [
        Event(wall_time=BEGIN + 0.25, file_version="brain.Event:2"),
        Event(wall_time=BEGIN + 0.5, step=1, session_log=start),
        Event(wall_time=BEGIN + 1, step=5, summary=scalars(STEPS)),
        Event(wall_time=BEGIN + 2, step=300, summary=scalars(EPOCH)),
        Event(wall_time=BEGIN + 3, step=301, session_log=start),
    ]
    path = Path(__file__).parents[1] / "tests/golden/events.out.tfevents.golden"
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString(deterministic=True))
    print(f"{path.name}: {len(events)} events, {path.stat().st_size} bytes")


main()
