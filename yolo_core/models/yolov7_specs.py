"""The specifications of the YOLOv7 models: recipes, anchors, losses and published figures (arXiv 2207.02696)."""

from dataclasses import replace

from yolo_core.hyperparameters import Hyperparameters
from yolo_core.models.spec import COCO_ANCHORS, SIGMOID_CODING, LossSpec, ModelSpec, Published, Recipe

_PAPER = "arXiv 2207.02696v1"
_V100 = "Tesla V100, batch 1"
# Published with paste_in .15 (tiny: .05). Only params/coco.yaml sets it: here whole boxes are pasted, not outlines.
_HYP = Hyperparameters(
    lrf=0.1, cls=0.3, obj=0.7, warmup_momentum=0.8, translate=0.2, scale=0.9, mixup=0.15, mosaic9=0.2
)
_TINY_HYP = _HYP.replace(lrf=0.01, cls=0.5, obj=1.0, translate=0.1, scale=0.5, mixup=0.05)

YOLOV7 = ModelSpec(
    name="yolov7",
    family="yolov7",
    native_size=640,
    strides=(8, 16, 32),
    anchors=COCO_ANCHORS,
    coding=SIGMOID_CODING,
    hyp=_HYP,
    recipe=Recipe(epochs=300, batch=128, size=640),
    loss=LossSpec(balance=(4.0, 1.0, 0.4), kind="simota"),
    published=Published(_PAPER, 36.9, 104.7, ap=51.4, ap50=69.7, ap75=55.9, fps=161, fps_on=_V100, graph="deployed"),
    implicit=True,
)
YOLOV7_X = replace(
    YOLOV7,
    name="yolov7-x",
    published=Published(_PAPER, 71.3, 189.9, ap=53.1, ap50=71.2, ap75=57.8, fps=114, fps_on=_V100, graph="deployed"),
)
# Anchors are in pixels of the 640 px training images. The LeakyReLU model uses the same ones at 416 px, both in the
# paper and in its Darknet configuration.
YOLOV7_TINY_SILU = replace(
    YOLOV7,
    name="yolov7-tiny-silu",
    anchors=(
        ((10, 13), (16, 30), (33, 23)),
        ((30, 61), (62, 45), (59, 119)),
        ((116, 90), (156, 198), (373, 326)),
    ),
    hyp=_TINY_HYP,
    published=Published(_PAPER, 6.2, 13.8, ap=38.7, ap50=56.7, ap75=41.7, fps=286, fps_on=_V100, graph="deployed"),
)
YOLOV7_TINY = replace(
    YOLOV7_TINY_SILU,
    name="yolov7-tiny",
    native_size=416,
    published=Published(f"{_PAPER}, AP on val2017", 6.2, 5.8, ap=35.2, graph="deployed"),
)


def _large(name: str, published: Published) -> ModelSpec:
    return ModelSpec(
        name=name,
        family="yolov7",
        native_size=1280,
        strides=(8, 16, 32, 64),
        anchors=(
            ((19, 27), (44, 40), (38, 94)),
            ((96, 68), (86, 152), (180, 137)),
            ((140, 301), (303, 264), (238, 542)),
            ((436, 615), (739, 380), (925, 792)),
        ),
        coding=SIGMOID_CODING,
        hyp=_HYP.replace(lrf=0.2),
        recipe=Recipe(epochs=300, batch=128, size=1280),
        loss=LossSpec(balance=(4.0, 1.0, 0.25, 0.06), kind="lead-guided"),
        published=replace(published, fps_on=_V100, graph="deployed"),
        implicit=True,
    )


YOLOV7_W6 = _large("yolov7-w6", Published(_PAPER, 70.4, 360.0, ap=54.9, ap50=72.6, ap75=60.1, fps=84))
YOLOV7_E6 = _large("yolov7-e6", Published(_PAPER, 97.2, 515.2, ap=56.0, ap50=73.5, ap75=61.2, fps=56))
YOLOV7_D6 = _large(
    "yolov7-d6", Published(_PAPER, 154.7, 806.8, ap=56.6, ap50=74.0, ap75=61.8, fps=44, with_auxiliary=True)
)
YOLOV7_E6E = _large("yolov7-e6e", Published(_PAPER, 151.7, 843.2, ap=56.8, ap50=74.4, ap75=62.1, fps=36))
