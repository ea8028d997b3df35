"""What `prepare` says of images and labels: counts for each split, and warnings, most where nearly all are of one kind.

Labels in the wrong unit or order are mostly valid boxes. One of them proves nothing, but all of them together do.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from components.datasets import class_names
from components.datasets.manifest import SplitCounts

NEARLY_ALL = 0.9
GROUPS_SHOWN = 3
OFTEN_CROWD = 0.25  # more than in any dataset that means it: VOC has a fifth of difficult objects, COCO 1 %
CROWDS = "; did you mean to set iscrowd (VOC: difficult)? CVAT sets it for every mask"
AS_SEEN = "; their labels record no size, so boxes are read in the rotated image, as viewers show it"
AS_STORED = "; the recorded size ignores EXIF rotation, so boxes are read in the unrotated image"
# Corners read as x y width height: boxes that start further left and above than their width and height, of which
# those right of or below the middle leave the image. True of hardly any dataset that is read correctly.
LIKE_CORNERS, AND_CLIPPED = 0.99, 0.25


def counts(split: str, found: SplitCounts) -> str:
    """The line of counts of a split."""
    crowd, images, boxes = found["crowd_boxes"], found["quarantined_images"], found["quarantined_boxes"]
    quarantined = f"; quarantined: {images} images, {boxes} boxes" if images or boxes else ""
    if found["partly_labelled_images"]:
        quarantined += f"; images used without some of their boxes: {found['partly_labelled_images']}"
    return (
        f"{split}: {found['images']} images, {found['background_images']} of them background (no labels); "
        f"{found['boxes'] - crowd} boxes, {crowd} crowd boxes (not trained on), "
        f"{found['clipped_boxes']} clipped, {found['boxes_below_a_pixel']} below a pixel{quarantined}"
    )


def warnings(splits: Mapping[str, SplitCounts], sought: Mapping[str, str]) -> list[str]:
    """At most one line per kind. sought: where labels were looked for, by split."""
    places = " and ".join(dict.fromkeys(place for split in splits if (place := sought.get(split))))
    looked_for = f"; labels were looked for in {places}" if places else ""
    lines = [
        _line(splits, "images without labels", "background_images", "images", looked_for),
        _line(splits, "crowd boxes, which are not trained on", "crowd_boxes", "boxes", CROWDS, _crowds),
        _line(splits, "boxes clipped at the edge", "clipped_boxes", "boxes", "; are they x1 y1 x2 y2?", _corners),
        _line(splits, "boxes smaller than a pixel", "boxes_below_a_pixel", "boxes", "; are these fractions?"),
        _line(splits, "16-bit images without contrast in 8 bits", "narrow_images", "images", "; scale them first"),
        _line(splits, "images left without their EXIF rotation", "unrotated_images", "images", AS_STORED, _unrotated),
        _line(splits, "images turned by their EXIF rotation", "turned_images", "images", AS_SEEN, _turned),
    ]
    return [line for line in lines if line]


def alike(names: Iterable[str]) -> str | None:
    """The line about class names that may be one."""
    groups = [" and ".join(map(repr, group)) for group in class_names.alike(names)]
    shown = ", ".join(groups[:GROUPS_SHOWN]) + (", ..." if len(groups) > GROUPS_SHOWN else "")
    return f"class names that are nearly the same: {shown}; if they mean one class, merge them" if groups else None


def on_both_sides(train: Collection[str], val: Collection[str]) -> str | None:
    """The line about validation images that are training images. train, val: digests of the images."""
    known = set(train)
    count = sum(digest in known for digest in val)
    if not count:
        return None
    return f"validation images that are also training images: {count} of {len(val)}; AP will be too high"


def _nearly_all(found: SplitCounts, part: str, whole: str) -> bool:
    return found[whole] > 0 and found[part] >= NEARLY_ALL * found[whole]


def _crowds(found: SplitCounts) -> bool:
    return found["crowd_boxes"] > OFTEN_CROWD * found["boxes"]


def _corners(found: SplitCounts) -> bool:
    return (
        found["boxes"] > 0
        and found["boxes_like_corners"] >= LIKE_CORNERS * found["boxes"]
        and found["clipped_boxes"] >= AND_CLIPPED * found["boxes"]
    )


def _unrotated(found: SplitCounts) -> bool:
    return found["unrotated_images"] > 0


def _turned(found: SplitCounts) -> bool:
    return found["turned_images"] > 0


def _line(
    splits: Mapping[str, SplitCounts],
    what: str,
    part: str,
    whole: str,
    hint: str,
    also: Callable[[SplitCounts], bool] = lambda found: False,
) -> str | None:
    shares = [
        f"{found[part]} of {found[whole]} in {split}"
        for split, found in splits.items()
        if _nearly_all(found, part, whole) or also(found)
    ]
    return f"{what}: {', '.join(shares)}{hint}" if shares else None
