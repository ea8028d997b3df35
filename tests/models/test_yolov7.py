"""YOLOv7's scales: compound scaling, the dials, auxiliary heads."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from yolo_core.models import Detector, build_model, get_spec, published
from yolo_core.models.cost import deploy_cost
from yolo_core.models.detector import TrainingGraph
from yolo_core.models.elan import Elan, ExtendedElan
from yolo_core.models.spec import Scaling
from yolo_core.models.yolov7 import D6, E6, E6E, TINY, V7, V7_X, W6, YoloV7

NAMES = [
    "yolov7-tiny",
    "yolov7-tiny-silu",
    "yolov7",
    "yolov7-x",
    "yolov7-w6",
    "yolov7-e6",
    "yolov7-d6",
    "yolov7-e6e",
]


@cache
def bare(name: str, width: float = 1, depth: float = 1) -> Detector:
    with torch.device("meta"):
        return build_model(name, 3, width, depth)


def body_of(name: str, depth: float = 1) -> YoloV7:
    body = bare(name, depth=depth).body
    assert isinstance(body, YoloV7)
    return body


def stage_channels(body: YoloV7) -> list[int]:
    merges = [m for stage in body.stages for m in stage.modules() if isinstance(m, Elan)]
    return [m.merge.conv.out_channels for m in merges]


@pytest.mark.parametrize(
    ("design", "factor"), [(TINY, 1), (V7, 1), (V7_X, 1.25), (W6, 1), (E6, 1.25), (D6, 1.5), (E6E, 1.25)]
)
def test_transitions_widen_as_the_blocks_concatenate_more(design, factor):
    assert design.transition_factor() == factor
    neck = design.neck_elan
    if design is not V7_X:  # whose neck has blocks of another kind than yolov7's, on which it is scaled
        assert neck.concatenated(design.layers) / neck.concatenated(design.counted_at) == factor


def test_compound_scaling_gives_the_published_channels():
    assert stage_channels(body_of("yolov7")) == [256, 512, 1024, 1024]
    assert stage_channels(body_of("yolov7-x")) == [320, 640, 1280, 1280]
    assert stage_channels(body_of("yolov7-e6")) == [160, 320, 640, 960, 1280]
    assert stage_channels(body_of("yolov7-d6")) == [192, 384, 768, 1152, 1536]
    assert body_of("yolov7-x").out_channels == (320, 640, 1280)
    assert body_of("yolov7-w6").auxiliary_channels == body_of("yolov7-e6").auxiliary_channels == (320, 640, 960, 1280)
    # The inside of the blocks keeps its width.
    for smaller, larger in (("yolov7", "yolov7-x"), ("yolov7-w6", "yolov7-d6")):
        widths = [
            [m.enter.conv.out_channels for m in body_of(name).stages.modules() if isinstance(m, Elan)]
            for name in (smaller, larger)
        ]
        assert widths[0] == widths[1]


# Table 3 of the paper: one base, and what it becomes by each way of scaling; the last row is yolov7-x.
BASE = replace(V7_X, layers=4)
TABLE_3 = [
    (BASE, Scaling(), published.COMPOUND_BASE),
    (BASE, Scaling(width=1.25), published.COMPOUND_WIDTH),
    (replace(BASE, layers=8, counted_at=8), Scaling(), published.COMPOUND_DEPTH),
    (BASE, Scaling(depth=1.5), get_spec("yolov7-x").published),
]


@pytest.mark.parametrize(("design", "scaling", "printed"), TABLE_3, ids=["base", "width", "depth", "both"])
def test_the_papers_comparison_of_ways_to_scale(design, scaling, printed):
    with torch.device("meta"):
        model = Detector(get_spec("yolov7-x"), YoloV7(design, scaling), num_classes=80, scaling=scaling)
    counted = deploy_cost(model, 640)
    assert counted.params / 1e6 == pytest.approx(printed.params_m, rel=2e-3)
    assert counted.gflops == pytest.approx(printed.gflops, rel=2e-3)


@pytest.mark.parametrize(("depth", "larger"), [(1.5, "yolov7-e6"), (2, "yolov7-d6")])
def test_depth_is_compound_scaling(depth, larger):
    deepened, published = body_of("yolov7-w6", depth=depth), body_of(larger)
    assert stage_channels(deepened) == stage_channels(published)
    assert deepened.out_channels == published.out_channels
    for mine, theirs in zip(elans(deepened), elans(published), strict=True):
        assert len(mine.layers) == len(theirs.layers)


def elans(model: nn.Module) -> list[Elan]:
    return [m for m in model.modules() if isinstance(m, Elan)]


@pytest.mark.parametrize(
    ("name", "depth", "layers"),
    [
        ("yolov7-tiny", 0.33, 1),
        ("yolov7-tiny", 2, 4),
        ("yolov7", 0.33, 2),
        ("yolov7", 0.5, 2),
        ("yolov7", 2, 8),
        ("yolov7-x", 0.33, 2),
        ("yolov7-e6e", 2, 12),
    ],
)
def test_depth_lengthens_every_block_alike(name, depth, layers):
    assert {len(elan.layers) for elan in elans(body_of(name, depth=depth))} == {layers}


@pytest.mark.parametrize(
    "name", ["yolov7-tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name != "yolov7-tiny")]
)
@torch.no_grad()
def test_every_scale_can_be_narrowed_and_deepened(name):
    for width in (0.125, 0.25, 0.5):
        for depth in (0.33, 2):
            model = bare(name, width, depth).eval()
            size = max(model.strides)
            maps = model.training_maps(torch.empty(1, 3, size, 2 * size, device="meta"))
            shapes = [(1, 3, size // s, 2 * size // s, 8) for s in model.strides]
            assert [m.shape for m in maps] == shapes * (1 if model.auxiliary is None else 2)
            assert all(c % 8 == 0 for c in model.body.out_channels)


def test_without_auxiliary_heads_the_maps_are_the_same():
    torch.manual_seed(0)
    model = build_model("yolov7-e6e", 2, width=0.125).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        lead = model(images)
        both = TrainingGraph(model)(images)
        assert [m.shape for m in both[4:]] == [m.shape for m in both[:4]] == [m.shape for m in lead]
        model.drop_auxiliary()
        for found in (model(images), model.training_maps(images)):
            assert all(torch.equal(a, b) for a, b in zip(lead, found, strict=True))
    assert not [name for name, _ in model.named_parameters() if "auxiliary" in name]
    with pytest.raises(ValueError, match="no auxiliary"):
        model.body.with_auxiliary(images)


def test_auxiliary_heads_hang_on_the_top_down_path():
    torch.manual_seed(0)
    model = build_model("yolov7-e6e", 2, width=0.125).train()
    body = model.body
    assert isinstance(body, YoloV7)
    lead, auxiliary = body.with_auxiliary(torch.rand(2, 3, 128, 128))
    torch.stack([x.sum() for x in auxiliary]).sum().backward()
    assert all(p.grad is None for part in (body.downs, body.outs) for p in part.parameters())
    last = body.ups[-1].get_submodule("block")
    assert isinstance(last, ExtendedElan)
    reached = [any(p.grad is not None for p in block.parameters()) for block in last.blocks]
    assert reached == [False, True]  # of the two side by side the auxiliary head sees the second alone
    assert [x.shape[1] for x in lead] == list(body.out_channels)
