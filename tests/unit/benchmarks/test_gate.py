"""The simulation of the gate, from the command line to its last line."""

import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import gate


def test_two_champions_and_three_challengers_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Of 12 images with an object each; 2 x 3 = 6 versions are as good, so a fraction promoted is a sixth of 0 to 6."""
    numbers = range(1, 13)
    images = [{"id": i, "width": 64, "height": 64, "file_name": f"{i}.jpg"} for i in numbers]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [8, 8, 40, 40], "area": 1600, "iscrowd": 0} for i in numbers
    ]
    truth, found = tmp_path / "truth.json", tmp_path / "found.json"
    truth.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}))
    found.write_text(
        json.dumps([{"image_id": i, "category_id": 1, "bbox": [9, 9, 40, 40], "score": i / 20} for i in numbers])
    )
    for name, count in {"DRAWS": 10, "BETTER": 3, "SAMPLES": 100}.items():
        monkeypatch.setattr(gate, name, count)
    size = ["--champions", "2", "--challengers", "3", "--processes", "1"]
    monkeypatch.setattr(sys, "argv", ["gate", "--annotations", str(truth), "--detections", str(found), *size])
    gate.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 champions, 3 equal challengers each, 12 images"
    for line in lines[3:6]:
        shares = re.search(r": ([\d.]+)% of challengers, ([\d.]+)% of champions replaced$", line)
        assert shares
        assert float(shares[1]) * 6 / 100 == pytest.approx(round(float(shares[1]) * 6 / 100), abs=1e-3)
        assert float(shares[2]) in (0, 50, 100)
    assert len(lines) == 6 + 1 + 3
    assert all(line.endswith("% at look 100") for line in lines[7:])
