"""The command `import-weights`: convert the authors' published weights to this project's detector file."""

from pathlib import Path

from yolo_core.data.coco_classes import COCO_CLASSES
from yolo_core.errors import UserError, known_as
from yolo_core.models import build_model
from yolo_core.models.official_weights import load_official
from yolo_core.models.weights import save_detector


def run(
    *, model: str, source: Path, out: Path, names: Path | None, size: int | None, force: bool
) -> dict[str, int | str]:
    """Write `out` from the file `source`; returns how many tensors were matched.

    names: a file with one class name per line, None for COCO's 80. size: input pixels that the anchors refer to, None
    for the published size. Raises UserError if the file is not of this model, or `out` exists.
    """
    if out.exists() and not force:
        raise UserError(f"{out}: already exists; give another --out, or --force to replace it")
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: must end in .safetensors")
    classes = _class_names(names) if names else list(COCO_CLASSES)
    detector = build_model(model, len(classes))
    with known_as(size="--size"):
        pixels = detector.spec.native_size if size is None else detector.spec.checked_size(size)
    report = load_official(detector, source)
    made_from = {"imported_from": source.name, "absent": report.absent}
    save_detector(out, detector, classes=classes, size=pixels, extra=made_from)
    return {
        "tensors matched": len(report.matched),
        "absent": len(report.absent),
        "unused": ", ".join(report.unused[:3]) + (", ..." if len(report.unused) > 3 else "") or "none",
        "anchors": "of the file" if report.anchors else "published",
    }


def _class_names(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--names {path}: cannot be read ({error})") from None
    names = [name for name in names if name]
    if not names:
        raise UserError(f"--names {path}: has no names; one class a line")
    return names
