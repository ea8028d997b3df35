"""Plots of results: precision-recall curves, confusion matrix, images with boxes.

Matplotlib renders off screen and is imported when a plot is made. Images are RGB (H, W, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from components.reports.figure import off_screen
from yolo_core.atomic import replaced
from yolo_core.boxes import xywh_to_xyxy
from yolo_core.data.coco import DetectionDataset
from yolo_core.data.letterbox import letterbox
from yolo_core.drawing import class_colour, draw_boxes
from yolo_core.evaluate.coco_score import CocoScore
from yolo_core.evaluate.detections import Detections
from yolo_core.evaluate.nms import suppress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
FEW_CLASSES = 20  # up to this many, every class gets its own colour, legend entry and numbers
SHEET_CONF = 0.25  # lowest score drawn
SHEET_OVERLAP = 0.7  # IoU threshold for NMS, across classes, before drawing


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An off-screen figure of one plot, in inches, with a light grid."""
    figure = off_screen(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically; the same content gives the same bytes."""
    with replaced(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})


def pr_curves(path: Path, result: CocoScore, title: str = "") -> None:
    """Precision-recall curves: every class at IoU .50, and the mean over classes at .50, at .75 and over .50 to .95."""
    figure, axes = new_figure(8, 5)
    present = [k for k in range(len(result.classes)) if result.precision[..., k].max(initial=-1) > -1]
    few = len(present) <= FEW_CLASSES
    for n, k in enumerate(present):
        name = result.classes[k]
        text = f"{name}: {result.per_class[name]['AP50']:.2f}" if few else None
        colour = np.array(class_colour(n)) / 255 if few else "0.8"
        axes.plot(result.recall_points, result.precision[0, :, k], color=colour, linewidth=1, alpha=0.8, label=text)
    if present:
        curves = result.precision[..., present].mean(2)  # (T, R); thresholds start at .50 in steps of .05
        for what, curve, style in (
            ("all .50", curves[0], "-"),
            ("all .75", curves[5], "--"),
            ("all .50:.95", curves.mean(0), ":"),
        ):
            axes.plot(
                result.recall_points, curve, style, color="black", linewidth=2, label=f"{what}: {curve.mean():.3f}"
            )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)
    if present:
        figure.legend(loc="outside right upper", fontsize=8, frameon=False, title="average precision")
    save_figure(figure, path)


def confusion(path: Path, counts: np.ndarray, classes: Sequence[str], title: str = "") -> None:
    """The confusion matrix (K+1, K+1) of `yolo_core.evaluate.confusion`, coloured by share of the true class."""
    names = [*classes, "background"]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    few = len(classes) <= FEW_CLASSES
    side = 2.5 + (0.55 if few else 0.14) * len(names)
    figure, axes = new_figure(side + 1, side)
    axes.grid(visible=False)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the true class")
    ticks, size = range(len(names)), 9 if few else 6
    axes.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 3 else 0, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for row, column in np.argwhere(counts > 0) if few else ():
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade, fontsize=8)
    save_figure(figure, path)


def sample_sheet(
    path: Path, dataset: DetectionDataset, detections: Detections, columns: int = 4, rows: int = 3
) -> None:
    """A JPEG sheet of images from all over the dataset, with their detections drawn in."""
    chosen = dataset.spread(columns * rows)
    found = detections.where(detections.score >= SHEET_CONF).by_image()
    tiles = [_tile(chosen, number, found(image.id)) for number, image in enumerate(chosen.images)]
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    gap = 6
    framed = [cv2.copyMakeBorder(tile, gap, 0, gap, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for tile in tiles]
    sheet = np.concatenate([np.concatenate(framed[i : i + columns], 1) for i in range(0, len(framed), columns)])
    sheet = cv2.copyMakeBorder(sheet, 0, gap, 0, gap, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    with replaced(path) as temporary:
        cv2.imwrite(str(temporary), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])


def _tile(dataset: DetectionDataset, number: int, found: Detections, side: int = 400) -> np.ndarray:
    """One image with its detections, on a square of `side` px."""
    tile, placed = letterbox(dataset.load(number), (side, side), fill=245)
    found = found.where(np.argsort(-found.score, kind="stable"))
    boxes = placed.to_canvas(xywh_to_xyxy(found.xywh_px))
    keep = suppress(boxes, np.zeros(len(boxes)), SHEET_OVERLAP, len(boxes))
    classes = np.searchsorted(dataset.category_ids, found.category_id)
    return draw_boxes(tile, boxes[keep], found.score[keep], classes[keep], dataset.classes)
