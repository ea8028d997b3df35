"""What `init` says about the data, and what to expect of the training."""

from pathlib import Path

from components.datasets.prepared import load_prepared
from components.project import near_duplicates
from components.project.machine import Machine
from components.project.proposal import SCRATCH_IMAGES, Proposal, Start
from components.project.survey import Survey
from yolo_core.progress import Progress

FEW_BOXES = 20  # of a class: too few to learn it
SHOWN, SHOWN_CLASSES = 3, 8
MINUTES_PER_HOUR = 60


def about(survey: Survey) -> list[str]:
    """What the data hold."""
    counted = sorted(survey.classes.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {count}" for name, count in counted[:SHOWN_CLASSES])
    more = f" and {len(counted) - SHOWN_CLASSES} more" if len(counted) > SHOWN_CLASSES else ""
    return [
        f"data: {survey.train_images} training and {survey.val_images} validation images, median longer side "
        f"{survey.image_side} px",
        f"boxes: {survey.boxes} for training in {len(counted)} classes: {shown}{more}",
        f"small objects (below 32 x 32 px): {survey.small:.0%}",
    ]


def hints(survey: Survey, prepared: Path, progress: Progress) -> list[str]:
    """What will cost accuracy, or make it look better than it is."""
    found = []
    if rare := [f"{name} {count}" for name, count in survey.classes.items() if count < FEW_BOXES]:
        more = f" and {len(rare) - SHOWN} more" if len(rare) > SHOWN else ""
        found.append(f"classes with fewer than {FEW_BOXES} training boxes: {', '.join(rare[:SHOWN])}{more}")
    train, val = (load_prepared(prepared, split) for split in ("train", "val"))
    if pairs := near_duplicates.find(train, val, progress):
        shown = ", ".join(f"{pair.val.name} and {pair.train.name}" for pair in pairs[:SHOWN])
        found.append(
            f"{len(pairs)} of {len(val)} validation images show nearly the same as a training image, so AP will be too "
            f"high: {shown}; keep such images together with prepare.group_pattern"
        )
    return found


def expected(proposal: Proposal, machine: Machine, survey: Survey, start: Start | None) -> list[str]:
    """The model, and what to expect."""
    speed = proposal.speed
    lines = [
        f"machine: {machine.name}, training in {machine.precision}",
        f"measured: {proposal.model} trains {speed.images_per_second:.1f} images/s in {speed.memory_gib:.1f} GiB; "
        f"the training takes {duration(proposal.hours)}",
    ]
    if start is None and survey.train_images < SCRATCH_IMAGES:
        lines.append(
            f"from random weights: with fewer than {SCRATCH_IMAGES} images expect much less than from a trained "
            "detector; --weights FILE fine-tunes one"
        )
    return lines


def duration(hours: float) -> str:
    minutes = max(1, round(hours * MINUTES_PER_HOUR))
    return f"about {minutes} min" if minutes < 2 * MINUTES_PER_HOUR else f"about {hours:.0f} h"
