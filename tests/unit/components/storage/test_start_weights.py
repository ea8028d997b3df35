"""Weights to start from that are in the object store."""

from pathlib import Path

import boto3
import pytest

from components import params
from components.storage.start_weights import with_local_weights
from yolo_core.errors import UserError

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(*overrides: str) -> params.Params:
    return params.load(ROOT / "params.yaml", list(overrides))


def test_an_address_becomes_a_working_copy_for_its_model_alone(store):
    boto3.client("s3").put_object(Bucket=store.bucket, Key="w/a.safetensors", Body=b"weights")
    given = load(
        f"train.weights=s3://{store.bucket}/w/a.safetensors", "train.per_model.yolov7.weights=here.safetensors"
    )
    local = with_local_weights(given, "yolov4-tiny")
    settings = local.train_settings("yolov4-tiny")
    assert settings.weights
    assert Path(settings.weights).read_bytes() == b"weights"
    assert settings.model_copy(update={"weights": None}) == given.train_settings("yolov4-tiny").model_copy(
        update={"weights": None}
    )
    assert local.train_settings("yolov7") == given.train_settings("yolov7")


@pytest.mark.parametrize("weights", ["null", "here.safetensors"])
def test_local_weights_and_none_stay_as_they_are(weights: str):
    given = load(f"train.weights={weights}")
    assert with_local_weights(given, "yolov4-tiny") is given


def test_missing_weights_are_one_line(store):
    with pytest.raises(UserError, match=r"nothing there"):
        with_local_weights(load(f"train.weights=s3://{store.bucket}/nowhere.safetensors"), "yolov4-tiny")
