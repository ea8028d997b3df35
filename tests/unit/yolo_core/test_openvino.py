"""OpenVINO files against PyTorch: the same predictions in float32, similar ones in fewer bits, and no telemetry."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from yolo_core.deploy import openvino
from yolo_core.deploy.openvino import OpenVINOPredictor, convert, quantise
from yolo_core.errors import UserError
from yolo_core.evaluate.tta import Plain
from yolo_core.models import build_model
from yolo_core.models.fuse import fuse

SIZE, CLASSES = 96, ["one", "two", "three"]
pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def fused():
    torch.manual_seed(0)
    model = build_model("yolov4-csp", 3, width=0.125, depth=0.34).train()
    with torch.no_grad():
        for _ in range(20):  # running statistics that are not the initial ones
            model(torch.rand(4, 3, SIZE, SIZE))
        for level in model.head.levels:  # objects everywhere, of all classes
            level.weight.mul_(30)
            level.bias.zero_()
    return fuse(model)


@pytest.fixture(scope="module")
def folder(fused, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino")
    convert(fused, folder / "model.xml", classes=CLASSES, size=SIZE)
    return folder


@pytest.mark.parametrize("batch", [1, 3])
def test_float32_equals_pytorch(fused, folder, batch):
    images = torch.rand(batch, 3, SIZE, SIZE)
    expected, found = Plain(fused)(images), OpenVINOPredictor(folder / "model.xml", "fp32", threads=1)(images)
    assert found.shape == expected.shape == (batch, 3 * (12 * 12 + 6 * 6 + 3 * 3), 8)
    assert expected[..., 4:].std() > 0.1, "a detector that is sure of something"
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(openvino.why_not("bf16") is not None, reason=str(openvino.why_not("bf16")))
def test_bfloat16_is_near(fused, folder):
    images = torch.rand(2, 3, SIZE, SIZE)
    gap = (OpenVINOPredictor(folder / "model.xml", "bf16")(images) - Plain(fused)(images))[..., 4:].abs()
    assert gap.max() > 1e-4, "it was computed in bfloat16"
    assert gap.mean() < 0.01


@pytest.mark.slow
def test_int8_is_near(fused, folder):
    pytest.importorskip("nncf")
    images = [torch.rand(1, 3, SIZE, SIZE) for _ in range(8)]
    quantise(folder / "model.xml", folder / "int8.xml", images, len(images))
    assert (folder / "int8.bin").stat().st_size < 0.4 * (folder / "model.bin").stat().st_size
    predictor = OpenVINOPredictor(folder / "int8.xml", "int8", threads=1)
    assert predictor.metadata["classes"] == CLASSES, "facts outlive the quantisation"
    gap = (predictor(images[0]) - Plain(fused)(images[0]))[..., 4:].abs()
    assert gap.max() > 1e-3, "it was computed in integers"
    assert gap.mean() < 0.05


def test_results_do_not_change_with_later_images(folder):
    predictor = OpenVINOPredictor(folder / "model.xml", "fp32")
    first = predictor(torch.zeros(1, 3, SIZE, SIZE))
    kept = first.clone()
    predictor(torch.ones(1, 3, SIZE, SIZE))
    assert torch.equal(first, kept)


def test_metadata_is_in_the_file(folder):
    predictor = OpenVINOPredictor(folder / "model.xml", "fp32")
    assert predictor.size == SIZE
    assert (predictor.metadata["model"], predictor.metadata["classes"]) == ("yolov4-csp", CLASSES)
    assert predictor.metadata["strides"] == [8, 16, 32]


def test_what_is_missing_is_named(fused, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "nncf", None)
        assert openvino.why_not("int8") is None, "a quantised file runs without its quantiser"
        assert "nncf package is not installed (pip install 'scaled-yolov4[openvino]')" in str(
            openvino.why_not_made("int8")
        )
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "openvino package is not installed" in str(openvino.why_not("fp32"))
    with pytest.raises(UserError, match=r"openvino: not installed .*scaled-yolov4\[openvino\]"):
        convert(fused, tmp_path / "x.xml", classes=CLASSES, size=SIZE)
    assert not list(tmp_path.iterdir())


def test_bfloat16_needs_its_instructions(monkeypatch):
    monkeypatch.setattr(openvino, "has_fast_bf16", lambda device: False)
    assert openvino.why_not("bf16") == "this CPU has no bfloat16 instructions"
    assert openvino.why_not("fp32") is None


@pytest.mark.parametrize("content", [None, "<net"])
def test_a_missing_or_damaged_file_is_one_line(tmp_path, content):
    if content:
        (tmp_path / "bad.xml").write_text(content)
    with pytest.raises(UserError, match=r"bad\.xml: OpenVINO cannot open it ") as error:
        OpenVINOPredictor(tmp_path / "bad.xml", "fp32")
    assert "\n" not in str(error.value)


def test_nothing_is_sent_or_left_in_the_home(tmp_path):
    """Both packages come with their own telemetry, which keeps an identity in the home folder."""
    pytest.importorskip("nncf")
    script = """
        import sys
        talk = []
        sys.addaudithook(lambda event, args: talk.append(event) if event.startswith(("socket.", "urllib.")) else None)
        from pathlib import Path
        import torch
        from yolo_core.deploy.openvino import OpenVINOPredictor, convert, quantise
        from yolo_core.models import build_model
        from yolo_core.models.fuse import fuse
        convert(fuse(build_model("yolov4-tiny", 1, width=0.125)), Path("model.xml"), classes=["one"], size=64)
        quantise(Path("model.xml"), Path("int8.xml"), [torch.rand(1, 3, 64, 64)], 1)
        OpenVINOPredictor(Path("int8.xml"), "int8")(torch.rand(1, 3, 64, 64))
        print(talk, [name for name in sys.modules if name.startswith("openvino_telemetry.")])
    """
    (tmp_path / "home").mkdir()
    hosted = ("CI", "TF_BUILD", "JENKINS_URL")  # where the reporter would send nothing anyway
    env = {name: value for name, value in os.environ.items() if name not in hosted}
    env |= {"HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[] []\n"
    assert not (tmp_path / "home/intel").exists()


def test_signals_are_handled_after_predictors_went_in_the_order_they_came(folder):
    script = """
        import faulthandler, signal, subprocess, sys
        from pathlib import Path
        from yolo_core.deploy.openvino import OpenVINOPredictor
        faulthandler.enable()  # handlers run on their own stack
        signal.signal(signal.SIGCHLD, lambda *_: None)
        predictors = [OpenVINOPredictor(Path(sys.argv[1]), "fp32") for _ in range(3)]
        while predictors:
            del predictors[0]
        subprocess.run(["true"])
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder / "model.xml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
