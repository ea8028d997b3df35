"""What every source of `prepare` delivers: images and boxes as found, before any check."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

SPLITS = ("train", "val")


class Category(TypedDict):
    """A COCO category; other fields of the source are kept."""

    id: int
    """Id in the source."""
    name: str
    supercategory: NotRequired[str]


class Attribution(TypedDict, total=False):
    """COCO's fields of an image that are kept for attribution, whatever they hold."""

    license: object
    coco_url: object
    flickr_url: object
    date_captured: object


@dataclass(frozen=True)
class Resolved:
    """What a source would deliver now, found out without fetching it."""

    fingerprint: str | None
    """Equal only if the data are the same; None if unknown."""
    changes: tuple[str, ...] = ()
    """Parameters that pin exactly these data ("prepare.revision=..."), if the given ones may come to mean others."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An image or box that is left out."""

    split: str
    kind: Literal["image", "box"]
    item: str
    """How a person finds it: a file name, an annotation id or file:line."""
    reason: str
    missing_from: object = None
    """Id of the image that lost this box; None if unknown or if the box was a duplicate."""


@dataclass(frozen=True, slots=True)
class RawImage:
    """An image file of a source."""

    id: int
    """Id in the source."""
    name: str
    """File name in the prepared folder, without a folder."""
    path: Path
    """Where the file should be."""
    size_px: tuple[float, float] | None = None
    """Recorded (width, height), if any."""
    extra: Attribution = field(default_factory=Attribution)


@dataclass(frozen=True, slots=True)
class RawBox:
    """A label as found: fields of type `object` may hold anything."""

    id: int | None
    """Annotation id; None takes the next free one."""
    image_id: object
    category_id: object
    xywh: object
    """Left, top, width, height, in the unit that `fractions` names."""
    where: str
    """How a person finds it: annotation id or file:line."""
    area: object = None
    crowd: bool = False
    fractions: bool = False
    """Whether it is in fractions of the image's sides, instead of pixels."""


@dataclass
class RawSplit:
    """Images and boxes of "train" or "val"."""

    images: list[RawImage]
    boxes: list[RawBox]
    quarantined: list[Quarantined] = field(default_factory=list)
    """What the source could not even turn into an image or a box."""
    labels_at: str = ""
    """Where its labels were looked for."""


@dataclass(frozen=True)
class Reading:
    """How a folder was read."""

    root: Path
    """The folder that images are named from."""
    layout: str
    """What its layout was taken for, in words for a person."""
    left_out: list[str] = field(default_factory=list)
    """Subsets that were not read."""
    why: str = ""
    """Why it was taken for that, if it could have been another layout."""


@dataclass
class RawDataset:
    """The splits of a source."""

    categories: list[Category]
    splits: dict[str, RawSplit]
    """The splits by name: "train", and "val" unless the source has no validation split."""
    info: dict[str, object] = field(default_factory=dict)
    """COCO's `info`: where the dataset comes from."""
    licenses: list[object] = field(default_factory=list)
    """COCO's `licenses`."""
    reading: Reading | None = None
    """None for a source that is not a folder of the user's."""
