"""A small YOLO layout on disk for the tests of `prepare`, to be changed and spoiled."""

import json
from pathlib import Path

from coco_source import encoded, parameters, pixels

from components.stages import prepare


class YoloFolder:
    """images/{train,val}/{a,b}.jpg of 100x50 px, labels beside, classes.txt with two names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for split in ("train", "val"):
            for number, name in enumerate("ab"):
                self.write(f"images/{split}/{name}.jpg", encoded(pixels(100, 50, number)))
                self.write(f"labels/{split}/{name}.txt", b"0 0.5 0.5 0.2 0.4\n")
        self.write("classes.txt", b"cat\ndog\n")

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def prepared(self, out: Path, location: Path | None = None, limit: float = 0.9) -> tuple[dict, dict]:
        """(manifest, training annotations) after preparing."""
        options = [f"prepare.location={location or self.root}", f"prepare.max_bad_fraction={limit}"]
        prepare.run(parameters("prepare.source=yolo-dir", *options), out=out)
        manifest = json.loads((out / "manifest.json").read_text())
        return manifest, json.loads((out / "annotations/instances_train.json").read_text())


def names(document: dict) -> list[str]:
    """The images of a COCO document, by file name."""
    return [image["file_name"] for image in document["images"]]


def boxes(document: dict) -> dict[str, int]:
    """Boxes by image name."""
    owners = [annotation["image_id"] for annotation in document["annotations"]]
    return {image["file_name"]: owners.count(image["id"]) for image in document["images"]}
