"""tensorboard.events: an event file as the tensorboard package's own writer makes it, for
tests/train/metrics/test_tensorboard.c to compare with byte by byte. tensorboard 2.21."""

import pathlib

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

WALL_S = 1700000000.25


def scalars(step, wall_s, **values):
    value = [summary_pb2.Summary.Value(tag=tag.replace("_", "/", 1), simple_value=v) for tag, v in values.items()]
    return event_pb2.Event(wall_time=wall_s, step=step, summary=summary_pb2.Summary(value=value))


def make(path):
    events = [
        event_pb2.Event(wall_time=WALL_S, file_version="brain.Event:2"),
        event_pb2.Event(
            wall_time=WALL_S,
            step=301,
            session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START),
        ),
        scalars(301, WALL_S + 1, train_loss=2.5, train_grad_norm=0.125, train_lr=1e-4, train_tokens_per_s=65536),
        scalars(301, WALL_S + 2, valid_loss=2.75),
        scalars(2**31 + 5, WALL_S + 3, train_loss=float("inf")),
    ]
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())


if __name__ == "__main__":
    make(pathlib.Path(__file__).parent / "tensorboard.events")
