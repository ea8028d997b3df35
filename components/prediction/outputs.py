"""Files that show what was found, written image by image: drawn images and videos, crops, YOLO label files."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from yolo_core.errors import Stopped, UserError
from yolo_core.inference.result import Result
from yolo_core.inference.video import VideoWriter, video_writer

IMAGES, LABELS, CROPS, VIDEOS = "images", "labels", "crops", "videos"  # folders
JPEG_QUALITY = 92


class OfEachImage(Protocol):
    """Writes files about one image at a time."""

    def add(self, stem: str, result: Result) -> None:
        """Write the files of an image, or of a frame, whose names start with `stem`."""
        ...


def of_each_image(folder: Path, save: Sequence[str]) -> list[OfEachImage]:
    """The writers that are asked for."""
    kinds: dict[str, Callable[[Path], OfEachImage]] = {"yolo": LabelFiles, "crops": Crops}
    return [kinds[name](folder) for name in save if name in kinds]


class LabelFiles:
    """labels/<stem>.txt: a line per object, `class cx cy w h score`, as fractions of the image."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / LABELS
        self._folder.mkdir(parents=True, exist_ok=True)

    def add(self, stem: str, result: Result) -> None:
        height, width = result.image.shape[:2]
        centres = (result.xyxy[:, :2] + result.xyxy[:, 2:]) / 2
        rows = np.concatenate([centres, result.xyxy[:, 2:] - result.xyxy[:, :2]], 1) / (width, height, width, height)
        lines = [
            f"{k} {' '.join(f'{value:.6f}' for value in row)} {score:.6f}\n"
            for k, row, score in zip(result.class_id.tolist(), rows.tolist(), result.score.tolist(), strict=True)
        ]
        (self._folder / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")


class Crops:
    """crops/<class>/<stem>-<number>.jpg: each object cut out; numbers count from the best of the image."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / CROPS

    def add(self, stem: str, result: Result) -> None:
        for number, one in enumerate(result, 1):
            x1, y1, x2, y2 = (round(edge) for edge in one.xyxy)
            crop = result.image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
            if crop.size:
                write_jpeg(self._folder / _as_folder(one.label) / f"{stem}-{number}.jpg", crop)


class DrawnVideo(AbstractContextManager):
    """videos/<name>.mp4: the frames of a video with their boxes; in place once it is finished, else not at all.

    is_live: of a camera or a stream, which Ctrl-C ends: then it is in place, too.
    """

    def __init__(self, folder: Path, name: str, is_live: bool) -> None:
        self._is_live = is_live
        self._path = folder / VIDEOS / f"{name}.mp4"
        self._open = ExitStack()
        self._writer: VideoWriter | None = None

    def add(self, frame: np.ndarray, fps: float) -> None:
        """Append a frame, RGB (H, W, 3) uint8."""
        if self._writer is None:
            self._writer = self._open.enter_context(video_writer(self._path, fps))
        self._writer.add(frame)

    def finish(self) -> None:
        """Put the video into place."""
        self._open.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._is_live and isinstance(error, KeyboardInterrupt):
            self.finish()
        unfinished = Stopped() if error is None else error
        self._open.__exit__(type(unfinished), unfinished, unfinished.__traceback__)


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write an RGB image; folders are created."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise UserError(f"{path}: cannot be encoded as a JPEG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())


def _as_folder(label: str) -> str:
    return label.replace("/", "_").strip(". ") or "_"
