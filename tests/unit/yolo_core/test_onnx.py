"""ONNX files against PyTorch: same predictions at any batch, same detections with NMS in the graph."""

import copy
import sys

import pytest
import torch

from yolo_core.deploy.onnx import OnnxPredictor, export_onnx, open_session, run_nms
from yolo_core.deploy.onnx_nms import add_nms
from yolo_core.errors import UserError
from yolo_core.evaluate.nms import nms
from yolo_core.evaluate.suppression import Suppression
from yolo_core.evaluate.tta import Plain
from yolo_core.models import build_model
from yolo_core.models.fuse import fuse

SIZE, CLASSES = 96, ["one", "two", "three"]


@pytest.fixture(scope="module")
def fused():
    torch.manual_seed(0)
    model = build_model("yolov4-tiny", 3, width=0.125)
    model.train()
    with torch.no_grad():
        for _ in range(5):  # running statistics that are not the initial ones
            model(torch.rand(4, 3, SIZE, SIZE))
        for level in model.head.levels:  # objects everywhere, of all classes
            level.weight.mul_(100)
            level.bias.zero_()
    return fuse(model)


@pytest.fixture(scope="module")
def folder(fused, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(fused, folder / "model.onnx", classes=CLASSES, size=SIZE, opset=20)
    add_nms(folder / "model.onnx", folder / "model_nms.onnx", Suppression(0.3, 0.5, 300))
    return folder


@pytest.mark.parametrize("batch", [1, 3])
def test_predictions_equal_pytorch(fused, folder, batch):
    images = torch.rand(batch, 3, SIZE, SIZE)
    expected, found = Plain(fused)(images), OnnxPredictor(folder / "model.onnx", threads=1)(images)
    assert found.shape == expected.shape == (batch, 3 * (6 * 6 + 3 * 3), 8)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_shapes_and_metadata_are_in_the_file(folder):
    predictor = OnnxPredictor(folder / "model.onnx")
    assert predictor.size == SIZE
    assert predictor.metadata["model"] == "yolov4-tiny"
    assert predictor.metadata["classes"] == CLASSES
    assert predictor.metadata["strides"] == [16, 32]
    assert len(predictor.metadata["anchors"]) == 2
    (images,), (predictions,) = predictor.session.get_inputs(), predictor.session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(float)", ["batch", 3, SIZE, SIZE])
    assert (predictions.name, predictions.shape) == ("predictions", ["batch", 135, 8])
    (detections,) = open_session(folder / "model_nms.onnx").get_outputs()
    assert (detections.name, detections.shape) == ("detections", ["found", 7])


def test_suppression_in_the_graph_equals_ours(fused, folder):
    images = torch.rand(3, 3, SIZE, SIZE)
    found = run_nms(open_session(folder / "model_nms.onnx"), images)
    expected = nms(Plain(fused)(images), Suppression(0.3, 0.5, 10_000))
    assert min(map(len, expected)) > 20
    for ours, theirs in zip(expected, found, strict=True):
        # Scores that differ by rounding may come in another order: compare by class, then score.
        order = [rows[(rows[:, 5] * 1000 + rows[:, 4]).argsort()] for rows in (ours, theirs)]
        assert order[0].shape == order[1].shape
        assert torch.allclose(order[0], order[1], rtol=1e-3, atol=1e-3)


def test_an_image_without_detections(fused, tmp_path, folder):
    add_nms(folder / "model.onnx", tmp_path / "none.onnx", Suppression(0.999999, 0.5, 10))
    found = run_nms(open_session(tmp_path / "none.onnx"), torch.rand(2, 3, SIZE, SIZE))
    assert [one.shape for one in found] == [(0, 6), (0, 6)]


def test_the_oldest_opset(fused, tmp_path):
    export_onnx(fused, tmp_path / "old.onnx", classes=CLASSES, size=SIZE, opset=17)
    images = torch.rand(1, 3, SIZE, SIZE)
    assert torch.allclose(OnnxPredictor(tmp_path / "old.onnx")(images), Plain(fused)(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("opset", "half"), [(17, False), (18, False), (20, False), (20, True)])
@pytest.mark.parametrize("most", [1, 10])
def test_the_graph_keeps_the_best_of_each_image_over_all_classes(fused, tmp_path, opset, half, most):
    """Per class, 3 classes would give 3 and 30 rows."""
    model = copy.deepcopy(fused).half() if half else fused
    export_onnx(model, tmp_path / "plain.onnx", classes=CLASSES, size=SIZE, opset=opset, half=half)
    add_nms(tmp_path / "plain.onnx", tmp_path / "nms.onnx", Suppression(0.3, 0.5, most))
    images = torch.rand(3, 3, SIZE, SIZE)
    predictions = OnnxPredictor(tmp_path / "plain.onnx")(images)
    session = open_session(tmp_path / "nms.onnx")
    for ours, theirs in zip(nms(predictions, Suppression(0.3, 0.5, most)), run_nms(session, images), strict=True):
        assert len(ours) == len(theirs) == most
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    (rows,) = session.run(["detections"], {"images": images.numpy()})
    order = [(image, kind, -score) for image, *_, score, kind in rows.tolist()]
    assert order == sorted(order), "by image, then class, then falling score"


def test_images_without_detections_stand_between_others(fused, tmp_path, folder):
    """Of 4 images the first and third are grey, on which this detector finds nothing at this threshold."""
    images = torch.full((4, 3, SIZE, SIZE), 0.5)
    images[1::2] = torch.rand(2, 3, SIZE, SIZE)
    scores = [(one[:, 4:5] * one[:, 5:]).max().item() for one in Plain(fused)(images)]
    conf = (max(scores[0], scores[2]) + min(scores[1], scores[3])) / 2
    assert max(scores[0], scores[2]) < conf < min(scores[1], scores[3])
    add_nms(folder / "model.onnx", tmp_path / "nms.onnx", Suppression(conf, 0.5, 2))
    found = run_nms(open_session(tmp_path / "nms.onnx"), images)
    expected = nms(Plain(fused)(images), Suppression(conf, 0.5, 2))
    assert [len(one) for one in found] == [len(one) for one in expected]
    assert [len(one) > 0 for one in found] == [False, True, False, True]


def test_float16_graph_is_close(fused, tmp_path):
    export_onnx(copy.deepcopy(fused).half(), tmp_path / "half.onnx", classes=CLASSES, size=SIZE, opset=20, half=True)
    images = torch.rand(1, 3, SIZE, SIZE)
    found, expected = OnnxPredictor(tmp_path / "half.onnx")(images), Plain(fused)(images)
    assert found.dtype == torch.float32
    assert (found - expected)[..., 4:].abs().max() < 0.05


@pytest.fixture(scope="module")
def mish():
    """A small detector with Mish, whose activations range from far below to far above zero."""
    torch.manual_seed(0)
    model = build_model("yolov4-csp", 3, width=0.125, depth=0.34).train()
    with torch.no_grad():
        model(torch.rand(4, 3, SIZE, SIZE))
        for name, weight in model.named_parameters():
            if name.endswith("bn.weight"):
                weight.mul_(3)
        for level, raw in zip(model.head.levels, model.eval()(torch.rand(4, 3, SIZE, SIZE)), strict=True):
            level.weight.div_(raw.std())  # outputs are moderate again
            level.bias.zero_()
    return fuse(model)


@pytest.mark.parametrize("opset", [17, 20])
def test_mish_is_written_without_softplus_and_equals_pytorch(mish, tmp_path, opset):
    onnx = pytest.importorskip("onnx")
    inputs = []
    for module in mish.modules():
        if isinstance(module, torch.nn.Mish):
            module.register_forward_hook(lambda _, args, __: inputs.append(args[0]))
    export_onnx(mish, tmp_path / "mish.onnx", classes=CLASSES, size=SIZE, opset=opset)
    inputs.clear()
    images = torch.rand(2, 3, SIZE, SIZE)
    expected = Plain(mish)(images)
    seen = torch.cat([values.flatten() for values in inputs])
    assert seen.min() < -20
    assert seen.max() > 20
    assert torch.allclose(OnnxPredictor(tmp_path / "mish.onnx")(images), expected, rtol=1e-3, atol=1e-3)
    assert not {node.op_type for node in onnx.load(tmp_path / "mish.onnx").graph.node} & {"Softplus", "Tanh"}


def test_an_opset_beyond_the_exporter_is_refused(fused, tmp_path):
    with pytest.raises(UserError, match=r"opset = 21: .* up to 20"):
        export_onnx(fused, tmp_path / "new.onnx", classes=CLASSES, size=SIZE, opset=21)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_names_the_extra(fused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"onnx: not installed .*scaled-yolov4\[export\]"):
        export_onnx(fused, tmp_path / "x.onnx", classes=CLASSES, size=SIZE, opset=20)


def test_a_damaged_file_is_one_line(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    with pytest.raises(UserError, match=r"bad\.onnx: ONNX Runtime cannot open it"):
        OnnxPredictor(tmp_path / "bad.onnx")
