"""The detector as one object: opened from a file, applied to images."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypedDict, TypeVar, Unpack, overload

import cv2
import numpy as np
import torch

from yolo_core.ahead import ahead, batched_while
from yolo_core.data.image import fitted, resize
from yolo_core.data.letterbox import Letterbox, canvas, centred
from yolo_core.device import pick_device
from yolo_core.errors import BadArgument, UserError
from yolo_core.evaluate.nms import nms
from yolo_core.evaluate.predict import to_device, to_image
from yolo_core.evaluate.suppression import Suppression
from yolo_core.evaluate.tta import Plain
from yolo_core.inference.pixels import Image, rgb
from yolo_core.inference.result import Result
from yolo_core.inference.runtimes import Runtime, open_runtime
from yolo_core.inference.tiling import Region, Tiling, is_cut, merged
from yolo_core.inference.weights_file import local_file
from yolo_core.recipes import RecipeName


class Prepared(NamedTuple):
    """An image on its canvas."""

    image: np.ndarray
    """RGB (H, W, 3) uint8."""
    planes: torch.Tensor
    """The canvas: RGB (3, h, w) uint8."""
    letterbox: Letterbox
    """Where the image is on the canvas."""
    name: str
    """Where it comes from."""

    @property
    def canvas(self) -> Hashable:
        """The size of the canvas."""
        return self.planes.shape


class Options(TypedDict, total=False):
    """The options of `Detector.predict`, described there."""

    conf: float
    iou: float
    max_detections: int
    batch: int


if TYPE_CHECKING:
    from yolo_core.train import EpochReport

P = TypeVar("P", bound="HasCanvas")


class HasCanvas(Protocol):
    """An image made ready for a detector."""

    @property
    def canvas(self) -> Hashable:
        """What images that are run together have in common."""
        ...


class ImageDetector(ABC, Generic[P]):
    """What finds objects in images: a detector, or one that looks at tiles."""

    classes: tuple[str, ...]
    """Class names by index."""

    @abstractmethod
    def prepare(self, image: Image) -> P:
        """Decode an image and place it on its canvas."""

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """What, besides the weights, decides how an image is looked at."""

    @abstractmethod
    def detect(self, prepared: Sequence[P], suppression: Suppression) -> list[Result]:
        """The detections in images of one canvas."""

    @overload
    def predict(self, images: list[Image] | tuple[Image, ...], **options: Unpack[Options]) -> list[Result]: ...

    @overload
    def predict(self, images: Image, **options: Unpack[Options]) -> Result: ...

    def predict(
        self,
        images: Image | list[Image] | tuple[Image, ...],
        *,
        conf: float = 0.25,
        iou: float = 0.65,
        max_detections: int = 300,
        batch: int = 1,
    ) -> Result | list[Result]:
        """The detections in one image, or in each of a list.

        images: a path, an encoded image as bytes, RGB pixels (H, W, 3) uint8, an image of Pillow, or a list of these.
        conf: lowest score, 0 to 1; iou: IoU threshold for NMS, per class; max_detections: per image.
        batch: images of equal size that are run together, at most.
        Raises BadFile for an image that cannot be decoded; ValueError and TypeError for what is not an image;
        BadArgument for a number out of its range.
        """
        one = not isinstance(images, list | tuple)
        some = [images] if one else images
        found = list(self.stream(some, conf=conf, iou=iou, max_detections=max_detections, batch=batch))
        return found[0] if one else found

    def stream(
        self,
        images: Iterable[Image],
        *,
        conf: float = 0.25,
        iou: float = 0.65,
        max_detections: int = 300,
        batch: int = 1,
    ) -> Iterator[Result]:
        """The detections in each of many images, such as the frames of a video, in order and in constant memory.

        Images are fetched and decoded by a thread, a few ahead. Arguments and exceptions are those of `predict`.
        """
        if batch < 1:
            raise BadArgument("batch", f"= {batch}: give a whole number from 1")
        return self.detections(images, checked(conf, iou, max_detections), batch)

    def detections(self, images: Iterable[Image], suppression: Suppression, batch: int = 1) -> Iterator[Result]:
        """`stream` with given settings of NMS."""
        prepared = ahead(map(self.prepare, images), 2 * batch)
        for part in batched_while(prepared, batch, lambda one: one.canvas):
            yield from self.detect(part, suppression)


class Detector(ImageDetector[Prepared]):
    """A trained detector.

    >>> detector = Detector.load("model.safetensors")
    >>> result = detector.predict("photo.jpg")
    >>> results = detector.predict(["photo.jpg", "photo.jpg"], conf=0.5, batch=2)
    >>> [len(result.labels) == len(result.xyxy) for result in results]
    [True, True]
    """

    def __init__(self, runtime: Runtime, rect: bool | None = None) -> None:
        if rect and runtime.square:
            raise BadArgument("rect", f"= True: the {runtime.name} file takes only squares of {runtime.size} px")
        self.runtime = runtime
        self.rect = not runtime.square if rect is None else rect
        self.classes = runtime.classes

    @classmethod
    def load(
        cls,
        weights: str | Path,
        *,
        device: str = "auto",
        size: int | None = None,
        rect: bool | None = None,
        threads: int = 0,
    ) -> Detector:
        """Open a detector.

        weights: the model.safetensors of a training; an ONNX file, the .xml of OpenVINO or a TensorRT engine exported
            from one; or an address, such as "models:/NAME@champion" in an MLflow registry.
        device: auto, cpu, cuda or cuda:N; OpenVINO runs on the CPU.
        size: longer side of the input in px; None takes that of the training, the only one an exported file has.
        rect: canvases only as large as the image needs, as in evaluation; exported files take only squares. None: where
            possible. With rect=False all runtimes find the same boxes, but for rounding.
        threads: CPU threads of ONNX Runtime and OpenVINO, 0 lets them choose.
        Raises UserError for a file that is missing, damaged or of another kind, or for a missing package.
        """
        return cls(open_runtime(local_file(weights), pick_device(device), size=size, threads=threads), rect)

    @property
    def size(self) -> int:
        """Longer side of the input, px."""
        return self.runtime.size

    @classmethod
    def train(
        cls,
        model: str,
        data: str | Path,
        out: str | Path,
        *,
        epochs: int,
        size: int | None = None,
        batch: int = 16,
        width: float = 1.0,
        depth: float = 1.0,
        start_from: str | Path | None = None,
        recipe: RecipeName = "published",
        hyperparameters: Mapping[str, float] = {},
        seed: int = 0,
        device: str = "auto",
        on_epoch: Callable[[EpochReport], None] | None = None,
    ) -> Detector:
        """Train a detector by the model's recipe, with one worker, and open it.

        model: a name from `scaled-yolov4 models`; data: a dataset folder as `scaled-yolov4 prepare` writes it.
        out: the .safetensors file to write. Checkpoints are beside it, in <name>.work: the same call continues an
            interrupted training.
        size: longer side of the input, px; None for the published size. batch: images per step.
        width, depth: multipliers of the channels of every layer, and of the repeats of every block.
        start_from: a detector's file or address to start from; rows of classes with the same name are taken over.
        recipe: "published", "small" for few images or little time, or "fine-tune"; see `yolo_core.recipes`.
        hyperparameters: fields of `yolo_core.hyperparameters.Hyperparameters` that differ from the recipe.
        on_epoch: called with a report of each epoch.
        Raises UserError for arguments or data that do not fit, Diverged when the loss is no longer finite.
        """
        from yolo_core.inference.training import train

        train(
            model,
            Path(data),
            Path(out),
            epochs=epochs,
            size=size,
            batch=batch,
            width=width,
            depth=depth,
            start_from=local_file(start_from) if start_from else None,
            recipe=recipe,
            hyperparameters=hyperparameters,
            seed=seed,
            device=device,
            on_epoch=on_epoch,
        )
        return cls.load(out, device=device)

    def evaluate(
        self,
        data: str | Path,
        split: str = "val",
        *,
        batch: int = 16,
        conf: float = 0.001,
        iou: float = 0.65,
        max_detections: int = 300,
    ) -> dict[str, float | None]:
        """The 12 COCO figures by name, such as "AP" and "AP50" (0 to 1; None where there is no ground truth).

        data: a dataset folder as `scaled-yolov4 prepare` writes it; the other arguments are those of `predict`.
        Raises UserError for a folder that is none, or one of other classes.
        """
        from yolo_core.inference.scoring import evaluate

        suppression = checked(conf, iou, max_detections)
        return evaluate(self.runtime, Path(data), split, rect=self.rect, batch=batch, suppression=suppression)

    def export(self, path: str | Path) -> Path:
        """Write the detector as ONNX (.onnx) or for OpenVINO (.xml), and check what the file predicts.

        Raises UserError for another suffix, a missing package, or a detector that is an exported file itself;
        `yolo_core.inference.exporting.ExportError` if the file predicts something else.
        """
        from yolo_core.inference.exporting import export

        if not isinstance(self.runtime.predictor, Plain):
            raise UserError(f"{path}: exported from a {self.runtime.name} file; load the .safetensors of the training")
        export(self.runtime.predictor.model, Path(path), classes=self.classes, size=self.size)
        return Path(path)

    def tiled(self, size: int, overlap: float = 0.2, batch: int = 4) -> Tiled:
        """The same detector, looking at images in tiles as well.

        size: side of a tile, px of the image; overlap: least fraction of it that neighbours share, above the size of
            the objects that the whole image is too small for; batch: tiles that are run together, at most.
        Raises BadArgument for a size below 1, or an overlap outside 0 to 1.
        """
        return Tiled(self, Tiling(size, overlap), batch)

    def __repr__(self) -> str:
        return (
            f"<Detector of {len(self.classes)} classes, {self.size} px, {self.runtime.name} on {self.runtime.device}>"
        )

    def describe(self) -> dict[str, object]:
        """Size and shape of the input."""
        return {"input_px": self.size, "rect": self.rect}

    def prepare(self, image: Image) -> Prepared:
        """Decode an image and place it on its canvas."""
        pixels = rgb(image)
        height, width = pixels.shape[:2]
        resized = resize(pixels, *fitted(width, height, self.size))
        square = (self.size, self.size)
        fitting = canvas(resized.shape[0], resized.shape[1], self.runtime.stride)
        place = fitting if self.rect else square
        canvas_pixels, box = centred(resized, (width, height), place)
        planes = torch.empty((3, *place), dtype=torch.uint8)
        cv2.split(canvas_pixels, list(planes.numpy()))
        return Prepared(pixels, planes, box, str(image) if isinstance(image, str | Path) else "")

    @torch.no_grad()
    def detect(self, prepared: Sequence[Prepared], suppression: Suppression) -> list[Result]:
        """The detections in images whose canvases have one size, in one pass."""
        images = to_device(torch.stack([one.planes for one in prepared]), self.runtime.device)
        kept = nms(self.runtime.predictor(images), suppression)
        return [self._result(one, rows) for one, rows in zip(prepared, kept, strict=True)]

    def _result(self, one: Prepared, rows: torch.Tensor) -> Result:
        height, width = one.image.shape[:2]
        found = to_image(rows.numpy().astype(np.float64), one.letterbox, width, height)
        return Result(one.image, found[:, :4], found[:, 4], found[:, 5].astype(np.int64), self.classes, one.name)


class PreparedTiles(NamedTuple):
    """An image and its tiles, each on its canvas."""

    whole: Prepared
    tiles: list[Prepared]
    regions: list[Region]
    """Where the tiles are in the image."""

    @property
    def canvas(self) -> Hashable:
        """The same for all: images are looked at one by one, and the tiles of each are run together."""
        return None


class Tiled(ImageDetector[PreparedTiles]):
    """A detector that looks at each image whole and in overlapping tiles; see `yolo_core.inference.tiling`.

    >>> detector = Detector.load("model.safetensors").tiled(640, overlap=0.2)
    >>> result = detector.predict("photo.jpg")
    """

    def __init__(self, detector: Detector, tiling: Tiling, batch: int) -> None:
        self.detector, self.tiling, self.batch = detector, tiling, batch
        self.classes = detector.classes

    def prepare(self, image: Image) -> PreparedTiles:
        """Decode an image, cut it, and place each part on its canvas."""
        whole = self.detector.prepare(image)
        height, width = whole.image.shape[:2]
        regions = self.tiling.regions(width, height)
        tiles = [self.detector.prepare(whole.image[y1:y2, x1:x2]) for x1, y1, x2, y2 in regions]
        return PreparedTiles(whole, tiles, regions)

    def describe(self) -> dict[str, object]:
        """The input of the detector, and the tiles."""
        return {**self.detector.describe(), **asdict(self.tiling)}

    def detect(self, prepared: Sequence[PreparedTiles], suppression: Suppression) -> list[Result]:
        """The objects in each image, tiles and whole merged."""
        return [self._detect(one, suppression) for one in prepared]

    def _detect(self, one: PreparedTiles, suppression: Suppression) -> Result:
        (whole,) = self.detector.detect([one.whole], suppression)
        if not one.tiles:
            return whole
        height, width = whole.image.shape[:2]
        parts, cut = [_rows(whole)], [np.zeros(len(whole), bool)]
        tiles = (self.detector.detect(some, suppression) for some in batched_while(one.tiles, self.batch, _canvas_of))
        for result, region in zip(itertools.chain.from_iterable(tiles), one.regions, strict=True):
            rows = _rows(result)
            rows[:, :4] += region[:2] * 2
            parts.append(rows)
            cut.append(is_cut(rows[:, :4], region, width, height))
        found = merged(np.concatenate(parts), np.concatenate(cut), suppression)
        return replace(whole, xyxy=found[:, :4], score=found[:, 4], class_id=found[:, 5].astype(np.int64))


def _canvas_of(prepared: Prepared) -> Hashable:
    return prepared.canvas


def _rows(result: Result) -> np.ndarray:
    return np.column_stack([result.xyxy, result.score, result.class_id])


def checked(conf: float, iou: float, max_detections: int) -> Suppression:
    """The settings of NMS, in their ranges; BadArgument for another value."""
    for name, value in (("conf", conf), ("iou", iou)):
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:  # NaN is in no range
            raise BadArgument(name, f"= {value}: give a number from 0 to 1")
    if isinstance(max_detections, bool) or not isinstance(max_detections, int) or max_detections < 1:
        raise BadArgument("max_detections", f"= {max_detections}: give a whole number from 1")
    return Suppression(conf, iou, max_detections)
