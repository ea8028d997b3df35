"""`predict` as a user runs it: what it reads, what it writes, and how it continues."""

import csv
import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import small_detector
from processes import started
from pycocotools.coco import COCO
from range_server import RangeServer
from typer.testing import CliRunner, Result
from waiting import until

from components.cli.main import app
from components.prediction.outputs import DrawnVideo
from yolo_core import Detector
from yolo_core.inference.video import video_writer

CONF = "0.05"


@pytest.fixture
def here(project: small_detector.Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with six images in `photos` and the weights of a detector."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(project.data / "images/val", "photos")
    shutil.copy(project.weights, "model.safetensors")
    return tmp_path


def predict(*arguments: str, weights: str = "model.safetensors") -> Result:
    words = ["predict", "--weights", weights, "--device", "cpu", "--conf", CONF, *arguments]
    return CliRunner().invoke(app, words, prog_name="scaled-yolov4")


def records(folder: str = "outputs/predict") -> list[dict]:
    return [json.loads(line) for line in Path(folder, "detections.jsonl").read_text().splitlines()]


def write_video(path: str, photo: str = "photos/1.png", frames: int = 6, fps: float = 12) -> None:
    pixels = cv2.imread(photo, cv2.IMREAD_COLOR_RGB)
    with video_writer(Path(path), fps) as writer:
        for shift in range(frames):
            writer.add(np.roll(pixels, 7 * shift, 1))


def video_facts(path: str) -> tuple[int, float]:
    capture = cv2.VideoCapture(path)
    return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)


def test_a_folder_gives_a_line_and_a_drawn_image_for_each_image(here: Path):
    done = predict("photos")
    assert done.exit_code == 0, done.output
    detector = Detector.load("model.safetensors", device="cpu")
    for record in records():
        result = detector.predict(record["source"], conf=float(CONF))
        assert (record["width"], record["height"], record["frame"]) == (96, 96, None)
        assert [one["label"] for one in record["detections"]] == result.labels
        assert [one["xyxy"] for one in record["detections"]] == [pytest.approx(box, abs=1e-3) for box in result.xyxy]
        drawn = cv2.imread(f"outputs/predict/images/{record['name']}.jpg", cv2.IMREAD_COLOR_RGB)
        # A sheet of labels at this size: only the look of a JPEG of it, not that of the image without them.
        assert np.abs(drawn.astype(int) - result.draw()).mean() < np.abs(drawn.astype(int) - result.image).mean() / 2
    assert [record["source"] for record in records()] == [f"photos/{n}.png" for n in range(1, 7)]
    found = sum(len(record["detections"]) for record in records())
    assert f"predict: images 6, detections {found}, images_per_second " in done.stdout
    assert done.stdout.endswith(" -> outputs/predict\n")


def test_a_bad_file_is_named_and_skipped(here: Path):
    Path("photos/0.jpg").write_bytes(b"junk")
    Path("photos/note.md").write_text("no image")
    done = predict("photos", "--batch", "4")
    assert done.exit_code == 0, done.output
    assert "not readable 1" in done.stdout
    first, *others = records()
    assert first["error"] == "photos/0.jpg: cannot be decoded"
    assert len(others) == 6


def test_nothing_readable_is_an_error(here: Path):
    Path("bad.jpg").write_bytes(b"junk")
    done = predict("bad.jpg")
    assert done.exit_code == 2
    assert "error: nothing could be read; bad.jpg: cannot be decoded" in done.output
    assert predict("bad.jpg").exit_code == 2  # not done, as it has no result
    shutil.copy("photos/1.png", "bad.jpg")
    assert predict("bad.jpg").exit_code == 0
    assert ["error" in record for record in records()] == [False]


def test_the_same_command_does_what_is_left(here: Path):
    predict("photos/1.png", "photos/2.png")
    before = records()
    cv2.imwrite("photos/2.png", np.zeros((40, 50, 3), np.uint8))
    done = predict("photos")
    assert "images 5," in done.stdout
    assert "done before 1," in done.stdout
    assert records()[0] == before[0]
    assert sorted(record["source"] for record in records()) == [f"photos/{n}.png" for n in range(1, 7)]
    assert next(record["width"] for record in records() if record["source"] == "photos/2.png") == 50
    assert "images 0, detections 0, done before 6" in predict("photos").stdout


def test_a_killed_run_continues_without_loss_or_double(here: Path):
    os.mkfifo("photos/7.png")  # reading it waits for ever
    words = ["predict", "photos", "--weights", "model.safetensors", "--device", "cpu", "--conf", CONF, "--save", "yolo"]
    process = started(["python", "-c", "from components.cli.main import main; main()", *words], here)
    lines = Path("outputs/predict/detections.jsonl")
    until(lambda: lines.exists() and lines.read_text().count("\n") == 6, "six lines")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with lines.open("a") as file:
        file.write('{"source": "photos/7')  # a line cut off
    for number in (7, 8):
        Path(f"photos/{number}.png").unlink(missing_ok=True)
        shutil.copy("photos/1.png", f"photos/{number}.png")
    done = predict("photos", "--save", "yolo")
    assert done.exit_code == 0, done.output
    assert "predict: images 2, " in done.stdout
    assert [record["source"] for record in records()] == [f"photos/{n}.png" for n in range(1, 9)]
    assert len(list(Path("outputs/predict/labels").iterdir())) == 8


def test_a_video_is_drawn_at_its_own_rate(here: Path):
    write_video("clip.mp4")
    done = predict("clip.mp4")
    assert done.exit_code == 0, done.output
    *frames, last = records()
    assert [record["frame"] for record in frames] == list(range(6))
    assert last["frames"] == 6
    assert all(record["detections"] for record in frames)
    assert video_facts("outputs/predict/videos/clip.mp4") == (6, 12.0)


@pytest.mark.parametrize("is_live", [True, False])
def test_ctrl_c_ends_the_video_of_a_camera_and_drops_an_unfinished_one(tmp_path: Path, is_live: bool):
    def drawn() -> None:
        with DrawnVideo(tmp_path, "clip", is_live) as video:
            for _ in range(3):
                video.add(np.zeros((64, 64, 3), np.uint8), 5)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn()
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["clip.mp4"] * is_live
    if is_live:
        assert video_facts(str(tmp_path / "videos/clip.mp4")) == (3, 5.0)


def test_an_unfinished_video_is_read_again(here: Path):
    write_video("clip.mp4")
    predict("photos/1.png", "clip.mp4")
    whole = records()
    lines = Path("outputs/predict/detections.jsonl")
    lines.write_text("".join(json.dumps(record) + "\n" for record in whole[:4]))  # killed at its third frame
    Path("outputs/predict/videos/clip.mp4").unlink()
    assert "images 6," in predict("photos/1.png", "clip.mp4").stdout
    assert records() == whole
    assert video_facts("outputs/predict/videos/clip.mp4")[0] == 6


def test_some_frames_of_a_video(here: Path):
    write_video("clip.mp4")
    predict("clip.mp4", "--max-frames", "2", "--save", "yolo")
    assert [record.get("frame") for record in records()] == [0, 1, None]
    names = sorted(path.name for path in Path("outputs/predict/labels").iterdir())
    assert names == ["clip_000000.txt", "clip_000001.txt"]


def test_tables_and_labels_hold_the_same_boxes(here: Path):
    write_video("clip.mp4", frames=2)
    saved = [word for kind in ("coco", "csv", "yolo", "crops") for word in ("--save", kind)]
    assert predict("photos", "clip.mp4", *saved).exit_code == 0
    wanted = [one["xyxy"] for record in records() for one in record.get("detections", [])]
    coco = COCO("outputs/predict/coco.json")
    boxes = [coco.anns[number]["bbox"] for number in sorted(coco.anns)]
    assert [[x, y, x + w, y + h] for x, y, w, h in boxes] == [pytest.approx(box, abs=2e-3) for box in wanted]
    assert [one["name"] for one in coco.dataset["categories"]] == ["one", "two"]
    assert coco.imgs[8]["file_name"] == "clip.mp4#1"
    with Path("outputs/predict/detections.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [[float(row[key]) for key in ("x1", "y1", "x2", "y2")] for row in rows] == wanted
    first = records()[0]["detections"][0]
    number, x, y, w, h, score = map(float, Path("outputs/predict/labels/1.txt").read_text().splitlines()[0].split())
    corners = [(x - w / 2) * 96, (y - h / 2) * 96, (x + w / 2) * 96, (y + h / 2) * 96]
    assert (number, score) == (first["class_id"], first["score"])
    assert corners == pytest.approx(first["xyxy"], abs=2e-3)
    x1, y1, x2, y2 = map(round, first["xyxy"])
    crop = cv2.imread(f"outputs/predict/crops/{first['label']}/1-1.jpg")
    assert crop.shape[:2] == (max(y2 - y1, 1), max(x2 - x1, 1))


def test_other_settings_go_to_a_folder_of_their_own(here: Path):
    predict("photos/1.png")
    done = predict("photos/1.png", "--iou", "0.5")
    assert done.stdout.endswith("-> outputs/predict-2\n")
    assert predict("photos/2.png", "--iou", "0.5").stdout.endswith("-> outputs/predict-2\n")
    refused = predict("photos/1.png", "--iou", "0.4", "--out", "outputs/predict")
    assert refused.exit_code == 2
    assert "outputs/predict: holds results of another detector or other settings; give another --out" in refused.output
    assert len(records()) == 1


def test_other_weights_of_openvino_are_another_detector(here: Path):
    """Its .xml is the graph, the same for all trainings of a model."""
    Detector.load("model.safetensors", device="cpu").export("model.xml")
    assert predict("photos/1.png", weights="model.xml").stdout.endswith("-> outputs/predict\n")
    weights = np.fromfile("model.bin", np.uint8)
    weights[len(weights) // 2] ^= 1
    weights.tofile("model.bin")
    assert predict("photos/1.png", weights="model.xml").stdout.endswith("-> outputs/predict-2\n")


def test_equal_names_keep_their_own_files(here: Path):
    for folder in ("a", "b/a"):
        Path(folder).mkdir(parents=True)
        shutil.copy("photos/1.png", f"{folder}/same.png")
    shutil.copy("photos/1.png", "a/same.jpg")
    predict("a", "b/a", "--save", "yolo")
    names = [record["name"] for record in records()]
    assert len({name.casefold() for name in names}) == len(names) == 3
    assert sorted(path.stem for path in Path("outputs/predict/labels").iterdir()) == sorted(names)


def test_globs_and_lists_name_images(here: Path):
    Path("list.txt").write_text("photos/3.png\n\nphotos/4.png\n")
    predict("photos/[12].png", "list.txt", "--save", "none")
    assert [record["source"] for record in records()] == [f"photos/{n}.png" for n in range(1, 5)]
    assert {path.name for path in Path("outputs/predict").iterdir()} == {"detections.jsonl", "run.json"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.jpg"], "nowhere.jpg: no such file or folder"),
        (["none/*.jpg"], "none/*.jpg: matches nothing"),
        (["empty"], "empty: holds no images or videos"),
        (["photos", "--save", "xml"], "--save xml: give images, coco, yolo, csv, crops or none"),
        (["photos", "--conf", "2"], "--conf = 2.0: give a number from 0 to 1"),
        (["photos", "--champion", "yolov4-tiny"], "--weights and --champion: give one of them"),
        (["photos", "--size", "100"], "--size = 100: yolov4-tiny needs a multiple of 32 px"),
    ],
)
def test_mistakes_are_one_line(here: Path, words: list[str], message: str):
    Path("empty").mkdir()
    done = predict(*words)
    assert done.exit_code == 2
    assert f"error: {message}" in done.output
    assert not Path("outputs").exists()


def test_weights_are_fetched_from_an_address_once(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("http_proxy", raising=False)
    content = Path("model.safetensors").read_bytes()
    with RangeServer({"/model.safetensors": content}) as server:
        address = f"{server.url}/model.safetensors#sha256={hashlib.sha256(content).hexdigest()}"
        assert predict("photos/1.png", weights=address).exit_code == 0
    assert "done before 1" in predict("photos/1.png", weights=address).stdout  # the server is gone


def test_without_weights_it_takes_the_newest_training(here: Path):
    assert "no trained model here" in predict("photos", weights="").output
    for name, age in (("old", 50), ("new", 0)):
        Path("outputs/train", name).mkdir(parents=True)
        shutil.copy("model.safetensors", f"outputs/train/{name}/model.safetensors")
        moment = time.time() - age
        os.utime(f"outputs/train/{name}/model.safetensors", (moment, moment))
    Path("outputs/train/old/model.safetensors").write_bytes(b"junk")
    os.utime("outputs/train/old/model.safetensors", (1, 1))
    assert predict("photos/1.png", weights="").exit_code == 0
