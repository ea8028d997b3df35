"""Hostile checkpoints and weights: refused in one line, and no code in them is executed."""

import functools
import hashlib
import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import damaged_bytes, damaged_json, damaged_tree, fuzz, outcome
from hypothesis import strategies as st
from torch import nn

from yolo_core.errors import UserError
from yolo_core.models import build_model
from yolo_core.models.blocks import ConvBnAct
from yolo_core.models.official_weights import DARKNET_ORDER, PYTORCH_NAMES, load_official
from yolo_core.models.restricted_pickle import batch_norm_eps, read, tensors
from yolo_core.models.weights import load_detector, save_detector
from yolo_core.train import checkpoint

MODEL, WIDTH = "yolov4-tiny", 0.02
PARAMETERS: dict[str, Any] = {"model": MODEL, "size": 64, "hyp": {"lr0": 0.01}}


@functools.cache
def detector() -> Any:
    torch.manual_seed(0)
    return build_model(MODEL, num_classes=2, width=WIDTH)


# --- checkpoints


@functools.cache
def checkpoint_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        weights = {"model": {"a": torch.ones(4, 4)}, "ema": {"a": torch.zeros(4, 4)}}
        path = checkpoint.save(Path(folder), 7, weights, {"rows": [{"AP": None}]}, PARAMETERS)
        return {file.name: file.read_bytes() for file in path.iterdir()}


@st.composite
def damaged_checkpoint(draw: st.DrawFn) -> dict[str, bytes]:
    """A checkpoint with a damaged file, usually with matching checksums."""
    files = dict(checkpoint_files())
    name = draw(st.sampled_from([checkpoint.TENSORS, checkpoint.STATE, checkpoint.SUMS]))
    if name == checkpoint.STATE and draw(st.booleans()):
        files[name] = draw(damaged_json(json.loads(files[name])))
    else:
        files[name] = draw(damaged_bytes(files[name]))
    if name != checkpoint.SUMS and draw(st.integers(0, 4)):
        sums = {each: hashlib.sha256(files[each]).hexdigest() for each in (checkpoint.TENSORS, checkpoint.STATE)}
        files[checkpoint.SUMS] = "".join(f"{digest}  {each}\n" for each, digest in sums.items()).encode()
    return files


@fuzz("checkpoints", damaged_checkpoint())
def test_checkpoints(case: dict[str, bytes], folder: Path) -> None:
    """A checkpoint folder, as resuming reads it: skipped with a log line, refused, or intact."""
    step = folder / "step-00000007"
    step.mkdir()
    for name, data in case.items():
        (step / name).write_bytes(data)
    lines: list[str] = []

    def act() -> Any:
        newest = checkpoint.newest(folder, lines.append)
        return checkpoint.load(newest, PARAMETERS) if newest else None

    result = outcome(act, folder)
    assert all(len(line.splitlines()) == 1 for line in lines)
    assert (result is None) == bool(lines)


# --- model.safetensors


@functools.cache
def detector_file() -> tuple[dict[str, Any], bytes]:
    """The JSON header of a detector file, and the data after it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        save_detector(path, detector(), classes=["one", "two"], size=64)
        data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


@st.composite
def damaged_detector(draw: st.DrawFn) -> bytes:
    """A detector file damaged in its tensor table, in its description, or anywhere."""
    head, body = detector_file()
    match draw(st.sampled_from(["table", "description", "description", "text", "bytes"])):
        case "table":
            text = draw(damaged_json(head))
        case "description":
            inner = draw(damaged_tree(json.loads(head["__metadata__"]["detector"])))
            text = json.dumps({**head, "__metadata__": {"detector": json.dumps(inner)}}).encode()
        case "text":
            inner = draw(damaged_json(json.loads(head["__metadata__"]["detector"]))).decode("latin-1")
            text = json.dumps({**head, "__metadata__": {"detector": inner}}).encode()
        case _:
            text = json.dumps(head).encode()
            return draw(damaged_bytes(struct.pack("<Q", len(text)) + text + body))
    return struct.pack("<Q", len(text)) + text + body


@fuzz("detectors", damaged_detector())
def test_detectors(case: bytes, folder: Path) -> None:
    """A model.safetensors, as evaluation reads it."""
    path = folder / "model.safetensors"
    path.write_bytes(case)
    outcome(lambda: load_detector(path), folder)


# --- Darknet


@functools.cache
def darknet_file() -> bytes:
    numbers = []
    for layer in DARKNET_ORDER[MODEL](detector()):
        module = detector().get_submodule(layer)
        names = ("bias", "weight", "running_mean", "running_var")
        if isinstance(module, ConvBnAct):
            numbers += [*(getattr(module.bn, name) for name in names), module.conv.weight]
        else:
            numbers += [module.bias, module.weight]
    flat = np.concatenate([tensor.detach().numpy().ravel() for tensor in numbers])
    return struct.pack("<3iq", 0, 2, 0, 32_000) + flat.astype("<f4").tobytes()


def test_the_darknet_file_is_valid(tmp_path: Path):
    path = tmp_path / "a.weights"
    path.write_bytes(darknet_file())
    assert not load_official(build_model(MODEL, 2, WIDTH), path).unused


@fuzz("darknet", st.deferred(lambda: damaged_bytes(darknet_file())))
def test_darknet_weights(case: bytes, folder: Path) -> None:
    """A .weights file, as `import-weights` reads it."""
    path = folder / "a.weights"
    path.write_bytes(case)
    model = build_model(MODEL, 2, WIDTH)
    outcome(lambda: load_official(model, path), folder)


# --- .pt


@functools.cache
def pt_entries() -> dict[str, bytes]:
    """Entry -> content of a training checkpoint in the authors' format."""
    own = detector().state_dict()
    model = {theirs: own[name] for name, theirs in PYTORCH_NAMES[MODEL](detector()).items() if name in own}
    content = {"model": model, "layer": nn.Linear(2, 2), "epoch": 3, "at": np.float64(0.5), "ema": None}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pt_file(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


EVIL = ["os system", "builtins eval", "builtins getattr", "subprocess Popen", "torch.serialization load", "numpy load"]
OPERATIONS = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.sampled_from(
        [*EVIL, "collections OrderedDict", "torch FloatStorage", "torch.Size x", "torch.device device"]
    ).map(lambda names: b"c" + names.replace(" ", "\n").encode() + b"\n"),
    st.sampled_from([bytes([code]) for code in b"()}]\x85\x86\x87Rbsueat02Q\x81N\x97\x93"]),
    st.sampled_from([b"q\0", b"h\0", b"X\1\0\0\0a", b"K\1", b"\x82\1", b"ios\nsystem\n", b"I" + b"9" * 5000 + b"\n"]),
    st.sampled_from([b"r\0\0\0\x10", *(kind + b"\xff\xff\xff\x7f" for kind in (b"r", b"B", b"X", b"\x8b"))]),
    st.sampled_from(
        [kind + b"\xff" * 7 + last for kind in (b"\x8e", b"\x95", b"\x8a\x08") for last in (b"\x7f", b"\xff")]
    ),
)


@st.composite
def damaged_pt(draw: st.DrawFn) -> bytes:
    """A .pt file with a damaged pickle, a made-up pickle, a damaged storage, or a damaged archive."""
    entries = dict(pt_entries())
    script = next(name for name in entries if name.endswith("data.pkl"))
    match draw(st.sampled_from(["pickle", "pickle", "operations", "operations", "other entry", "archive", "packed"])):
        case "pickle":
            entries[script] = draw(damaged_bytes(entries[script]))
        case "operations":
            operations = b"".join(draw(st.lists(OPERATIONS, max_size=40)))
            at = draw(st.sampled_from([0, 2, draw(st.integers(0, len(entries[script])))]))
            entries[script] = entries[script][:at] + operations + draw(st.sampled_from([b".", entries[script][at:]]))
        case "other entry":
            name = draw(st.sampled_from(sorted(entries)))
            entries[name] = draw(damaged_bytes(entries[name]))
        case "archive":
            return draw(damaged_bytes(pt_file(entries)))
        case "packed":
            return pt_file(entries, zipfile.ZIP_DEFLATED)
    return pt_file(entries)


@fuzz("pickles", damaged_pt())
def test_official_pt_files(case: bytes, folder: Path) -> None:
    """A .pt file, as `import-weights` reads it."""
    path = folder / "a.pt"
    path.write_bytes(case)
    model = build_model(MODEL, 2, WIDTH)
    outcome(lambda: load_official(model, path), folder)


def test_the_pt_file_is_valid(tmp_path: Path):
    path = tmp_path / "a.pt"
    path.write_bytes(pt_file(pt_entries()))
    report = load_official(build_model(MODEL, 2, WIDTH), path)
    assert len(report.matched) > 50
    assert not report.unused


STORAGE = b"((X\7\0\0\0storageq\1ctorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuM\xe8\3tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n" + STORAGE + b"K\0M\xe8\3\x85K\1\x85\x89}tR"
BOMBS = {
    "a memo at a large index": b"}r\xff\xff\xff\x7f.",
    "a text longer than the file": b"X\xff\xff\xff\x7fa.",
    "keys of tuples of tuples": b"}))" + b"q\0\x86h\0".join([b""] * 60) + b"Ns.",
    "a very deep key": b"})" + b"\x85" * 150_000 + b"Ns.",
    "one storage as many tensors": b"(" + TENSOR + b"0" + TENSOR * 3000 + b"l.",
    "a long size for many tensors": b"(" + b"K\1" * 5000 + b"tq\0" + b"0h\0" * 5000 + b".",
}


@pytest.mark.parametrize("script", BOMBS.values(), ids=BOMBS.keys())
def test_small_files_that_demand_much(script: bytes, tmp_path: Path):
    path = tmp_path / "a.pt"
    path.write_bytes(pt_file({"a/data.pkl": b"\x80\2" + script, "a/data/0": bytes(4000)}))
    assert isinstance(outcome(lambda: load_official(build_model(MODEL, 2, WIDTH), path), tmp_path), UserError)


def test_nested_layers_are_visited_once(tmp_path: Path):
    """Each of 30 layers holds the next one twice: 2^30 paths through a file of a few hundred bytes."""
    layer = b"ctorch.nn.modules.linear\nLinear\n)\x81}X\x08\0\0\0_modules}(X\1\0\0\0a%bX\1\0\0\0b%busb"
    script = b"N"
    for index in range(30):
        put = b"q" + bytes([index])
        script = script + put + b"0" + layer % ((b"h" + bytes([index]),) * 2)
    path = tmp_path / "a.pt"
    path.write_bytes(pt_file({"a/data.pkl": b"\x80\2" + script + b"."}))

    def act() -> Any:
        tree = read(path)
        return tensors(tree), batch_norm_eps(tree)

    assert outcome(act, tmp_path) == ({}, {})


class Evil:
    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_code_in_a_pickle_is_not_run(protocol: int, tmp_path: Path):
    script = pickle.dumps({"model": Evil(os.system, f"touch {tmp_path}/ran")}, protocol)
    path = tmp_path / "a.pt"
    path.write_bytes(pt_file({"a/data.pkl": script}))
    refused = outcome(lambda: load_official(build_model(MODEL, 2, WIDTH), path), tmp_path)
    assert isinstance(refused, UserError)
    assert not (tmp_path / "ran").exists()
