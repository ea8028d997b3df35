"""Frames of videos, cameras and network streams, through OpenCV's FFmpeg: it is installed with the detector anyway."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from yolo_core.atomic import replaced
from yolo_core.errors import BadFile, UserError

USUAL_FPS = 25.0  # of streams that do not say
CODEC = "mp4v"  # MPEG-4 Part 2: the one that OpenCV's wheels can write everywhere
FASTEST = 1000.0  # frames per second; containers without a rate claim more


@dataclass(frozen=True)
class Clip:
    """An opened video."""

    name: str
    """File, address or number of the camera."""
    fps: float
    """Frames per second."""
    frames: int | None
    """Number of frames that the file claims to have; None if it does not say, as streams do not."""
    _capture: cv2.VideoCapture

    def __iter__(self) -> Iterator[np.ndarray]:
        """The frames from here on: RGB (H, W, 3) uint8, upright."""
        while True:
            read, frame = self._capture.read()
            if not read:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


@contextmanager
def open_clip(source: str | Path) -> Iterator[Clip]:
    """Open a video file, an rtsp:// or http(s):// address, or a camera by its number. Raises BadFile if that fails."""
    name = str(source)
    if isinstance(source, Path) and not source.is_file():
        raise BadFile(f"{name}: no such video")
    with _silent_opencv():
        capture = cv2.VideoCapture(int(name) if name.isdecimal() else name)
    try:
        if not capture.isOpened():
            raise BadFile(f"{name}: cannot be opened as a video")
        fps, frames = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        yield Clip(name, fps if 0 < fps <= FASTEST else USUAL_FPS, frames if frames > 0 else None, capture)
    finally:
        capture.release()


def frames(source: str | Path) -> Iterator[np.ndarray]:
    """The frames of a video, RGB (H, W, 3) uint8: `detector.stream(frames("clip.mp4"))`. Raises as `open_clip`."""
    with open_clip(source) as clip:
        yield from clip


@contextmanager
def video_writer(path: Path, fps: float) -> Iterator["VideoWriter"]:
    """Writes a video without sound; the file is in place once the block ends without an exception."""
    with replaced(path) as temporary:
        writer = VideoWriter(temporary, fps)
        try:
            yield writer
        finally:
            writer.close()


class VideoWriter:
    """An MP4 that is being written; all frames are as large as the first."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._writer: cv2.VideoWriter | None = None

    def add(self, frame: np.ndarray) -> None:
        """Append a frame, RGB (H, W, 3) uint8."""
        height, width = frame.shape[:2]
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*CODEC)
            self._size = (width, height)
            self._writer = cv2.VideoWriter(str(self._path), code, self._fps, self._size)
            if not self._writer.isOpened():
                raise UserError(f"{self._path}: OpenCV cannot write {CODEC} video here; save something else")
        if (width, height) != self._size:
            frame = cv2.resize(frame, self._size)
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Without OpenCV's warnings about files that it cannot open."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)
