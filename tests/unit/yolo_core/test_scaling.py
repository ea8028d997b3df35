"""The papers' scaling formulas, by hand and by their properties."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from yolo_core.models import scaling
from yolo_core.models.blocks import ConvBnAct
from yolo_core.models.cost import cost
from yolo_core.models.scaling import DARKNET, LAYERS, RESNET, RESNEXT

counts = st.integers(1, 64)
layers = st.sampled_from(list(LAYERS.values()))


@pytest.mark.parametrize(
    ("layer", "full", "partial"),
    [
        # b = 64, 2 x 3 cells, 2 layers: 6 x 2 x 4096 = 49152 times the coefficient;
        # partial: 6 x 4096 x 3/4 = 18432 and 49152 times the coefficient
        (RESNET, 49152 * 17 // 16, 18432 + 49152 * 13 // 16),
        (RESNEXT, 49152 * 137 // 128, 18432 + 49152 * 73 // 128),
        (DARKNET, 49152 * 5, 18432 + 49152 * 5 // 2),
    ],
    ids=list(LAYERS),
)
def test_costs_of_stages_by_hand(layer, full, partial):
    assert scaling.layer_cost(layer, w=2, h=3, k=2, b=64) == full
    assert scaling.csp_cost(layer, w=2, h=3, k=2, b=64) == partial


@pytest.mark.parametrize(
    ("layer", "channels", "groups"),
    [
        (RESNET, (128, 32, 32, 128), 1),
        (RESNEXT, (128, 64, 64, 128), 32),
        (DARKNET, (128, 64, 128), 1),
    ],
    ids=list(LAYERS),
)
def test_a_layer_costs_what_its_convolutions_do(layer, channels, groups):
    kernels = (1, 3, 1)
    row = nn.Sequential(
        *(
            nn.Conv2d(a, b, kernel, padding=kernel // 2, groups=groups if kernel == 3 else 1, bias=False)
            for a, b, kernel in zip(channels, channels[1:], kernels, strict=False)
        )
    )
    counted = cost(nn.Sequential(nn.Conv2d(3, 128, 1), row), 8).gflops * 1e9 / 2 - 64 * 3 * 128
    assert round(counted) == scaling.layer_cost(layer, w=8, h=8, k=1, b=128)


def test_a_partial_darknet_layer_costs_what_its_convolutions_do():
    half = nn.Sequential(ConvBnAct(32, 32, 1), ConvBnAct(32, 32, 3))
    counted = cost(nn.Sequential(nn.Conv2d(3, 32, 1, bias=False), half), 8).gflops * 1e9 / 2 - 64 * 3 * 32
    assert round(counted) == 64 * 64**2 * DARKNET.partial


def test_savings_and_break_even_are_the_printed_ones():
    # 1 - 13/17, 1 - 73/137, 1 - 1/2; (3/4) / (1/4), (3/4) / (64/128), (3/4) / (5/2)
    savings = [scaling.asymptotic_csp_saving(layer) for layer in (RESNET, RESNEXT, DARKNET)]
    assert savings == [Fraction(4, 17), Fraction(64, 137), Fraction(1, 2)]
    assert [round(100 * float(saving), 1) for saving in savings] == [23.5, 46.7, 50.0]
    assert [scaling.csp_break_even(layer) for layer in (RESNET, RESNEXT, DARKNET)] == [
        3,
        Fraction(3, 2),
        Fraction(3, 10),
    ]


@given(layer=layers, k=counts)
def test_the_partial_form_saves_beyond_the_break_even_and_less_than_the_limit(layer, k):
    saving = scaling.csp_saving(layer, k)
    assert (saving > 0) == (k > scaling.csp_break_even(layer))
    assert saving < scaling.asymptotic_csp_saving(layer)
    assert scaling.csp_saving(layer, k + 1) > saving


@given(layer=layers, w=counts, h=counts, k=counts, b=counts, factor=st.integers(1, 4))
def test_size_and_width_cost_their_square_and_depth_itself(layer, w, h, k, b, factor):
    cost_now = float(scaling.layer_cost(layer, w, h, k, b))
    exact = scaling.layer_cost
    assert scaling.scaled_cost(cost_now, size=factor) == float(exact(layer, factor * w, factor * h, k, b))
    assert scaling.scaled_cost(cost_now, depth=factor) == float(exact(layer, w, h, factor * k, b))
    assert scaling.scaled_cost(cost_now, width=factor) == float(exact(layer, w, h, k, factor * b))


def test_a_darknet_stage_with_its_downsampling():
    # 2 x 2 cells, b = 4: 4 x 16 x (9/4 + 3/4 + 5/2 x 2) = 64 x 8
    assert scaling.csp_darknet_stage_cost(2, 2, k=2, b=4) == 512
    cheaper = [scaling.csp_darknet_stage_cost(1, 1, k, 4) < scaling.layer_cost(DARKNET, 1, 1, k, 4) for k in (1, 2, 8)]
    assert cheaper == [False, True, True]


def test_dense_and_one_shot_aggregation_by_hand():
    # 2 x 3 cells, b = 8, g = 4, k = 3: 6 (4 x 8 x 3 + 16 x 3) and 6 (8 x 4 + 16 x 2)
    assert scaling.densenet_cost(2, 3, b=8, g=4, k=3) == 864
    assert scaling.osanet_cost(2, 3, b=8, g=4, k=3) == 384


@given(b=counts, g=counts, k=counts)
def test_one_shot_aggregation_never_costs_more_than_dense_layers(b, g, k):
    dense, one_shot = scaling.densenet_cost(1, 1, b, g, k), scaling.osanet_cost(1, 1, b, g, k)
    assert dense == sum((b + i * g) * g for i in range(k))  # layer i sees the base and i grown maps
    assert one_shot == b * g + sum(g * g for _ in range(1, k))
    assert one_shot <= dense
    assert (one_shot == dense) == (k == 1)


@pytest.mark.parametrize(
    ("b", "g", "k", "bus", "split"),
    [(64, 32, 3, 1, 80), (64, 32, 3, 32, 96), (5, 2, 1, 1, 4), (64, 32, 2, 64, 64)],  # 160/2; 80 -> 96; 3.5 -> 4
)
def test_the_partial_split_is_half_in_whole_transfers(b, g, k, bus, split):
    assert scaling.partial_split(b, g, k, bus) == split


@given(b=counts, g=counts, k=counts, bus=counts)
def test_the_partial_split_is_the_next_multiple_of_the_bus(b, g, k, bus):
    split = scaling.partial_split(b, g, k, bus)
    assert split % bus == 0
    assert 0 <= 2 * split - (b + k * g) < 2 * bus


def test_memory_access_by_hand():
    assert scaling.memory_access_cost(2, 3, c_in=4, c_out=5, kernel_area=9) == 6 * 9 + 9 * 20


@given(w=counts, h=counts, root=counts, kernel=st.sampled_from((1, 9)), data=st.data())
def test_equal_channels_access_least_memory_at_equal_cost(w, h, root, kernel, data):
    c_in = data.draw(st.sampled_from([c for c in range(1, root**2 + 1) if root**2 % c == 0]))
    c_out = root**2 // c_in
    unequal = scaling.memory_access_cost(w, h, c_in, c_out, kernel)
    assert scaling.memory_access_cost(w, h, root, root, kernel) <= unequal


def test_convolutional_io_by_hand():
    # b = 64, g = 32, k = 3, as in yolov4-tiny: bg = 2048, g^2 = 1024, kg = 96, b + kg = 160
    assert scaling.convolutional_io("OSA", 64, 32, 3) == 2048 + 2 * 1024 + 160**2 / 2
    assert scaling.convolutional_io("CSP", 64, 32, 3) == 3 * 1024 + 96**2
    assert scaling.convolutional_io("PCB", 64, 32, 3) == 3 * 1024 + 160**2 / 4
    assert scaling.least_io(64, 32, 3) == "PCB"


@given(b=counts, g=counts, k=counts)
def test_a_split_inside_the_block_pays_where_the_growth_exceeds_the_base(b, g, k):
    advice = scaling.partial_advice(b, g, k)
    assert advice.by_formula == (k * g > b)
    assert advice.disagree == (b < 2 * k * g <= 2 * b)


def test_the_paper_disagrees_with_itself_at_three_quarters_of_the_base():
    advice = scaling.partial_advice(b=64, g=16, k=3)  # kg = 48: above 32, not above 64
    assert advice.by_prose
    assert not advice.by_formula
    assert scaling.convolutional_io("CSP", 64, 16, 3) == 768 + 48**2  # 3072
    assert scaling.convolutional_io("PCB", 64, 16, 3) == 768 + 112**2 / 4  # 3904


def test_receptive_field_by_hand():
    assert scaling.receptive_field([]) == 1
    assert scaling.receptive_field([(3, 1), (3, 1)]) == 5
    assert scaling.receptive_field([(3, 2), (3, 2), (3, 1)]) == 1 + 2 + 4 + 8


@given(chain=st.lists(st.tuples(st.sampled_from((1, 3, 5)), st.sampled_from((1, 2))), max_size=5), kernel=counts)
def test_depth_adds_to_the_receptive_field_and_a_stage_doubles_what_follows(chain, kernel):
    field = scaling.receptive_field(chain)
    steps = 1
    for _, stride in chain:
        steps *= stride
    assert scaling.receptive_field([*chain, (kernel, 1)]) == field + (kernel - 1) * steps
    assert scaling.receptive_field([(1, 2), *chain]) == 2 * field - 1


def test_the_receptive_field_is_what_a_gradient_reaches():
    chain = [(3, 1), (3, 2), (3, 1), (1, 1), (3, 2)]
    net = nn.Sequential(*(nn.Conv2d(1, 1, kernel, stride, bias=False) for kernel, stride in chain))
    for conv in net:
        nn.init.ones_(conv.get_parameter("weight"))
    field = scaling.receptive_field(chain)
    image = torch.zeros(1, 1, field, field, requires_grad=True)
    out = net(image)
    assert out.numel() == 1
    out.sum().backward()
    assert image.grad is not None
    assert (image.grad > 0).all()
