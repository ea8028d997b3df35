"""Fused normalisation and activation against PyTorch's two steps in float64."""

import copy
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from yolo_core.models.norm_act import norm_act

ACTIVATIONS = (nn.Mish(), nn.SiLU(), nn.LeakyReLU(0.1), nn.Identity())
# One unit in the last place of bfloat16 is 1/128 of a value; largest errors are taken against the largest value.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1 / 128}


def normalisation(channels: int) -> nn.BatchNorm2d:
    bn = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03)
    nn.init.uniform_(bn.weight, 0.5, 1.5)
    nn.init.normal_(bn.bias)
    return bn


def map_of(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    values = 3 * torch.randn(shape) + torch.randn(shape[1])[:, None, None]
    return values.to(dtype).to(memory_format=torch.channels_last)


def close(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    return bool((ours.double() - theirs).abs().max() <= tolerance * theirs.abs().max())


def at_once(y: Tensor) -> bool:
    """Whether the compiled loops computed it, and not PyTorch."""
    return "NormAct" in str(y.grad_fn)


@settings(max_examples=40)
@example((1, 1, 30, 11), nn.SiLU(), torch.bfloat16, 1)
@given(
    st.tuples(st.integers(1, 3), st.sampled_from([1, 3, 16, 40]), st.integers(1, 40), st.integers(2, 20)),
    st.sampled_from(ACTIVATIONS),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from([1, 2]),
)
def test_values_gradients_and_statistics_are_those_of_pytorch(
    shape: tuple[int, ...], act: nn.Module, dtype: torch.dtype, threads: int
) -> None:
    torch.manual_seed(sum(shape))
    ours = normalisation(shape[1])
    theirs = copy.deepcopy(ours).double()
    x = map_of(shape, dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    gradient = map_of(shape, dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = norm_act(x, ours, act)
        y.backward(gradient)
    finally:
        torch.set_num_threads(before)
    expected = act(theirs(exact))
    expected.backward(gradient.double())
    assert at_once(y)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert close(y, expected.detach(), TOLERANCE[dtype])
    assert x.grad is not None
    assert exact.grad is not None
    if x.numel() // shape[1] > 8:  # over fewer cells the gradients of x nearly cancel
        assert close(x.grad, exact.grad, TOLERANCE[dtype])
    rounding = 1e-6 * gradient.double().abs().sum((0, 2, 3)).max()  # of sums whose terms nearly cancel
    for name, value in theirs.named_parameters():
        grad = ours.get_parameter(name).grad
        assert grad is not None
        assert value.grad is not None
        assert (grad.double() - value.grad).abs().max() <= 1e-4 * value.grad.abs().max() + rounding
    for name, value in theirs.named_buffers():
        assert close(ours.get_buffer(name), value.double(), 1e-5), name


def test_activations_keep_their_value_far_from_zero() -> None:
    """mish(100) = 100 and silu(100) = 100; both and their gradients vanish at -100."""
    for act in ACTIVATIONS[:2]:
        bn = nn.BatchNorm2d(1, eps=0)
        nn.init.constant_(bn.weight, 100.0)
        x = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).requires_grad_()  # mean 0, variance 1
        y = norm_act(x, bn, act)
        assert at_once(y)
        assert y.flatten().tolist() == pytest.approx([0, 100], abs=1e-5)


def test_nan_is_not_hidden() -> None:
    for dtype in TOLERANCE:
        for act in ACTIVATIONS:
            x = map_of((1, 2, 4, 4), dtype)
            x[0, 1, 2, 3] = torch.nan
            y = norm_act(x.requires_grad_(), normalisation(2), act)
            assert y[0, 1].isnan().all()
            assert y[0, 0].isfinite().all()


def test_a_gradient_that_is_a_slice_or_in_another_layout_is_read_correctly() -> None:
    wide = map_of((2, 12, 5, 7))
    for gradient in (wide[:, 4:8], wide[:, :4].contiguous(), torch.ones(()).expand(2, 4, 5, 7)):
        grads = []
        for dense in (gradient, gradient.clone(memory_format=torch.channels_last)):
            torch.manual_seed(0)
            x, bn = map_of((2, 4, 5, 7)).requires_grad_(), normalisation(4)
            norm_act(x, bn, nn.Mish()).backward(dense)
            assert x.grad is not None
            grads.append(x.grad)
        assert torch.equal(*grads)


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    x, gradient, start = map_of((4, 48, 60, 60)), map_of((4, 48, 60, 60)), normalisation(48)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        bn, leaf = copy.deepcopy(start), x.clone().requires_grad_()
        y = norm_act(leaf, bn, nn.Mish())
        y.backward(gradient)
        results.append([y.detach(), leaf.grad, bn.weight.grad, bn.bias.grad, bn.running_var])
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.slow
def test_the_process_that_compiles_gets_the_bits_of_those_that_find_the_code(tmp_path: Path) -> None:
    script = """
        import hashlib, torch
        from torch import nn
        from yolo_core.models.norm_act import norm_act
        torch.manual_seed(0)
        for dtype in (torch.float32, torch.bfloat16):
            for act in (nn.LeakyReLU(0.1), nn.SiLU(), nn.Mish()):
                x = torch.randn(2, 32, 16, 16).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
                y = norm_act(x, nn.BatchNorm2d(32), act)
                y.backward(torch.randn(y.shape).to(dtype))
                for tensor in (y, x.grad):
                    print(hashlib.sha256(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest())
    """
    command, env = [sys.executable, "-c", textwrap.dedent(script)], os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (subprocess.run(command, env=env, capture_output=True, text=True, check=True) for _ in range(2))
    assert len(set(first.stdout.split())) == 12
    assert second.stdout == first.stdout


@pytest.mark.parametrize("case", ["evaluation", "float64", "channels first", "another activation", "subclass"])
def test_everything_else_is_left_to_pytorch(case: str) -> None:
    x, bn, act = map_of((2, 3, 4, 5)), normalisation(3), nn.Mish()
    if case == "evaluation":
        bn.eval()
    if case == "float64":
        x, bn = x.double(), bn.double()
    if case == "channels first":
        x = x.contiguous()
    if case == "another activation":
        act = nn.Hardswish()
    if case == "subclass":
        bn = type("Other", (nn.BatchNorm2d,), {})(3)
    expected = act(copy.deepcopy(bn)(x))
    y = norm_act(x.requires_grad_(), bn, act)
    assert not at_once(y)
    assert torch.equal(y.detach(), expected.detach())


def test_a_single_cell_has_no_variance() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm_act(torch.ones(1, 3, 1, 1), normalisation(3), nn.Mish())


def test_only_the_input_is_kept_for_the_backward_pass() -> None:
    x, kept = map_of((2, 16, 20, 20)).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        norm_act(x, normalisation(16), nn.Mish())
    assert sorted(kept)[-2:] == [16, x.numel()]
