"""`predict`: read images and videos, detect, and write what was found, all at the same time and in constant memory."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from components.files import sha256
from components.prediction import outputs, records, tables
from components.prediction.records import Folder, append
from components.prediction.sources import Names, Source, find
from yolo_core import progress as progress_
from yolo_core.ahead import ahead, batched_while
from yolo_core.data.image import load_image
from yolo_core.errors import BadFile, UserError, without_credentials
from yolo_core.evaluate.suppression import Suppression
from yolo_core.inference.detector import ImageDetector
from yolo_core.inference.result import Result
from yolo_core.inference.video import open_clip

log = logging.getLogger(__name__)

SAVED = ("images", "coco", "yolo", "csv", "crops")
WRITE_AHEAD = 4  # results that wait to be written


@dataclass(frozen=True)
class Settings:
    """How to look."""

    suppression: Suppression
    batch: int
    """Images of equal canvas that are run together, at most."""
    max_frames: int | None
    """Frames to look at in each video; None for all."""
    save: tuple[str, ...]
    """What to write besides the records: some of `SAVED`."""


class Frame(NamedTuple):
    """An image, or a frame of a video, on its way to the detector; or the end of a video, or what went wrong."""

    source: Source
    number: int | None = None
    """Number of the frame, from 0; None for an image."""
    fps: float = 0.0
    prepared: Any = None
    error: str = ""
    """Why there is no image."""
    frames: int | None = None
    """Only at the end of a video: how many there were."""


def run(
    detector: ImageDetector[Any],
    weights: Path,
    given: Sequence[str],
    settings: Settings,
    out: Path,
    progress: progress_.Progress = progress_.silent,
) -> dict[str, object]:
    """Look at everything that `given` names and write the results to `out`; what is already there is not repeated.

    weights: the detector's file, whose digest tells results of different detectors apart.
    Returns what is shown to the user.
    Raises UserError when nothing can be read, or `out` holds results of other settings.
    """
    folder = Folder(out)
    sources = find(given, progress)
    folder.open(identity(detector, weights, settings))
    done, known = folder.keep({source.address: source for source in sources})
    left = [source for source in sources if source.is_live or source.address not in done]
    started = time.monotonic()
    tally = _Writer(folder, settings, Names(known)).write(_Reader(detector, settings).results(left, progress))
    seconds = time.monotonic() - started
    if "csv" in settings.save:
        tables.write_csv(folder)
    if "coco" in settings.save:
        tables.write_coco(folder, detector.classes)
    if tally.failures and not tally.images and len(left) == len(sources):
        raise UserError(f"nothing could be read; {tally.failures[0]}")
    rate = {"images_per_second": tally.images / seconds} if tally.images else {}
    already = {"done before": len(sources) - len(left)} if len(left) < len(sources) else {}
    failed = {"not readable": len(tally.failures)} if tally.failures else {}
    return {"images": tally.images, "detections": tally.detections, **already, **failed, **rate}


def free_folder(first: Path, detector: ImageDetector[Any], weights: Path, settings: Settings) -> Path:
    """The folder `first`, or the first of first-2, first-3, ... that is new or holds results of these settings."""
    wanted = identity(detector, weights, settings)
    numbered = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([first], numbered) if Folder(path).holds(wanted))


def identity(detector: ImageDetector[Any], weights: Path, settings: Settings) -> dict[str, object]:
    """Everything that the results depend on, as run.json holds it. The weights of OpenVINO's .xml are in its .bin."""
    return {
        "weights_sha256": [sha256(path) for path in (weights, weights.with_suffix(".bin")) if path.exists()],
        "classes": list(detector.classes),
        "input": detector.describe(),
        **asdict(settings.suppression),
        "max_frames": settings.max_frames,
        "save": sorted(settings.save),
    }


@dataclass(frozen=True)
class _Reader:
    """Reads sources and runs the detector on them."""

    detector: ImageDetector[Any]
    settings: Settings

    def results(self, sources: Sequence[Source], progress: progress_.Progress) -> Iterator[tuple[Frame, Result | None]]:
        """Each frame with what was found in it; decoding goes on in a thread meanwhile."""
        total = None if any(source.is_video for source in sources) else len(sources)
        frames = progress(ahead(self._frames(sources), 2 * self.settings.batch), "predict", total=total)
        for part in batched_while(frames, self.settings.batch, _canvas_of):
            images = [frame.prepared for frame in part if frame.prepared]
            found = iter(self.detector.detect(images, self.settings.suppression) if images else ())
            for frame in part:
                yield frame, next(found) if frame.prepared else None

    def _frames(self, sources: Sequence[Source]) -> Iterator[Frame]:
        for source in sources:
            try:
                if source.is_video:
                    yield from self._video(source)
                else:
                    yield Frame(source, prepared=self.detector.prepare(load_image(source.address)))
            except (BadFile, OSError) as error:
                yield Frame(source, error=str(error))

    def _video(self, source: Source) -> Iterator[Frame]:
        with open_clip(source.address if source.is_live else Path(source.address)) as clip:
            number = -1
            for number, image in enumerate(clip):
                if number == self.settings.max_frames:
                    number -= 1
                    break
                yield Frame(source, number, clip.fps, self.detector.prepare(image))
            else:
                if number < 0:
                    raise BadFile(f"{source.address}: holds no frames that can be decoded")
                if clip.frames and number + 1 < clip.frames:
                    log.warning("%s: ends after %d of %d frames", source.address, number + 1, clip.frames)
            yield Frame(source, frames=number + 1)


def _canvas_of(frame: Frame) -> object:
    return frame.prepared.canvas if frame.prepared else frame


@dataclass
class _Tally:
    images: int = 0
    detections: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass
class _Writer:
    """Writes the files about each image, then its record."""

    folder: Folder
    settings: Settings
    names: Names
    tally: _Tally = field(default_factory=_Tally)

    def write(self, results: Iterator[tuple[Frame, Result | None]]) -> _Tally:
        """Write everything, while the detector works on the next images."""
        files = outputs.of_each_image(self.folder.path, self.settings.save)
        for source, part in itertools.groupby(ahead(results, WRITE_AHEAD), lambda pair: pair[0].source):
            name = self.names.of(source)
            with outputs.DrawnVideo(self.folder.path, name, source.is_live) as video:
                for frame, result in part:
                    if result is not None:
                        self._write_files(files, name, frame, result, video)
                    elif frame.frames is not None:
                        video.finish()
                    append(self.folder, self._record(name, frame, result))
        return self.tally

    def _write_files(
        self, files: Sequence[outputs.OfEachImage], name: str, frame: Frame, result: Result, video: outputs.DrawnVideo
    ) -> None:
        stem = name if frame.number is None else f"{name}_{frame.number:06}"
        for kind in files:
            kind.add(stem, result)
        if "images" in self.settings.save and frame.number is None:
            outputs.write_jpeg(self.folder.path / outputs.IMAGES / f"{stem}.jpg", result.draw())
        elif "images" in self.settings.save:
            video.add(result.draw(), frame.fps)

    def _record(self, name: str, frame: Frame, result: Result | None) -> records.Record:
        if result is not None:
            self.tally.images += 1
            self.tally.detections += len(result)
            return records.found(frame.source, name, result, frame.number)
        if frame.frames is not None:
            return records.ended(frame.source, name, frame.frames)
        self.tally.failures.append(frame.error)
        log.warning("skipped %s", without_credentials(frame.error))
        return records.failed(frame.source, name, without_credentials(frame.error))
