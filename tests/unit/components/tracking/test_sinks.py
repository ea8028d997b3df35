"""TensorBoard and Weights & Biases receive what the journal holds, whole after a kill, and never end a training."""

import json
import logging
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from components.tracking.journal import open_journal
from components.tracking.sinks import Sinks
from yolo_core.errors import UserError

HEADER = {"model": "yolov4-tiny", "record": "0123abcd", "began": 1_700_000_000_000}
SETTINGS = {"train.size": 192, "prepare.location": "https://user:secret@host/data"}
NAME = "yolov4-tiny-20231114-221320"  # 1,700,000,000 s after the epoch, UTC
FIRST = {"op": "metrics", "metrics": [["train/box", 0.5, 1_700_000_001_000, 3], ["val/AP", 0.25, 1_700_000_001_500, 3]]}
SECOND = {"op": "metrics", "metrics": [["train/box", 0.125, 1_700_000_002_000, 6]]}
SCALARS = [("train/box", 3, 0.5, 1_700_000_001.0), ("val/AP", 3, 0.25, 1_700_000_001.5)]


def record(tmp_path: Path, sinks: Sinks, *entries: dict, raises: type[BaseException] | None = None) -> None:
    """Add entries to the journal and pass them to the sinks, as a stage does."""
    with open_journal(tmp_path / "records.jsonl", HEADER) as journal, sinks.opened(journal, SETTINGS) as write:
        for entry in entries:
            journal.append(entry)
            write(entry)
        if raises:
            raise raises


def scalars(folder: Path) -> list[tuple[str, int, float, float]]:
    """Name, step, value and time of every scalar in the only event file of a folder."""
    (path,) = folder.glob("events.out.tfevents.*")
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack_from("<Q", content)
        event = Event.FromString(content[12 : 12 + length])  # the length and its checksum, the event, its checksum
        found += [(value.tag, event.step, value.simple_value, event.wall_time) for value in event.summary.value]
        content = content[length + 16 :]
    return found


def test_tensorboard_shows_each_metric_at_its_step_and_time(tmp_path):
    record(tmp_path, Sinks(tensorboard=tmp_path / "tb"), FIRST, {"op": "tags", "tags": {"a": "b"}})
    assert scalars(tmp_path / "tb" / NAME) == SCALARS


def test_a_killed_process_leaves_no_gap_and_no_double(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path, Sinks(tensorboard=tmp_path / "tb"), FIRST, raises=KeyboardInterrupt)
    next((tmp_path / "tb" / NAME).iterdir()).write_bytes(b"")  # nothing of it had been flushed
    record(tmp_path, Sinks(tensorboard=tmp_path / "tb"), SECOND)
    assert scalars(tmp_path / "tb" / NAME) == [*SCALARS, ("train/box", 6, 0.125, 1_700_000_002.0)]


def test_a_sink_that_cannot_be_written_to_is_dropped_in_one_line(tmp_path, caplog):
    (tmp_path / "tb").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        record(tmp_path, Sinks(tensorboard=tmp_path / "tb"), FIRST, SECOND)
    (message,) = caplog.messages
    assert message.startswith("TensorBoard: ")
    assert message.endswith("it receives nothing more of this training")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    return Sinks(wandb="digits")


def records(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: 7 bytes, then LevelDB's log format, blocks of 32 KiB with chunks of records."""
    at, record = 7, b""
    while at < len(content):
        left = 32768 - at % 32768
        if left < 7:  # too short for a chunk: padding
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)  # after a checksum
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last chunk
            yield record
            record = b""


def history(folder: Path) -> tuple[dict[str, str], list[dict[str, float]]]:
    """The configuration and the rows of the newest offline run, as `wandb sync` would send them."""
    from wandb.proto.wandb_internal_pb2 import Record

    path = max(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    settings, rows = {}, []
    for found in map(Record.FromString, records(path.read_bytes())):
        settings |= {item.key: item.value_json for item in found.run.config.update}
        items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in found.history.item}
        rows += [{key: value for key, value in items.items() if "/" in key or key == "_step"}] if items else []
    return settings, rows


def test_weights_and_biases_gets_whole_curves_and_the_parameters_without_credentials(tmp_path, offline):
    offline.check()
    record(tmp_path, offline, FIRST)
    record(tmp_path, offline, SECOND)  # a resumed training; offline, its run is a second folder with the same id
    settings, rows = history(tmp_path)
    assert rows == [{"train/box": 0.5, "val/AP": 0.25, "_step": 3}, {"train/box": 0.125, "_step": 6}]
    assert settings["train.size"] == "192"
    assert settings["prepare.location"] == '"https://host/data"'


def test_weights_and_biases_without_a_key_is_refused_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UserError, match="no API key; run `wandb login`"):
        Sinks(wandb="digits").check()
