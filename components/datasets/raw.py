"""What every source of `prepare` hands over: images and boxes as found, before any check."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Resolved:
    """What a source would give now, found out without fetching it.

    fingerprint: equal only where the data are the same, whatever it is made of; None where that cannot be told.
    changes: parameters that name just these data ("prepare.revision=..."), where those given may come to mean others.
    """

    fingerprint: str | None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One image or box that is left out, and why."""

    split: str
    kind: Literal["image", "box"]
    item: str
    reason: str


@dataclass(frozen=True, slots=True)
class RawImage:
    """An image file of a source.

    id: the source's image id; name: file name in the prepared folder, with no folder part;
    path: where the file should be; size_px: recorded (width, height), None where none is recorded;
    extra: COCO fields to carry along (licence and addresses).
    """

    id: int
    name: str
    path: Path
    size_px: tuple[float, float] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawBox:
    """A label as found; `xywh` and `area` may hold anything.

    id: annotation id, None for the next free one; where: how a person finds it again (annotation id or file:line).
    """

    id: int | None
    image_id: Any
    category_id: Any
    xywh: Any
    where: str
    area: Any = None
    crowd: bool = False


@dataclass
class RawSplit:
    """Images and boxes of "train" or "val".

    fractions: the boxes are fractions of the image's sides instead of pixels.
    quarantined: what the source could not even turn into an image or a box.
    """

    images: list[RawImage]
    boxes: list[RawBox]
    fractions: bool = False
    quarantined: list[Quarantined] = field(default_factory=list)


@dataclass
class RawDataset:
    """Both splits with their COCO categories (ids as in the source) and what the COCO files say of their origin."""

    categories: list[dict[str, Any]]
    splits: dict[str, RawSplit]
    info: dict[str, Any] = field(default_factory=dict)
    licenses: list[dict[str, Any]] = field(default_factory=list)
