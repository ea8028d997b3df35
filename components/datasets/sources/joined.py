"""Joins subsets into one split: images and annotations get new ids, which each subset counts for itself."""

from collections.abc import Mapping
from dataclasses import replace

from components.datasets.raw import RawSplit


def joined(parts: Mapping[str, RawSplit]) -> RawSplit:
    """One split of all subsets, by name; names of images start with their subset's. A lone subset stays as it is."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    places = " and ".join(part.labels_at for part in parts.values())
    whole = RawSplit([], [], labels_at=places)
    images = boxes = 0
    for subset, part in parts.items():
        image_ids = {old: images + new for new, old in enumerate(dict.fromkeys(image.id for image in part.images), 1)}
        box_ids = {old: boxes + new for new, old in enumerate(dict.fromkeys(box.id for box in part.boxes if box.id), 1)}
        images, boxes = images + len(image_ids), boxes + len(box_ids)
        whole.images += [replace(image, id=image_ids[image.id], name=f"{subset}_{image.name}") for image in part.images]
        whole.boxes += [
            replace(
                box,
                id=box_ids.get(box.id) if box.id else None,
                image_id=_renumbered(box.image_id, image_ids, subset),
                where=f"{subset}: {box.where}",
            )
            for box in part.boxes
        ]
        whole.quarantined += [
            item
            if item.missing_from is None
            else replace(item, missing_from=_renumbered(item.missing_from, image_ids, subset))
            for item in part.quarantined
        ]
    return whole


def _renumbered(found: object, ids: dict[int, int], subset: str) -> object:
    """The new id; one that no image of the subset has stays unknown."""
    known = ids.get(found) if isinstance(found, int) and not isinstance(found, bool) else None
    return f"{found} of {subset}" if known is None else known
