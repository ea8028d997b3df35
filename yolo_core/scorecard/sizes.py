"""Sizes of the models and of the papers' ablations: parameters and operations, counted on the graphs."""

from dataclasses import replace
from functools import cache

import torch

from yolo_core.models import build_model, get_spec, model_names, published, yolov7
from yolo_core.models.cost import Cost, cost, deploy_cost, paper_cost, without_memory
from yolo_core.models.detector import Detector, TrainingGraph
from yolo_core.models.spec import Scaling
from yolo_core.models.yolov7 import YoloV7
from yolo_core.scorecard.figures import Figure, Section, Size


@cache
def model_of(name: str, width: float = 1.0, depth: float = 1.0) -> Detector:
    """The model on the meta device, which has shapes and no values."""
    with torch.device("meta"):
        return build_model(name, width=width, depth=depth)


@cache
def _printed_graph_cost(name: str, size: int) -> Cost:
    """The cost of the graph whose size is published for this model."""
    model = model_of(name)
    if model.spec.published.with_auxiliary:
        return cost(TrainingGraph(model), size)
    return paper_cost(model, size)


def _size(name: str, params_m: float | None, gflops: float | None, counted: Cost) -> Size:
    return Size(
        name,
        None if params_m is None else Figure(f"{name}, parameters", params_m, counted.params / 1e6, "counted"),
        None if gflops is None else Figure(f"{name}, GFLOPs", gflops, counted.gflops, "counted"),
    )


def _of_spec(name: str) -> Size:
    spec = get_spec(name)
    counted = _printed_graph_cost(name, spec.native_size)
    return _size(f"{name}, {spec.native_size} px", spec.published.params_m, spec.published.gflops, counted)


def _is_of_table(name: str, table: int) -> bool:
    return f"table {table}" in get_spec(name).published.source


def models() -> Section:
    specs = [get_spec(n) for n in model_names() if not _is_of_table(n, 8) and not _is_of_table(n, 9)]
    rows = [_of_spec(spec.name) for spec in specs if spec.published.params_m is not None]
    rows.append(_size("yolov4-csp, 512 px", None, published.CSP_512_GFLOPS, _printed_graph_cost("yolov4-csp", 512)))
    for name, params_m in published.TRAINING_PARAMS_M.items():
        rows.append(_size(f"{name} with auxiliary heads", params_m, None, cost(model_of(name), 1280)))
    for name, params_m in published.UNFOLDED_PARAMS_M.items():
        rows.append(_size(f"{name} before folding", params_m, None, cost(model_of(name), 640)))
    for name, size in published.WITHOUT_AUXILIARY.items():
        graph = without_memory(model_of(name))
        graph.drop_auxiliary()
        rows.append(_size(f"{name} without auxiliary heads", size.params_m, size.gflops, cost(graph, 1280)))
    text = (
        "Counted on the graph that the paper counts: as built for Scaled-YOLOv4, folded and with the additions of\n"
        "biases for YOLOv7; yolov7-d6 is published with its auxiliary heads."
    )
    return Section("Model sizes", text, rows)


def csp_ablation() -> Section:
    names = [n for n in model_names() if _is_of_table(n, 8) and n.endswith("-mish")]
    text = (
        "2011.08036, table 8: plain (D53, FPN, PAN) against cross-stage partial (CD53s, CFPN, CPAN) backbone and\n"
        "neck. The activation, leaky or Mish, does not change a size."
    )
    return Section("Cross-stage partial ablation, 608 px", text, [_of_spec(name) for name in names])


def tiny_ablation() -> Section:
    names = [n for n in model_names() if _is_of_table(n, 9)]
    text = (
        "The stage of yolov4-tiny against others of the same cost; 2011.08036, table 9.\n"
        "COSA-AxBx: of four feature maps of equal width, A bypass the stage's final 1x1 convolution and B enter it."
    )
    return Section("Tiny ablation, 416 px", text, [_of_spec(name) for name in names])


def compound() -> Section:
    """The base is yolov7-x with four convolutions per block instead of six."""
    shallow = 4 / 6
    deep = replace(yolov7.V7_X, layers=8, counted_at=8)  # twice as deep, transitions as in the base
    with torch.device("meta"):
        body = YoloV7(deep, Scaling())
        deep_model = Detector(get_spec("yolov7-x"), body, num_classes=80, scaling=Scaling())
    variants = (
        (published.COMPOUND_BASE, model_of("yolov7-x", 1.0, shallow)),
        (published.COMPOUND_WIDTH, model_of("yolov7-x", 1.25, shallow)),
        (published.COMPOUND_DEPTH, deep_model),
    )
    rows = [_size(size.what, size.params_m, size.gflops, deploy_cost(model, 640)) for size, model in variants]
    text = (
        "2207.02696, table 3: a base scaled in width or in depth; scaled in both, as its concatenations require,\n"
        "it is yolov7-x, above. The base is yolov7-x with four convolutions per block instead of six."
    )
    return Section("Compound scaling, 640 px", text, rows)
