"""Register into a real MLflow store, and what the registered model answers."""

import base64
import json
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import get_model_info
from mlflow.pyfunc import PyFuncModel, load_model
from parameter_reads import run
from stage_outputs import DECISION, MODEL, Outputs, load_params, make_dataset, make_outputs
from waiting import LIMIT_S

from components.datasets.manifest import validation_digest
from components.lineage import record as lineage_record
from components.serving.packaging import SERVING_PACKAGES
from components.stages import register
from components.tracking import connection
from components.tracking import runs as tracking
from yolo_core import Detector
from yolo_core.data.coco import load_split
from yolo_core.errors import UserError
from yolo_core.evaluate.predict import predict
from yolo_core.evaluate.suppression import Suppression
from yolo_core.evaluate.tta import Plain
from yolo_core.models import build_model
from yolo_core.models.fuse import fuse
from yolo_core.models.weights import load_detector, save_detector

NAME = f"scaled-yolov4-{MODEL}"
EVERYTHING = {"conf": 0.001, "iou": 0.65, "max_detections": 300}  # an untrained detector has low scores


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Callable[[Path], str]) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_database(folder))
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def outputs(project: Path) -> Outputs:
    """The results of a registered detector, partly recorded by training."""
    outputs = make_outputs(project / "outputs", make_dataset(project / "data"))
    with tracking.stage_run(load_params(), outputs.data, "train", MODEL) as training:
        training.log({"train/loss": 6.0}, 5)
    run(register, load_params(), model=MODEL, **outputs.paths)
    return outputs


@pytest.fixture(scope="module")
def record(outputs: Outputs) -> dict[str, Any]:
    return json.loads(outputs.registered.read_text())


@pytest.fixture(scope="module")
def served(record: dict[str, Any]) -> PyFuncModel:
    return load_model(f"models:/{NAME}/{record['version']}")


def test_one_tree_holds_the_whole_lineage(outputs: Outputs, record: dict[str, Any]):
    client = connection.connect()
    root = client.get_run(record["pipeline_run_id"])
    assert root.info.status == "FINISHED"
    assert root.data.params["train.epochs"] == "30"
    assert root.data.params["prepare.digits.image_size"] == "320"
    assert root.data.metrics[f"{MODEL}/AP"] == 1
    search = {"fitness": 0.25, "start_fitness": 0.2, "start_spread": 0.0354, "gain": 0.025}
    assert {name: root.data.metrics[f"evolve/{name}"] for name in search} == search
    assert root.data.tags["scaled_yolov4.evolve_decision"] == DECISION
    assert root.inputs
    assert root.inputs.dataset_inputs[0].dataset.name == "digits"
    manifest = json.loads((outputs.data / "manifest.json").read_text())
    assert root.data.tags["scaled_yolov4.dataset_sha256"] == manifest["sha256"]
    assert paths(client, record["pipeline_run_id"]) >= {
        "dataset/manifest.json",
        f"anchors/{MODEL}.json",
        "evolve/hyp.yaml",
        "evolve/ledger.jsonl",
        "params.json",
    }

    runs = client.search_runs([root.info.experiment_id], f"tags.mlflow.parentRunId = '{root.info.run_id}'")
    children = {run.data.tags["scaled_yolov4.stage"]: run for run in runs}
    assert sorted(run.data.tags["scaled_yolov4.stage"] for run in runs) == sorted(
        ["train", "evaluate", "export", "benchmark", "register"]
    )
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert children["evaluate"].data.metrics["tta.AP50"] == 1
    assert children["export"].data.metrics["largest_error"] == pytest.approx(1e-5)
    assert children["benchmark"].data.metrics["latency_ms_b1"] == 10
    assert children["benchmark"].data.metrics["rows/PyTorch fp32 b1.total_ms.p50"] == 10
    assert "model.onnx" in paths(client, children["export"].info.run_id)
    assert "model.safetensors" in paths(client, children["train"].info.run_id)
    assert children["train"].data.metrics == {"train/loss": 6.0}  # what training logged live is not logged twice
    assert {"evidence/detections.json", "evidence/benchmark.json"} <= paths(client, record["run_id"])


def paths(client: Any, run_id: str, folder: str = "") -> set[str]:
    found = client.list_artifacts(run_id, folder)
    return {p for item in found for p in (paths(client, run_id, item.path) if item.is_dir else {item.path})}


def test_registering_again_finds_the_version(outputs: Outputs, record: dict[str, Any]):
    before = outputs.registered.read_bytes()
    summary = run(register, load_params(), model=MODEL, **outputs.paths)
    assert summary == {"name": NAME, "version": record["version"], "state": "known"}
    assert outputs.registered.read_bytes() == before
    assert len(connection.connect().search_model_versions(f"name = '{NAME}'")) == 1


def test_the_same_results_of_other_code_carry_the_new_lineage(
    outputs: Outputs, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """Otherwise `retrain` would always see different code, whatever it trains."""
    before = lineage_of(record)
    monkeypatch.setattr(lineage_record, "code_digest", lambda *stages: "changed")
    assert register.run(load_params(), model=MODEL, **outputs.paths)["state"] == "known"
    assert lineage_of(record) == {**before, "code": "changed"}
    monkeypatch.undo()
    register.run(load_params(), model=MODEL, **outputs.paths)
    assert lineage_of(record) == before


def lineage_of(record: dict[str, Any]) -> dict[str, str]:
    version = connection.connect().get_model_version(record["registered_model"], str(record["version"]))
    return json.loads(version.tags[lineage_record.LINEAGE_TAG])


def test_curves_are_taken_from_the_file_where_training_recorded_none(project: Path, outputs: Outputs):
    params = load_params("seed=7")  # other parameters, another tree
    other = make_outputs(project / "other", outputs.data, seed=7, evolved=False)
    register.run(params, model=MODEL, **other.paths)
    record = json.loads(other.registered.read_text())
    assert record["version"] == 2
    client = connection.connect()
    query = f"tags.mlflow.parentRunId = '{record['pipeline_run_id']}' and tags.`scaled_yolov4.stage` = 'train'"
    experiment = client.get_run(record["run_id"]).info.experiment_id
    (train,) = client.search_runs([experiment], query)
    assert train.data.metrics["val/AP50"] == 0.6
    history = client.get_metric_history(train.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(5, 6.0), (10, 3.5)]


def test_answers_as_evaluation_does(outputs: Outputs, served: PyFuncModel):
    dataset = load_split(outputs.data, "val").subset(1)
    loaded = load_detector(outputs.paths["train"] / "model.safetensors")
    stride = max(loaded.model.strides)
    found = predict(
        Plain(fuse(loaded.model)),
        dataset,
        size=loaded.size,
        batch=1,
        stride=stride,
        suppression=Suppression(**EVERYTHING),
    )
    expected = found.records()
    (boxes,) = served.predict(dataset.images[0].path.read_bytes(), params=EVERYTHING)
    assert len(boxes) == len(expected) > 0
    for box, coco in zip(boxes, expected, strict=True):
        x, y, w, h = coco["bbox"]
        assert [box[side] for side in ("x1", "y1", "x2", "y2")] == pytest.approx([x, y, x + w, y + h], abs=0.01)
        assert box["score"] == pytest.approx(coco["score"], abs=2e-6)
        assert box["class_id"] == dataset.category_ids.index(coco["category_id"])
        assert box["class_name"] == dataset.classes[box["class_id"]]


def test_a_version_is_opened_by_its_address_and_finds_what_the_served_model_finds(
    outputs: Outputs, record: dict[str, Any], served: PyFuncModel
):
    connection.connect().set_registered_model_alias(NAME, "candidate", str(record["version"]))
    image = load_split(outputs.data, "val").images[0].path
    [wanted] = served.predict(image.read_bytes(), params=EVERYTHING)
    for address in (f"models:/{NAME}/{record['version']}", f"models:/{NAME}@candidate"):
        found = Detector.load(address, device="cpu").predict(image, **EVERYTHING)
        assert found.labels == [box["class_name"] for box in wanted]
        corners = [[box[edge] for edge in ("x1", "y1", "x2", "y2")] for box in wanted]
        np.testing.assert_allclose(found.xyxy, np.reshape(corners, (-1, 4)), rtol=0, atol=0.006)  # served to 0.01 px
    copy = Path(f"runs/models/{NAME}/{record['version']}/model.safetensors")
    copy.write_bytes(b"damaged")
    assert Detector.load(address, device="cpu").classes == tuple(served.unwrap_python_model().detector.classes)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (f"models:/{NAME}@nobody", f"models:/{NAME}@nobody: not found in MLflow at sqlite"),
        (f"models:/{NAME}/999", f"models:/{NAME}/999: not found in MLflow at sqlite"),
        ("models:/nothing@champion", "models:/nothing@champion: not found in MLflow at sqlite"),
        (f"models:/{NAME}", "write models:/NAME@ALIAS or models:/NAME/VERSION"),
    ],
)
def test_a_version_that_does_not_exist_is_refused_in_one_line(outputs: Outputs, address: str, message: str):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        Detector.load(address)
    assert "\n" not in str(raised.value)


def test_every_form_of_an_image_gets_the_same_answer(outputs: Outputs, served: PyFuncModel):
    encoded = sorted((outputs.data / "images" / "val").iterdir())[0].read_bytes()
    text = base64.b64encode(encoded).decode()
    pixels = np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB))
    one = served.predict(encoded, params=EVERYTHING)
    assert len(one) == 1
    assert one[0]
    for form in (text, f"data:image/png;base64,{text}", [text], pixels, pixels.tolist(), pixels.astype(float)):
        assert served.predict(form, params=EVERYTHING) == one
    for several in (
        [encoded, pixels],
        [encoded, text],
        np.stack([pixels, pixels]),
        [pixels.tolist(), pixels.tolist()],
        np.array([text, text]),
        pd.DataFrame({"name": ["a", "b"], "image": [encoded, text]}),
        {"image": [encoded, pixels]},
    ):
        assert served.predict(several, params=EVERYTHING) == one * 2
    small = cv2.resize(pixels, (24, 40))
    assert [len(boxes) > 0 for boxes in served.predict([pixels, small], params=EVERYTHING)] == [True, True]
    assert served.predict([]) == []


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"not an image",
        "not base64!",
        base64.b64encode(b"no image").decode(),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.full((8, 8, 3), 256),
        np.full((8, 8, 3), -1),
        np.full((8, 8, 3), 0.5),
        np.zeros((0, 8, 3), np.uint8),
        [[[1, 2, 3], [1, 2, 3]], [[1, 2, 3]]],
        {"other": [1]},
    ],
    ids=str,
)
def test_what_is_not_an_image_is_refused_in_one_line(served: PyFuncModel, wrong: Any):
    with pytest.raises(MlflowException, match="give an encoded image") as raised:
        served.predict(wrong)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
    assert "\n" not in raised.value.message


def test_the_served_model_suppresses_as_it_was_evaluated(outputs: Outputs, served: PyFuncModel):
    """At 0.25, the default of versions that were registered without these settings, it finds nothing."""
    image = sorted((outputs.data / "images" / "val").iterdir())[0].read_bytes()
    assert served.predict(image) == served.predict(image, params=EVERYTHING)
    assert served.predict(image, params={"conf": 0.25}) == [[]]
    assert [len(boxes) for boxes in served.predict([image, image], params={"max_detections": 1})] == [1, 1]


def test_results_of_an_earlier_release_serve_with_its_defaults(outputs: Outputs, project: Path):
    folder = project / "earlier"
    shutil.copytree(outputs.folder, folder)
    earlier = Outputs(folder, outputs.data)
    metrics = earlier.paths["evaluate"] / "metrics.json"
    metrics.write_text(json.dumps({k: v for k, v in json.loads(metrics.read_text()).items() if k != "suppression"}))
    number = register.run(load_params(), model=MODEL, **earlier.paths)["version"]
    info = get_model_info(f"models:/{NAME}/{number}")
    assert {one["name"]: one["default"] for one in info.signature.params.to_dict()} == {
        "conf": 0.25,
        "iou": 0.65,
        "max_detections": 300,
    }


@pytest.mark.parametrize(
    "params",
    [{"conf": 25.0}, {"conf": -0.1}, {"conf": float("nan")}, {"iou": 65.0}, {"iou": float("nan")}, {"iou": 1.5}],
    ids=str,
)
def test_thresholds_that_are_no_fraction_are_refused_in_one_line(served: PyFuncModel, params: dict[str, float]):
    (name,) = params
    with pytest.raises(MlflowException, match=f"params: {name} = .*: give a number from 0 to 1") as raised:
        served.predict(np.zeros((8, 8, 3), np.uint8), params=params)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
    assert "\n" not in raised.value.message


def test_a_detection_limit_below_one_is_refused(served: PyFuncModel):
    with pytest.raises(MlflowException, match="params: max_detections = 0: give a whole number from 1"):
        served.predict(np.zeros((8, 8, 3), np.uint8), params={"max_detections": 0})


@pytest.mark.parametrize(("side", "decoded"), [(7072, False), (16_000, False), (4000, True)])
def test_images_over_the_limit_of_prepare_are_refused_before_decoding(
    served: PyFuncModel, monkeypatch: pytest.MonkeyPatch, side: int, decoded: bool
):
    """50 megapixels are a square of 7071 px. The small PNG is a header and nothing to decode."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    seen = []
    monkeypatch.setattr(cv2, "imdecode", lambda *given: seen.append(given))
    message = "cannot be decoded as an image" if decoded else "over 50 megapixels"
    with pytest.raises(MlflowException, match=message):
        served.predict(png)
    assert bool(seen) == decoded


def test_the_model_says_what_it_needs(served: PyFuncModel, record: dict[str, Any]):
    info = get_model_info(f"models:/{NAME}/{record['version']}")
    assert info.signature.params.to_dict()[0]["name"] == "conf"
    folder = Path(download_artifacts(f"models:/{NAME}/{record['version']}"))
    needed = {line.partition("==")[0] for line in (folder / "requirements.txt").read_text().split()}
    assert needed == {"mlflow", *SERVING_PACKAGES}
    assert (folder / "input_example.json").exists()
    assert (folder / "code" / "yolo_core" / "models").is_dir()


@pytest.mark.slow
def test_loads_where_only_inference_is_installed(project: Path, outputs: Outputs, record: dict[str, Any]):
    """A fresh process that can import neither the stages nor what only training needs."""
    image = next(iter(sorted((outputs.data / "images" / "val").iterdir())))
    script = f"""
import sys
for name in ("components", "pipelines", "ray", "dvc", "kfp", "hotcoco", "pycocotools", "matplotlib"):
    sys.modules[name] = None
import mlflow
model = mlflow.pyfunc.load_model("models:/{NAME}/{record["version"]}")
import yolo_core
print(len(model.predict(open({str(image)!r}, "rb").read(), params={EVERYTHING!r})[0]), yolo_core.__file__)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=project, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    count, module = done.stdout.split()
    assert int(count) > 0
    assert Path(module).parts[-3] == "code"  # the copy that travels with the model


def test_missing_results_are_named_with_their_stage(project: Path, outputs: Outputs):
    wrong = {**outputs.paths, "evaluate": project / "nowhere"}
    with pytest.raises(UserError, match=r"nowhere/metrics\.json.*evaluate"):
        register.run(load_params(), model=MODEL, **wrong)


def trained_again(train: Path) -> None:
    save_detector(
        train / "model.safetensors", build_model(MODEL, 2, width=0.125), classes=["circle", "square"], size=64
    )


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("anchors", lambda path: path.write_text("{}"), "train.json: was made with another file than .*anchors"),
        ("hyp", lambda path: path.write_text("{}"), "train.json: was made with another file than .*hyp.yaml"),
        ("hyp", lambda path: path.unlink(), "train.json: was made with a hyp file"),
        ("train", trained_again, "metrics.json: was made with another file than .*model.safetensors; .* evaluate"),
    ],
)
def test_results_that_do_not_belong_together_are_refused(
    project: Path, name: str, change: Callable[[Path], object], words: str, tmp_path: Path
):
    """Such as anchors made after a training that used the published ones, or figures of an earlier training."""
    outputs = make_outputs(tmp_path / "outputs", make_dataset(tmp_path / "data"))
    change(outputs.paths[name])
    with pytest.raises(UserError, match=words):
        register.run(load_params(), model=MODEL, **outputs.paths)
    assert not outputs.registered.exists()


def test_an_unreachable_server_is_one_line_without_the_password(outputs: Outputs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    with pytest.raises(UserError, match="cannot be reached") as raised:
        register.run(load_params(), model=MODEL, **outputs.paths)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_versions_differ_by_validation_images(project: Path, outputs: Outputs):
    assert validation_digest(outputs.data) != validation_digest(make_dataset(project / "data2", 1))
