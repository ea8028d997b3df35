"""The blocks and the one builder of Scaled-YOLOv4."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from waiting import LIMIT_S

from yolo_core.models import build_model, get_spec
from yolo_core.models.blocks import CspOsa, leaky, mish
from yolo_core.models.csp import BnAct, CspPath, CspStage, DarknetStage, Pyramid, Residual, SppCsp
from yolo_core.models.fuse import fold_blocks, fuse
from yolo_core.models.scaled_yolov4 import P5, P6, P7, ScaledYoloV4
from yolo_core.models.spec import Scaling


def stages_of(name: str, depth: float = 1) -> list[nn.Module]:
    return list(build_model(name, 2, width=0.125, depth=depth).body.get_submodule("stages").children())


def repeats_of(stages: list[nn.Module]) -> list[int]:
    return [sum(isinstance(block, Residual) for block in stage.modules()) for stage in stages]


@pytest.mark.parametrize(
    ("name", "repeats", "levels"),
    [
        ("yolov4-csp", [1, 2, 8, 8, 4], 3),
        ("yolov4-p5", [1, 3, 15, 15, 7], 3),
        ("yolov4-p6", [1, 3, 15, 15, 7, 7], 4),
        ("yolov4-p7", [1, 3, 15, 15, 7, 7, 7], 5),
    ],
)
def test_one_more_stage_is_one_more_level(name, repeats, levels):
    stages = stages_of(name)
    assert repeats_of(stages) == repeats
    assert len(get_spec(name).strides) == levels
    # Only yolov4-csp begins with a plain Darknet stage; its residual block has half the width inside.
    assert [isinstance(stage, CspStage) for stage in stages] == [name != "yolov4-csp", *[True] * (len(stages) - 1)]


def test_the_large_models_differ_in_stages_and_width_alone():
    assert dataclasses.replace(P5, repeats=P6.repeats) == P6
    assert dataclasses.replace(P5, repeats=P7.repeats, width=1.25) == P7
    assert P7.repeats[:5] == P5.repeats


def test_width_and_depth_scale_as_the_authors_multiples():
    # A single block stays single; 3, 15 and 7 blocks times 2; 3 pairs in the neck's paths become 6.
    assert repeats_of(stages_of("yolov4-p5", depth=2)) == [1, 6, 30, 30, 14]
    path = build_model("yolov4-p5", 2, width=0.125, depth=2).body.get_submodule("ups.0.path")
    assert isinstance(path, CspPath)
    assert len(path.blocks) == 2 * 6
    # 1.25 x 0.5 of 64 is 40 channels; of 32, 20, which goes up to 24.
    body = ScaledYoloV4(P7, Scaling(width=0.5))
    assert body.stem.conv.out_channels == 24
    assert body.out_channels == (160, 320, 640, 640, 640)


def test_stage_two_of_the_large_recipe():
    for name, size in (("yolov4-p5", 896), ("yolov4-p6", 1280), ("yolov4-p7", 1536)):
        recipe, hyp = get_spec(name).recipe, get_spec(name).hyp
        assert (recipe.epochs, recipe.batch, recipe.size) == (300, 64, size)
        assert (hyp.scale, hyp.mixup, hyp.translate) == (0.5, 0.0, 0.5)
        assert recipe.second_stage is not None
        assert recipe.second_stage.epochs == 450
        assert recipe.second_stage.hyp == hyp.replace(scale=0.8, mixup=0.2)
    assert get_spec("yolov4-csp").recipe.second_stage is None


def test_the_grid_of_ablations():
    mish_of = {name: get_spec(f"{name}-mish").published.ap for name in ("d53-fpnspp", "d53-panspp", "cd53s-cfpnspp")}
    assert mish_of == {"d53-fpnspp": 45.3, "d53-panspp": 46.9, "cd53s-cfpnspp": 46.3}
    assert all(isinstance(stage, DarknetStage) for stage in stages_of("d53-panspp-leaky"))
    for name, kind in (("d53-fpnspp-leaky", nn.LeakyReLU), ("d53-fpnspp-mish", nn.Mish)):
        body = build_model(name, 2, width=0.125).body
        activations = [m for m in body.modules() if isinstance(m, nn.LeakyReLU | nn.Mish)]
        assert all(isinstance(activation, kind) for activation in activations)
        assert len(body.get_submodule("downs")._modules) == 0  # no bottom-up path


def test_one_graph_has_two_names():
    for name, same in (("yolov4-csp", "cd53s-cpanspp-mish"), ("yolov4-tiny", "cosa-2x2x")):
        one, other = build_model(name, 2, width=0.125), build_model(same, 2, width=0.125)
        other.load_state_dict(one.state_dict())
        images = torch.rand(1, 3, 64, 64)
        for a, b in zip(one.eval()(images), other.eval()(images), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("variant", "order"), [("pytorch", [1, 5, 9, 13]), ("darknet", [13, 9, 5, 1])])
def test_pooling_in_a_row_is_pooling_side_by_side(variant, order):
    x = torch.randn(2, 3, 20, 15)
    expected = torch.cat([F.max_pool2d(x, size, 1, size // 2) for size in order], 1)
    assert torch.equal(Pyramid(variant)(x), expected)


def test_the_join_normalises_both_halves_at_once():
    torch.manual_seed(0)
    joined = CspStage(4, 8, 1, mish, "pytorch").eval()
    assert isinstance(joined.join, BnAct)
    nn.init.uniform_(joined.join.bn.weight, 0.5, 2)
    nn.init.uniform_(joined.join.bn.bias, -1, 1)
    joined.join.bn.get_buffer("running_var").uniform_(0.5, 2)
    # Either half with its own convolution, normalisation and activation: Darknet's form of the same stage.
    apart = CspStage(4, 8, 1, mish, "darknet").eval()
    state = joined.state_dict()
    for ours, channels in (("exit", slice(0, 4)), ("bypass", slice(4, 8))):
        state[f"{ours}.conv.weight"] = state.pop(f"{ours}.weight")
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[f"{ours}.bn.{name}"] = state[f"join.bn.{name}"][channels]
        state[f"{ours}.bn.num_batches_tracked"] = state["join.bn.num_batches_tracked"]
    apart.load_state_dict({name: value for name, value in state.items() if not name.startswith("join")})
    x = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(joined(x), apart(x))
    before = joined(x)
    fold_blocks(joined)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in joined.modules())
    torch.testing.assert_close(joined(x), before, rtol=1e-5, atol=1e-5)


def test_only_the_joins_of_the_necks_keep_their_normalisation_when_folded():
    def kept(name: str) -> set[type]:
        model = fuse(build_model(name, 2, width=0.125))
        return {type(m) for m in model.modules() if any(isinstance(c, nn.BatchNorm2d) for c in _blocks(m))}

    def _blocks(module: nn.Module) -> list[nn.Module]:
        return [grandchild for child in module.children() for grandchild in child.children()]

    assert kept("yolov4-csp") == kept("yolov4-p6-darknet") == set()
    assert kept("yolov4-p6") == {CspPath, SppCsp}


@pytest.mark.parametrize(("crossing", "mixed"), [(1, 12), (2, 8), (3, 4)])
def test_halves_cross_the_partial_stage(crossing, mixed):
    stage = CspOsa(6, 8, crossing=crossing).eval()
    x = torch.randn(1, 6, 4, 4)
    first, second = stage.enter(x).chunk(2, 1)
    third = stage.layers[0](second)
    fourth = stage.layers[1](third)
    out, lateral = stage(x)
    row = [first, second, third, fourth]
    assert lateral.shape[1] == mixed == stage.c_mixed
    assert torch.equal(lateral, stage.mix(torch.cat(row[crossing:][::-1], 1)))
    assert torch.equal(out, torch.cat((*row[:crossing], lateral), 1))
    assert CspOsa(6, 8, layers=1, crossing=3)(x)[0].shape == (1, 16, 4, 4)  # a second layer: else none is left to mix


def test_activations():
    x = torch.tensor([-1.0, 0.0, 2.0])
    assert leaky()(x.clone()).tolist() == pytest.approx([-0.1, 0, 2])
    # x tanh(ln(1 + e^x)): ln(1.3679) = 0.31326, tanh = 0.30340; ln(8.3891) = 2.12693, tanh = 0.97198
    assert mish()(x).tolist() == pytest.approx([-0.30340, 0, 1.94396], abs=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from Linux's /proc")
def test_building_p7_takes_little_more_memory_than_its_parameters():
    code = """
import torch
from yolo_core.models import build_model

def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

build_model("yolov4-tiny", width=0.125)  # whatever is loaded on first use
before = peak()
model = build_model("yolov4-p7")
print((peak() - before) / sum(p.nbytes for p in model.parameters()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=LIMIT_S)
    assert float(done.stdout) < 1.3
