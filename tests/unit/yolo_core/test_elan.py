"""The blocks of YOLOv7 with their convolutions replaced by additions: what comes from where, in which order."""

import pytest
import torch
from torch import Tensor, nn

from yolo_core.models.blocks import leaky
from yolo_core.models.elan import DownC, Elan, ExtendedElan, LeanSppCsp, MpConv, ReOrg


class Plus(nn.Module):
    def __init__(self, number: float):
        super().__init__()
        self.number = number

    def forward(self, x: Tensor) -> Tensor:
        return x + self.number


def traced(layers: int, every: int, start: float = 0) -> Elan:
    """An ELAN of one channel: the bypass adds 10, the row `start` and then 1 each; the merge passes all on."""
    elan = Elan(1, 1, 1, 1, layers, every, leaky)
    elan.bypass, elan.enter, elan.merge = Plus(10), Plus(start), nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    elan.layers = nn.ModuleList(Plus(1) for _ in range(layers))
    return elan


@pytest.mark.parametrize(
    ("layers", "every", "expected"),
    [
        (4, 2, [4, 2, 0, 10]),  # a stage of yolov7
        (4, 1, [4, 3, 2, 1, 0, 10]),  # a step of its neck
        (6, 2, [6, 4, 2, 0, 10]),  # yolov7-x
        (2, 1, [2, 1, 0, 10]),  # yolov7-tiny
    ],
)
def test_elan_concatenates_its_row_newest_first_and_the_bypass(layers, every, expected):
    assert traced(layers, every)(torch.zeros(1, 1, 1, 1)).flatten().tolist() == expected
    assert Elan(8, 4, 2, 8, layers, every, leaky).merge.conv.in_channels == 2 * 4 + 2 * (len(expected) - 2)


def test_elan_widths():
    elan = Elan(16, 8, 4, 24, 4, 1, leaky)
    assert [(m.conv.in_channels, m.conv.out_channels) for m in (elan.bypass, elan.enter)] == [(16, 8), (16, 8)]
    shapes = [tuple(layer.get_parameter("conv.weight").shape) for layer in elan.layers]
    assert shapes == [(4, 8, 3, 3), (4, 4, 3, 3), (4, 4, 3, 3), (4, 4, 3, 3)]
    assert elan(torch.rand(2, 16, 5, 6)).shape == (2, 24, 5, 6)


def test_extended_elan_adds_its_blocks_up():
    block = ExtendedElan(traced(2, 1), traced(2, 1, start=100))
    x = torch.zeros(1, 1, 1, 1)
    first, second = block.branches(x)
    assert first.flatten().tolist() == [2, 1, 0, 10]
    assert second.flatten().tolist() == [102, 101, 100, 10]
    assert block(x).flatten().tolist() == [104, 102, 100, 20]


def test_reorg_by_hand():
    pixels = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    image = torch.stack((pixels, 10 * pixels))[None]
    # Upper left of both channels, then lower left, upper right, lower right.
    assert ReOrg()(image).flatten().tolist() == [1, 10, 3, 30, 2, 20, 4, 40]
    assert ReOrg()(torch.rand(2, 3, 8, 12)).shape == (2, 12, 4, 6)


@pytest.mark.parametrize(("kind", "hidden"), [(MpConv, 5), (DownC, 6)])
def test_transitions_halve_the_map(kind, hidden):
    down = kind(6, 5, leaky)
    assert down.reduce.conv.out_channels == hidden
    assert down(torch.rand(2, 6, 8, 12)).shape == (2, 10, 4, 6)


def test_a_transition_has_the_strided_path_first():
    down = MpConv(1, 1, leaky)
    down.pooled, down.reduce, down.strided = Plus(0), Plus(10), nn.AvgPool2d(2)  # pyright: ignore[reportAttributeAccessIssue]
    assert down(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).flatten().tolist() == [13, 6]  # mean + 10, maximum


def test_lean_pyramid_pooling_by_hand():
    spp = LeanSppCsp(1, 1, leaky)
    spp.bypass, spp.enter = Plus(100), Plus(0)  # pyright: ignore[reportAttributeAccessIssue]
    spp.after, spp.merge = nn.Identity(), nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    row = torch.zeros(1, 1, 1, 13)
    row[..., 6] = 1
    maps = spp(row)[0, :, 0]
    # 13, 9 and 5 cells wide, the map itself, the bypass
    assert [int(m.sum()) for m in maps[:4]] == [13, 9, 5, 1]
    assert torch.equal(maps[4], row[0, 0, 0] + 100)
