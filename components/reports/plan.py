"""The command `plan`: a detector for a time limit, with what it was weighed against."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from components.files import require
from yolo_core.device import describe
from yolo_core.errors import UserError
from yolo_core.models.cost import Footprint
from yolo_core.models.planner import (
    Candidate,
    Limits,
    Measurement,
    Plan,
    Roofline,
    count,
    plan,
    roofline_through,
    tiers_of,
)
from yolo_core.models.published import GPU_USE, PEAK_TFLOPS, V100, Speed, printed_speeds

# How a device that is known is recognised in a longer name, where its own is not: a driver says "Tesla V100-SXM2-16GB".
SHORT_NAMES = {V100: "V100", "RTX 2080 Ti": "2080 Ti", "Tesla T4": "T4", "Jetson AGX Xavier": "Xavier"}
NUMBER_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
TRAINING = "train GiB"  # shown where it is limited
COLUMNS = ("step", "candidate", "stages", "params M", "GFLOPs", "CIO M", "GiB", TRAINING, "ms", "", "why")
LEFT = ("step", "candidate", "why")
WIDTH = 150  # columns of text where the output is not a terminal


@dataclass(frozen=True)
class Device:
    """A device to plan for, how fast it is taken to be, and on what grounds."""

    name: str
    roofline: Roofline
    grounds: str


@dataclass(frozen=True)
class Record:
    """What a record of the benchmark stage says of batch 1: median inference ms by (backend, precision)."""

    model: str
    device: str
    graph: Footprint
    times: dict[tuple[str, str], float]


def run(
    *, limits: dict[str, Any], family: str, device: str = "auto", benchmarks: Sequence[Path] = (), classes: int = 80
) -> None:
    """Print the candidates, why each was kept or dropped, and the choice.

    limits: fields of `Limits`. Raises UserError for an unknown family or device, values out of range, a file that is no
    record of the benchmark, and where nothing fits.
    """
    allowed = Limits(**limits)
    tiers_of(family)  # a wrong name ends here, before anything is counted
    with Console(stderr=True).status("counting the graphs"):
        target = from_records(benchmarks, device) if benchmarks else from_papers(device, family)
        found = plan(family, allowed, target.roofline, classes=classes)
    out = Console()
    _print(out if out.is_terminal else Console(width=WIDTH), found, target, allowed)


def from_records(paths: Sequence[Path], device: str) -> Device:
    """The device that these benchmark records were measured on, in the fastest backend that all of them have."""
    records = [_record(path) for path in paths]
    measured_on = sorted({record.device for record in records})
    if device != "auto":
        records = [record for record in records if device.lower() in record.device.lower()]
        if not records:
            raise UserError(f"device: no record of {device!r}; they are of {', '.join(measured_on)}")
    if len({record.device for record in records}) > 1:
        raise UserError(f"device: the records are of {' and of '.join(measured_on)}; pick one with --device")
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
    """A device as the papers measured it, else by its peak; `auto` is this machine's, or V100 where it is unknown."""
    known = sorted({*(speed.device for speed in _speeds()), *PEAK_TFLOPS})
    remark = ""
    if device == "auto":
        wanted = describe(torch.device("cuda")) if torch.cuda.is_available() else "no GPU"
        name = _match(wanted, known)
        if name is None:
            name = V100
            remark = f"; assumed, because nothing is known of this machine ({wanted}): measure it and give --benchmark"
    else:
        name = _match(device, known)
        if name is None:
            raise UserError(f"device: nothing is known of {device!r}; known: {', '.join(known)}; or give --benchmark")
    speeds = _speeds_on(name, family)
    if speeds:
        grounds = "assumption: the published speeds at batch 1, taken to be float16: " + ", ".join(
            f"{speed.model} {speed.size} px {speed.fps:g}/s" for speed in speeds
        )
        return Device(name, _published_roofline(speeds), grounds + remark)
    use = GPU_USE["yolov4-csp"]
    share = use.fps / use.ideal_fps
    starts = _published_roofline(_speeds_on(V100, family)).us_per_convolution
    grounds = (
        f"assumption: {100 * share:.2g} % of the peak of {PEAK_TFLOPS[name]} TFLOP/s in float16, as yolov4-csp uses of "
        "a V100 at batch 1, convolutions started as fast as the papers' host does, and no limit by memory traffic"
    )
    return Device(name, Roofline(PEAK_TFLOPS[name] * 1e3 * share, us_per_convolution=starts), grounds + remark)


def _published_roofline(speeds: Sequence[Speed]) -> Roofline:
    measured = [Measurement(s.model, count(s.model).at(s.size), 1e3 / s.fps) for s in speeds]
    return roofline_through(measured, number_bytes=2)


def _speeds_on(device: str, family: str) -> list[Speed]:
    """Of the family where there are any, else of all models; from fast to slow."""
    speeds = sorted((s for s in _speeds() if s.device == device), key=lambda speed: -speed.fps)
    return [speed for speed in speeds if speed.model.startswith(family)] or speeds


def _speeds() -> list[Speed]:
    """Printed speeds at batch 1, without the Darknet program's."""
    return [speed for speed in printed_speeds() if speed.batch == 1 and speed.how != "Darknet"]


def _match(text: str, known: Sequence[str]) -> str | None:
    """The known device whose name stands in the text, as whole words."""
    for name in known:
        short = re.escape(SHORT_NAMES.get(name, name))
        if re.search(rf"(?<![a-z0-9]){short}(?![a-z0-9])", text, re.IGNORECASE):
            return name
    return None


def _record(path: Path) -> Record:
    try:
        record = json.loads(require(path, "benchmark").read_text(encoding="utf-8"))
        times = {
            (row["backend"], row["precision"]): float(row["inference_ms"]["p50"])
            for row in record["rows"]
            if row["batch"] == 1
        }
        if not all(ms > 0 for ms in times.values()):
            raise ValueError("a time that is not above 0")
        counted = record.get("graph")  # missing in records of before: taken to be the published model
        graph = Footprint(**counted) if counted else count(record["model"]).at(record["size"])
        return Record(record["model"], record["device"]["name"], graph, times)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a record of `scaled-yolov4 benchmark` ({type(error).__name__}: {error})"
        ) from None


def _print(out: Console, found: Plan, device: Device, limits: Limits) -> None:
    table = Table(title=f"Plan for {limits.latency_ms:g} ms on {device.name}")
    columns = [column for column in COLUMNS if column != TRAINING or limits.training_gib is not None]
    for column in columns:
        table.add_column(
            column, justify="left" if column in LEFT else "right", no_wrap=column not in ("why", "candidate")
        )
    for row in found.rows:
        style = "bold" if row.kept and row.candidate == found.choice else None
        figures = _figures(row.candidate, device.roofline)
        table.add_row(row.step, *figures, "+" if row.kept else "-", row.reason, style=style)
    out.print(table)
    for line in (
        "CIO: elements that the convolutions read and write. GiB: inference at batch 1.",
        f"ms: predicted inference at batch 1 from {_reached(device.roofline)}; {device.grounds}.",
        *(["*: beyond the measured graphs, so extrapolated."] if _extrapolates(found, device) else []),
        "",
        f"Choice: {found.choice}, {found.choice.latency_ms:.1f} of {limits.latency_ms:g} ms; training takes "
        f"{found.training_gib:.1f} GiB at batch {limits.training_batch} in float32 without checkpointing.",
        f"Next: {_next_commands(found.choice)}",
    ):
        out.print(line, soft_wrap=True, highlight=False, markup=False)


def _reached(roofline: Roofline) -> str:
    parts = [f"{roofline.gflops_per_s / 1e3:.3g} TFLOP/s"]
    if roofline.gbytes_per_s:
        parts.append(f"{roofline.gbytes_per_s:.3g} GB/s")
    if roofline.us_per_convolution:
        parts.append(f"{roofline.us_per_convolution:.4g} us a convolution")
    return ", ".join(parts)


def _extrapolates(found: Plan, device: Device) -> bool:
    return not all(device.roofline.covers(row.candidate.graph) for row in found.rows)


def _next_commands(choice: Candidate) -> str:
    """Anchors and training of the choice, whatever the parameter file says of the model."""
    dials = {"width": choice.width, "depth": choice.depth}
    options = "".join(f" --{name} {value:g}" for name, value in dials.items() if value != 1)
    size = f"-S train.per_model.{choice.model}.size={choice.size}"
    return (
        f"scaled-yolov4 anchors -S 'models=[{choice.model}]' {size} && "
        f"scaled-yolov4 train --model {choice.model}{options} {size}"
    )


def _figures(candidate: Candidate, roofline: Roofline) -> tuple[str, ...]:
    graph = candidate.graph
    beyond = "" if roofline.covers(graph) else "*"
    return (
        str(candidate),
        str(candidate.stages),
        f"{candidate.params_m:.1f}",
        f"{graph.gflops:.1f}",
        f"{graph.io / 1e6:.0f}",
        f"{candidate.memory_gib:.2f}",
        *([] if candidate.training_gib is None else [f"{candidate.training_gib:.1f}"]),
        f"{candidate.latency_ms:.1f}{beyond}",
    )
