"""The device speed assumed by the planner: from benchmark records, otherwise from the papers."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from yolo_core.device import describe
from yolo_core.errors import BadArgument, BadFile, UserError
from yolo_core.models.cost import Footprint
from yolo_core.models.planner import count
from yolo_core.models.published import GPU_USE, PEAK_TFLOPS, V100, Speed, printed_speeds
from yolo_core.models.roofline import Measurement, Roofline, roofline_through

# Short names to match in longer ones that lack the full name: the driver reports "Tesla V100-SXM2-16GB".
SHORT_NAMES = {V100: "V100", "RTX 2080 Ti": "2080 Ti", "Tesla T4": "T4", "Jetson AGX Xavier": "Xavier"}
NUMBER_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Device:
    """A device to plan for."""

    name: str
    """The device's name in the records or the papers."""

    roofline: Roofline
    """Assumed speed of the device."""

    grounds: str
    """Basis of the figures, human-readable."""

    is_assumed: bool = False
    """Whether it replaces this machine, whose speed is unknown."""


@dataclass(frozen=True)
class Record:
    """The batch 1 results of a benchmark record."""

    model: str
    """Detector name."""

    device: str
    """Device it was measured on."""

    graph: Footprint
    """Footprint of the graph that was timed."""

    times: dict[tuple[str, str], float]
    """Median inference time in ms by (backend, precision)."""


def from_records(paths: Sequence[Path], device: str) -> Device:
    """The device of these benchmark records, with the fastest backend they have in common.

    device: part of its name, or "auto" if all records are of the same device.
    Raises BadArgument `device`, BadFile for an unreadable record, and UserError for records without a common backend.
    """
    records = [_record(path) for path in paths]
    measured_on = sorted({record.device for record in records})
    if device != "auto":
        records = [record for record in records if device.lower() in record.device.lower()]
        if not records:
            raise BadArgument("device", f"= {device}: no record of it; the records are from {', '.join(measured_on)}")
    if len({record.device for record in records}) > 1:
        raise BadArgument("device", f"= {device}: the records are from {' and '.join(measured_on)}; pick one")
    common = set.intersection(*(set(record.times) for record in records))
    if not common:
        raise UserError(f"{records[0].device}: the records have no backend in common at batch 1")
    backend, precision = min(common, key=lambda key: sum(record.times[key] for record in records))
    measured = [
        Measurement(f"{record.model} {record.graph.size} px", record.graph, record.times[backend, precision])
        for record in records
    ]
    grounds = f"measured in {backend} {precision}: " + ", ".join(f"{m.what} {m.ms:.3g} ms" for m in measured)
    return Device(records[0].device, roofline_through(measured, NUMBER_BYTES.get(precision, 4)), grounds)


def from_papers(device: str, family: str) -> Device:
    """A device at its published speeds, otherwise estimated from its peak.

    device: its name, or "auto" for that of this machine, or a V100 if that is unknown.
    Raises BadArgument `device` if it is unknown.
    """
    known = sorted({*(speed.device for speed in _speeds()), *PEAK_TFLOPS})
    remark = ""
    if device == "auto":
        wanted = describe(torch.device("cuda")) if torch.cuda.is_available() else "no GPU"
        name = _match(wanted, known)
        if name is None:
            name = V100
            remark = f"; assumed, because this machine is unknown ({wanted})"
    else:
        name = _match(device, known)
        if name is None:
            raise BadArgument("device", f"= {device}: unknown device; known: {', '.join(known)}")
    speeds = _speeds_on(name, family)
    if speeds:
        grounds = "assumption: the published speeds at batch 1, taken to be float16: " + ", ".join(
            f"{speed.model} {speed.size} px {speed.fps:g}/s" for speed in speeds
        )
        return Device(name, _published_roofline(speeds), grounds + remark, bool(remark))
    use = GPU_USE["yolov4-csp"]
    share = use.fps / use.ideal_fps
    starts = _published_roofline(_speeds_on(V100, family)).us_per_convolution
    grounds = (
        f"assumption: {100 * share:.2g} % of the peak of {PEAK_TFLOPS[name]} TFLOP/s in float16, yolov4-csp's "
        "share on a V100 at batch 1, convolutions launched as fast as on the papers' host, no limit by memory traffic"
    )
    roofline = Roofline(PEAK_TFLOPS[name] * 1e3 * share, us_per_convolution=starts)
    return Device(name, roofline, grounds + remark, bool(remark))


def _published_roofline(speeds: Sequence[Speed]) -> Roofline:
    measured = [Measurement(s.model, count(s.model).at(s.size), 1e3 / s.fps) for s in speeds]
    return roofline_through(measured, number_bytes=2)


def _speeds_on(device: str, family: str) -> list[Speed]:
    """Speeds of the family, or of all models if it has none; fastest first."""
    speeds = sorted((s for s in _speeds() if s.device == device), key=lambda speed: -speed.fps)
    return [speed for speed in speeds if speed.model.startswith(family)] or speeds


def _speeds() -> list[Speed]:
    """Published speeds at batch 1, except those measured in Darknet."""
    return [speed for speed in printed_speeds() if speed.batch == 1 and speed.how != "Darknet"]


def _match(text: str, known: Sequence[str]) -> str | None:
    """The first known device whose name occurs in the text as whole words."""
    for name in known:
        short = re.escape(SHORT_NAMES.get(name, name))
        if re.search(rf"(?<![a-z0-9]){short}(?![a-z0-9])", text, re.IGNORECASE):
            return name
    return None


def _record(path: Path) -> Record:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        times = {
            (row["backend"], row["precision"]): float(row["inference_ms"]["p50"])
            for row in record["rows"]
            if row["batch"] == 1
        }
        if not all(ms > 0 for ms in times.values()):
            raise ValueError("a time that is not above 0")
        counted = record.get("graph")  # missing from older records: assume the published model
        graph = Footprint(**counted) if counted else count(record["model"]).at(record["size"])
        return Record(record["model"], record["device"]["name"], graph, times)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{path}: not a record of the benchmark ({type(error).__name__}: {error})") from None
