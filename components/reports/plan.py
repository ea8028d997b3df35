"""The command `plan`: prints a detector for a latency limit, and the candidates it was chosen from."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from components.files import require
from components.reports.console import console
from yolo_core.errors import BadArgument, advised, known_as
from yolo_core.models.planner import Candidate, Limits, Plan, plan, tiers_of
from yolo_core.models.planning_device import Device, from_papers, from_records
from yolo_core.models.roofline import Roofline

TRAINING = "train GiB"  # shown if limited
COLUMNS = ("step", "candidate", "stages", "params M", "GFLOPs", "CIO M", "GiB", TRAINING, "ms", "", "why")
LEFT = ("step", "candidate", "why")


def run(
    *,
    limits: Limits,
    family: str,
    device: str = "auto",
    benchmarks: Sequence[Path] = (),
    classes: int = 80,
) -> None:
    """Print the candidates, why each was kept or dropped, and the choice.

    Raises UserError for an unknown family or device, a file that is not a benchmark record, and if nothing fits.
    """
    tiers_of(family)  # an unknown name fails here, before anything is counted
    with Console(stderr=True).status("counting the graphs"):
        target = _target(device, family, benchmarks)
        found = plan(family, limits, target.roofline, classes=classes)
    _print(console(), found, target, limits)


def _target(device: str, family: str, benchmarks: Sequence[Path]) -> Device:
    """The device to plan for; its errors name the options."""
    with known_as(device="--device"):
        if benchmarks:
            with advised("give a benchmark.json of `scaled-yolov4 benchmark`"):
                return from_records([require(path, "benchmark") for path in benchmarks], device)
        try:
            return from_papers(device, family)
        except BadArgument as error:
            raise BadArgument(error.argument, f"{error.problem}; or give --benchmark") from None


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
    grounds = device.grounds + (": measure it and give --benchmark" if device.is_assumed else "")
    for line in (
        "CIO: elements that the convolutions read and write. GiB: inference at batch 1.",
        f"ms: predicted inference at batch 1 from {_reached(device.roofline)}; {grounds}.",
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
    """The commands for anchors and training of the choice, whatever the parameter file says about the model."""
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
