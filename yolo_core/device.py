"""Devices and the precision of their arithmetic."""

from __future__ import annotations

import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from yolo_core.errors import UserError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def pick_device(text: str = "auto") -> torch.device:
    """The device named by `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the first CUDA device, else the CPU.

    Raises UserError for a device that this machine does not have.
    """
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        raise UserError(f"device: '{text}' is not a device: give auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device: '{text}' is not supported: give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"device: '{text}' is not available: this machine has {count} CUDA devices; give auto or cpu")
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic has its own instructions here (Ampere and newer; AVX512-BF16 or AMX).

    oneDNN's own answer is not enough: it also accepts CPUs that emulate bfloat16, slowly.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    can = torch.cpu.get_capabilities()
    return torch.backends.mkldnn.is_available() and bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def autocast_dtype(device: torch.device, precision: str = "auto") -> torch.dtype | None:
    """The dtype for autocast, None for plain float32.

    precision: auto (bf16 where fast, fp16 on older GPUs, else fp32), fp32, bf16 or fp16 (CUDA only).
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision: '{precision}' is not one of {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise UserError("precision: fp16 needs a CUDA device; give auto, bf16 or fp32")
    if precision == "auto":
        if has_fast_bf16(device):
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """The context in which forward passes run; a null context where `dtype` is None."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def describe(device: torch.device) -> str:
    """The name and size of the device, for records."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name} ({properties.total_memory / 2**30:.0f} GiB)"
    return f"{_cpu_name()} ({torch.get_num_threads()} threads)"


def peak_memory(device: torch.device) -> int:
    """The most bytes so far that PyTorch reserved on the GPU, or for the CPU that this process had in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if found := _status("VmHWM"):
        return found * 1024
    import resource  # Unix only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(name: str) -> int | None:
    """A size in KiB from Linux's record of this process, which unlike getrusage leaves out who started it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
