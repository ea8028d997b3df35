"""Names, scaling and the checks of `build_model`."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolo_core.errors import UserError
from yolo_core.model_names import NAMES
from yolo_core.models import build_model, get_spec, model_names
from yolo_core.models.blocks import CspOsa
from yolo_core.models.spec import Scaling


def test_the_list_of_names_is_the_zoos():
    assert list(NAMES) == model_names()


@pytest.mark.parametrize(("name", "near"), [("yolov4-tyni", "yolov4-tiny"), ("tiny", "yolov4-tiny"), ("", "yolov4")])
def test_a_wrong_name_lists_the_near_ones(name, near):
    for use in (build_model, get_spec):
        with pytest.raises(UserError, match=near):
            use(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_classes": 0},
        {"width": 0},
        {"width": float("nan")},
        {"depth": -1},
        {"depth": float("inf")},
        {"anchors": (((10, 10),),)},
        {"anchors": ()},
        {"anchors": ((), ())},
        {"anchors": (((10, 10), (20, 20)), ((30, 30),))},
        {"anchors": (((10, 0),), ((30, 30),))},
        {"anchors": (((10, float("nan")),), ((30, 30),))},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match="yolov4-tiny: "):
        build_model("yolov4-tiny", **wrong)


@pytest.mark.parametrize("size", [(100, 64), (64, 48)])
def test_an_input_that_the_strides_do_not_divide_is_refused(size):
    model = build_model("yolov4-tiny", 2, width=0.125)
    with pytest.raises(UserError, match=f"{size[1]}x{size[0]} px.*multiples of 32"):
        model(torch.zeros(1, 3, *size))


def test_scaling_by_hand():
    half = Scaling(width=0.5, depth=0.5)
    assert [half.channels(c) for c in (32, 36, 255)] == [16, 24, 128]  # 18 and 127.5 go up to a multiple of 8
    assert [half.repeats(n) for n in (1, 3, 7, 15)] == [1, 2, 4, 8]  # round half to even, at least 1
    assert Scaling(width=1.25).channels(64) == 80


@given(count=st.integers(1, 2048), width=st.floats(0.05, 4), depth=st.floats(0.05, 4))
def test_scaled_counts_are_usable(count, width, depth):
    scaling = Scaling(width, depth)
    channels = scaling.channels(count)
    assert channels % 8 == 0
    assert channels >= count * width
    assert channels < count * width + 8
    assert scaling.repeats(count) >= 1


def test_depth_adds_layers_to_the_stages():
    model = build_model("yolov4-tiny", 2, width=0.125, depth=2)
    stages = [m for m in model.modules() if isinstance(m, CspOsa)]
    assert [len(stage.layers) for stage in stages] == [4, 4, 4]
    assert [m.shape for m in model(torch.zeros(1, 3, 64, 64))] == [(1, 3, 4, 4, 7), (1, 3, 2, 2, 7)]


def test_the_stage_mixes_the_second_half_newest_first():
    stage = CspOsa(4, 4).eval()
    x = torch.rand(1, 4, 5, 5)
    entered = stage.enter(x)
    first = stage.layers[0](entered[:, 2:])
    second = stage.layers[1](first)
    out, mixed = stage(x)
    assert torch.equal(mixed, stage.mix(torch.cat((second, first), 1)))
    assert torch.equal(out, torch.cat((entered, mixed), 1))


@pytest.mark.parametrize(("classes", "prior"), [(80, 0.6 / 79.01), (10, 0.6 / 9.01)])
def test_the_head_starts_from_the_priors(classes, prior):
    model = build_model("yolov4-tiny", classes, width=0.125)
    for conv, stride in zip(model.head.levels, model.strides, strict=True):
        bias = conv.get_parameter("bias").view(3, -1)
        # 8 objects in (640 / stride)^2 cells
        assert bias[:, 4].exp().tolist() == pytest.approx([8 * stride**2 / 640**2] * 3)
        assert bias[:, 5:].exp().flatten().tolist() == pytest.approx([prior] * 3 * classes)
