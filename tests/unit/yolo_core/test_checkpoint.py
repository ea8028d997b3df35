"""Checkpoints: what is written comes back, damage is found, other parameters are refused."""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from yolo_core.errors import UserError
from yolo_core.train import checkpoint

PARAMETERS: dict[str, Any] = {"model": "yolov4-tiny", "size": 64, "hyp": {"lr0": 0.01}, "anchors": ((1.0, 2.0),)}


def save(folder: Path, step: int, **state: Any) -> Path:
    tensors = {"model": {"a.weight": torch.full((2, 2), float(step))}, "momentum": {"a.weight": torch.ones(2, 2)}}
    return checkpoint.save(folder, step, tensors, state, PARAMETERS)


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_round_trip(tmp_path: Path) -> None:
    path = save(tmp_path, 7, sums=[0.1, 1 / 3], rows=[{"AP": None}])
    saved = checkpoint.load(path, PARAMETERS)
    assert torch.equal(saved.tensors["model"]["a.weight"], torch.full((2, 2), 7.0))
    assert set(saved.tensors) == {"model", "momentum"}
    assert (saved.state["step"], saved.state["sums"], saved.state["rows"]) == (7, [0.1, 1 / 3], [{"AP": None}])


def test_tensors_of_any_layout_come_back(tmp_path: Path) -> None:
    tensor = torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last)
    path = checkpoint.save(tmp_path, 1, {"model": {"w": tensor}}, {}, PARAMETERS)
    assert torch.equal(checkpoint.load(path, PARAMETERS).tensors["model"]["w"], tensor)


def test_the_newest_is_found_and_only_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 50, 500):
        save(tmp_path, step)
    assert [path.name for path in checkpoint.found(tmp_path)] == ["step-00000500", "step-00000050"]
    assert checkpoint.newest(tmp_path, pytest.fail) == tmp_path / "step-00000500"


def test_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nowhere", pytest.fail) is None


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE, checkpoint.SUMS])
def test_a_damaged_newest_one_falls_back_to_the_one_before(tmp_path: Path, name: str) -> None:
    save(tmp_path, 5)
    damage(save(tmp_path, 50) / name)
    lines: list[str] = []
    assert checkpoint.newest(tmp_path, lines.append) == tmp_path / "step-00000005"
    assert len(lines) == 1
    assert "step-00000050 is damaged" in lines[0]
    assert "resuming from the one before" in lines[0]
    assert checkpoint.newest(tmp_path, pytest.fail) == tmp_path / "step-00000005"  # reported once


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE, checkpoint.SUMS])
def test_a_truncated_or_missing_file_is_damage(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 5)
    (path / name).write_bytes((path / name).read_bytes()[:20])
    with pytest.raises(checkpoint.Damaged):
        checkpoint.verify(path)
    (path / name).unlink()
    with pytest.raises(checkpoint.Damaged):
        checkpoint.verify(path)


def test_a_step_can_be_written_again(tmp_path: Path) -> None:
    damage(save(tmp_path, 5) / checkpoint.TENSORS)
    checkpoint.verify(save(tmp_path, 5))


def test_the_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    subprocess.run(["sha256sum", "--check", "--quiet", checkpoint.SUMS], cwd=path, check=True)


def test_other_parameters_are_refused_with_the_difference(tmp_path: Path) -> None:
    path = save(tmp_path, 5)
    other = {**PARAMETERS, "size": 96, "hyp": {"lr0": 0.02}, "seed": 1}
    with pytest.raises(UserError) as caught:
        checkpoint.load(path, other)
    message = str(caught.value)
    assert "size: 64 there, 96 here" in message
    assert "hyp.lr0: 0.01 there, 0.02 here" in message
    assert 'seed: "nothing" there, 1 here' in message
    assert "model" not in message.split("other parameters: ")[1]
    assert "\n" not in message


def test_the_state_is_plain_json(tmp_path: Path) -> None:
    path = save(tmp_path, 5, random=[checkpoint.random_state()])
    assert json.loads((path / checkpoint.STATE).read_text())["parameters"]["size"] == 64
    assert not [file for file in path.iterdir() if file.suffix not in (".json", ".safetensors", "")]


def test_random_states_come_back() -> None:
    def draw() -> tuple[float, float, float, float]:
        numpy_draws = float(np.random.normal()), float(np.random.random())  # noqa: NPY002 - the global generator
        return random.gauss(0, 1), *numpy_draws, torch.rand(()).item()

    draw()  # leaves half a pair of normal numbers pending in both generators
    state = json.loads(json.dumps(checkpoint.random_state()))
    expected = [draw() for _ in range(3)]
    checkpoint.set_random_state(state)
    assert [draw() for _ in range(3)] == expected
