"""Devices and precisions: what is accepted and what is refused."""

import subprocess
import sys

import pytest
import torch

from yolo_core.device import autocast, autocast_dtype, describe, has_fast_bf16, pick_device
from yolo_core.errors import UserError

CPU = torch.device("cpu")


def test_auto_picks_a_gpu_where_there_is_one() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("text", ["gpu", "cuda:99", "meta", "cuda:x"])
def test_a_missing_device_is_named(text: str) -> None:
    with pytest.raises(UserError, match=text):
        pick_device(text)


def test_precision_on_the_cpu() -> None:
    assert autocast_dtype(CPU, "fp32") is None
    assert autocast_dtype(CPU, "bf16") is torch.bfloat16
    assert autocast_dtype(CPU, "auto") is (torch.bfloat16 if has_fast_bf16(CPU) else None)
    with pytest.raises(UserError, match="fp16 needs a CUDA device"):
        autocast_dtype(CPU, "fp16")
    with pytest.raises(UserError, match="'int8' is not one of"):
        autocast_dtype(CPU, "int8")


@pytest.mark.parametrize(("dtype", "expected"), [(None, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_autocast(dtype: torch.dtype | None, expected: torch.dtype) -> None:
    with autocast(CPU, dtype):
        assert torch.nn.Conv2d(1, 1, 1)(torch.ones(1, 1, 2, 2)).dtype is expected


def test_description_names_the_threads() -> None:
    assert f"({torch.get_num_threads()} threads)" in describe(CPU)


def test_the_peak_memory_is_that_of_this_process_alone():
    """A child of a process that holds 400 MB: getrusage counts them until the child's own program begins."""
    code = "import torch, yolo_core.device as d; print(d.peak_memory(torch.device('cpu')))"
    alone = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    held = f"import subprocess, sys; held = bytearray(b'x') * ({alone} + 400_000_000)\n"
    run = f"print(subprocess.run([sys.executable, '-c', {code!r}], capture_output=True, text=True).stdout)"
    child = int(subprocess.run([sys.executable, "-c", held + run], capture_output=True, text=True, check=True).stdout)
    assert child == pytest.approx(alone, rel=0.2)
