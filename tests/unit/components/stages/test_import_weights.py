"""The command that turns the authors' files into detector files."""

from pathlib import Path

import pytest
import torch

from components.stages import import_weights
from yolo_core.errors import UserError
from yolo_core.models import build_model
from yolo_core.models.official_weights import PYTORCH_NAMES
from yolo_core.models.weights import load_detector

NAME = "yolov4-tiny"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file as the authors' code writes it, of two classes."""
    model = build_model(NAME, num_classes=2)
    names = PYTORCH_NAMES[NAME](model)
    path = tmp_path / "published.pt"
    torch.save({"model": {theirs: model.state_dict()[ours] for ours, theirs in names.items()}}, path)
    (tmp_path / "names.txt").write_text("cat\n\ndog\n")
    return path


def run(published: Path, **changes):
    folder = published.parent
    options = {"model": NAME, "source": published, "out": folder / "out.safetensors", "names": folder / "names.txt"}
    return import_weights.run(**{**options, "size": None, "force": False, **changes})


def test_the_result_is_a_detector_of_the_named_classes(published: Path):
    facts = run(published, size=320)
    loaded = load_detector(published.parent / "out.safetensors")
    assert facts["tensors matched"] == len(loaded.model.state_dict())
    assert (loaded.classes, loaded.size) == (["cat", "dog"], 320)
    assert loaded.extra["imported_from"] == "published.pt"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": None}, "check the number of classes"),  # COCO's 80
        ({"size": 100}, "--size = 100: yolov4-tiny needs a multiple of 32 px"),
        ({"out": Path("a.pt")}, "must end in .safetensors"),
        ({"model": "yolov4-csp"}, "it has no tensor for"),
        ({"names": Path("none.txt")}, "--names none.txt: cannot be read"),
        ({"source": Path("none.pt")}, "none.pt: no such file"),
        ({"source": Path()}, r"damaged \(IsADirectoryError"),
    ],
)
def test_a_user_error_is_one_line(published: Path, changes: dict, message: str):
    with pytest.raises(UserError, match=message) as caught:
        run(published, **changes)
    assert "\n" not in str(caught.value)
    assert not (published.parent / "out.safetensors").exists()


def test_an_existing_file_is_replaced_only_with_force(published: Path):
    run(published)
    with pytest.raises(UserError, match="already exists; give another --out, or --force"):
        run(published)
    run(published, force=True, size=64)
    assert load_detector(published.parent / "out.safetensors").size == 64
