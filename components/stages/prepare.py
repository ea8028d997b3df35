"""The stage `prepare`: check images and labels from a source and write them as a dataset folder with a manifest."""

import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

from components.datasets import all_sources, label_report, manifest
from components.datasets.folder import building
from components.datasets.image_index import ImageIndex
from components.datasets.raw import RawDataset
from components.datasets.split_check import CheckedSplit, check_split
from components.datasets.validation_split import Division, divide
from components.files import MANIFEST, annotation_file
from components.params import Params
from yolo_core.atomic import write_text
from yolo_core.errors import UserError
from yolo_core.progress import Progress, silent

REASONS_SHOWN = 3


def run(params: Params, *, out: Path, work: Path | None = None, progress: Progress = silent) -> dict[str, object]:
    """Build the dataset folder `out` from the source in `params.prepare`; returns the manifest's counts.

    Downloads are kept in the folder `downloads` beside `out`. work: folder for the index of checked images, so that a
    later run reads only changed ones; None reads all. Raises UserError; if too much is quarantined, the report is in
    `<out>.quarantine.json`.
    """
    out = Path(out)
    report = out.with_name(f"{out.name}.quarantine.json")
    index = ImageIndex(work and work / "prepare" / f"{_short_hash(out)}.json", out)
    with building(out) as folder:
        scratch = folder / "scratch"
        scratch.mkdir()
        raw = all_sources.load(params, scratch=scratch, downloads=out.parent / "downloads", progress=progress)
        raw, division = divide(raw, params.prepare, index, progress)
        _report_reading(params, raw, division)
        ids = {record["id"] for record in raw.categories}
        splits = {
            name: check_split(name, split, ids, folder / "images" / name, index, progress)
            for name, split in raw.splits.items()
        }
        shutil.rmtree(scratch)
        _refuse_bad(splits, params.prepare.max_bad_fraction, report)
        document = _write_documents(_source(params, division), raw, splits, folder)
    report.unlink(missing_ok=True)  # of an earlier, refused run
    index.save()
    sought = {name: split.labels_at for name, split in raw.splits.items()}
    _report_labels(document, sought, {name: split.sha256.values() for name, split in splits.items()})
    return _summary(document, index)


def _refuse_bad(splits: dict[str, CheckedSplit], limit: float, report: Path) -> None:
    """Raise UserError if more than `limit` of the images or boxes is quarantined, or a split has no images left."""
    found = sum((split.found for split in splits.values()), Counter())
    quarantined = [item for split in splits.values() for item in split.quarantined]
    refused = Counter(item.kind for item in quarantined)
    problem = None
    for kind, total in (("image", found["images"]), ("box", found["boxes"])):
        fraction = refused[kind] / total if total else 0.0
        if fraction > limit and problem is None:
            plural = "images" if kind == "image" else "boxes"
            problem = (
                f"{refused[kind]} of {total} {plural} ({fraction:.1%}) are bad, "
                f"more than prepare.max_bad_fraction = {limit:g} allows"
            )
    empty = next((name for name, split in splits.items() if not split.images), None)
    if problem is None and empty:
        problem = f"no usable image in split {empty!r}"
    if problem is None:
        return
    write_text(report, json.dumps(manifest.quarantine_report(quarantined, found), indent=1) + "\n")
    first = "; ".join(" ".join(f"{item.item}: {item.reason}".split()) for item in quarantined[:REASONS_SHOWN])
    raise UserError(f"{problem}; all reasons are in {report}{f', the first: {first}' if first else ''}")


def _write_documents(
    source: dict[str, object], raw: RawDataset, splits: dict[str, CheckedSplit], folder: Path
) -> manifest.Manifest:
    """Write the annotation files and the manifest; returns the manifest."""
    files = {}
    (folder / "annotations").mkdir()
    for name, split in splits.items():
        document = {
            "info": raw.info,
            "licenses": raw.licenses,
            "images": split.images,
            "annotations": split.boxes.annotations,
            "categories": raw.categories,
        }
        data = json.dumps(document).encode()
        path = annotation_file(name)
        (folder / path).write_bytes(data)
        files[path] = hashlib.sha256(data).hexdigest()
        files |= {f"images/{name}/{file}": digest for file, digest in split.sha256.items()}
    document = manifest.build(source, raw.categories, splits, files)
    (folder / MANIFEST).write_text(json.dumps(document, indent=1) + "\n")
    return document


def _report_reading(params: Params, raw: RawDataset, division: Division | None) -> None:
    """Say in one line what a folder was taken for, what was left out and how validation images were split off."""
    if raw.reading is None:
        return
    parts = [f"prepare: {params.prepare.location}: read as {raw.reading.layout}{raw.reading.why}"]
    if raw.reading.left_out:
        parts.append(f"not read: {', '.join(raw.reading.left_out)}")
    if division:
        parts.append(str(division))
    elif params.prepare.val_fraction is not None:
        parts.append("prepare.val_fraction is not used, because there is a validation split")
    print("; ".join(parts), file=sys.stderr, flush=True)


def _report_labels(document: manifest.Manifest, sought: dict[str, str], digests: Mapping[str, Collection[str]]) -> None:
    """Say how many images and boxes of each kind there are, and warn about likely mistakes.

    By split: sought, where labels were looked for; digests, those of the images.
    """
    splits = document["splits"]
    warnings = [
        *label_report.warnings(splits, sought),
        label_report.alike(category["name"] for category in document["categories"]),
        label_report.on_both_sides(digests["train"], digests["val"]),
    ]
    lines = [label_report.counts(name, found) for name, found in splits.items()]
    for line in [*lines, *(f"warning: {line}" for line in warnings if line)]:
        print(f"prepare: {line}", file=sys.stderr, flush=True)


def _source(params: Params, division: Division | None) -> dict[str, object]:
    """The parameters that determine the content."""
    source: dict[str, object] = {"kind": params.prepare.source}
    if division:
        source["validation"] = asdict(division)
    if params.prepare.classes:
        source["classes"] = params.prepare.classes
    if params.prepare.more:
        source["more"] = [more.model_dump(mode="json") for more in params.prepare.more]
    if params.prepare.source == "digits":
        return source | {"seed": params.seed, **params.prepare.digits.model_dump()}
    if params.prepare.source == "dvc":
        source |= {"path": params.prepare.path, "revision": params.prepare.revision}
    return source | {"location": params.prepare.location}


def _short_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]


def _summary(document: manifest.Manifest, index: ImageIndex) -> dict[str, object]:
    splits = document["splits"]
    return {
        **{f"{name}_images": split["images"] for name, split in splits.items()},
        **{f"{name}_boxes": split["boxes"] - split["crowd_boxes"] for name, split in splits.items()},
        **{f"{name}_crowd_boxes": split["crowd_boxes"] for name, split in splits.items() if split["crowd_boxes"]},
        "classes": len(document["categories"]),
        "quarantined": len(document["quarantine"]),
        "unchanged": index.reused,
        "converted": sum(entry["count"] for entry in document["conversions"].values()),
        "sha256": document["sha256"],
    }
