"""Weights to start from, wherever they are: paths, web addresses, the object store."""

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
import torch
from range_server import RangeServer
from typer.testing import CliRunner

from components.cli.main import app
from components.files import MANIFEST
from components.parameter_file import load
from components.storage import web
from components.storage.start_weights import Source, local_weights
from components.training.configuration import configure
from yolo_core.errors import TryAgain, UserError
from yolo_core.models import build_model
from yolo_core.models.official_weights import PYTORCH_NAMES
from yolo_core.models.weights import load_detector, save_detector

ROOT = Path(__file__).parents[4]
DATA = bytes(range(256)) * 12_000  # 3.07 MB, three chunks
DIGEST = hashlib.sha256(DATA).hexdigest()
OTHER = "0" * 64


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(web, "BACKOFF_S", 0.001)
    monkeypatch.delenv("http_proxy", raising=False)


def copies() -> list[Path]:
    return sorted(path for path in Path("runs/weights").glob("*/*") if len(path.parent.name) == 64)


def test_a_path_stays_as_it_is():
    assert local_weights("no/such.safetensors") == Path("no/such.safetensors")
    Path("w.pt").write_bytes(DATA)
    assert local_weights(f"w.pt#sha256={DIGEST.upper()}") == Path("w.pt")
    with pytest.raises(UserError, match=rf"^w.pt: SHA-256 is {DIGEST}, {OTHER} expected; correct the checksum or the"):
        local_weights(f"w.pt#sha256={OTHER}")
    with pytest.raises(UserError, match=r"^no.pt: cannot be read \(No such file"):
        local_weights(f"no.pt#sha256={OTHER}")


def test_a_download_with_a_checksum_is_resumed_and_never_requested_again():
    with RangeServer({"/a/w.pt": DATA}, drop_after=1_100_000, drops=1) as server:
        path = local_weights(f"{server.url}/a/w.pt#sha256={DIGEST}")
        assert local_weights(f"{server.url}/a/w.pt#sha256={DIGEST}") == path
        elsewhere = local_weights(f"{server.url}/b/v.pt#sha256={DIGEST}")  # is not there, and need not be
    assert (path, path.read_bytes()) == (Path("runs/weights") / DIGEST / "w.pt", DATA)
    assert (elsewhere.name, elsewhere.read_bytes()) == ("v.pt", DATA)
    assert server.requests == [("/a/w.pt", None), ("/a/w.pt", f"bytes={web.CHUNK_BYTES}-")]


def test_a_copy_that_was_damaged_since_is_downloaded_again():
    with RangeServer({"/w.pt": DATA}) as server:
        path = local_weights(f"{server.url}/w.pt#sha256={DIGEST}")
        path.write_bytes(DATA[:-1])
        assert local_weights(f"{server.url}/w.pt#sha256={DIGEST}").read_bytes() == DATA
    assert len(server.requests) == 2


def test_a_download_of_another_checksum_is_refused():
    with RangeServer({"/w.pt": DATA}) as server, pytest.raises(UserError) as caught:
        local_weights(f"{server.url}/w.pt#sha256={OTHER}")
    assert str(caught.value) == (
        f"{server.url}/w.pt: SHA-256 is {DIGEST}, {OTHER} expected; the file was removed, run again or correct the "
        "address or the checksum"
    )
    assert copies() == []


def test_without_a_checksum_the_server_says_whether_the_file_changed(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "components")
    with RangeServer({"/w.pt": DATA}) as server:
        address = f"{server.url}/w.pt"
        first = local_weights(address)
        assert caplog.messages == [f"{address}: downloaded; #sha256={DIGEST} at its end makes sure of this content"]
        Path("runs/weights/arriving").rename("elsewhere")
        assert local_weights(address) == first  # asked, but not downloaded
        assert not Path("runs/weights/arriving").exists()
        server.files["/w.pt"] = DATA[1:]
        assert local_weights(address).read_bytes() == DATA[1:]
        assert len(copies()) == 2
    newest = hashlib.sha256(DATA[1:]).hexdigest()
    with pytest.raises(TryAgain, match=rf"refused; to use the copy of the last download, add #sha256={newest} to the"):
        local_weights(address)
    assert local_weights(f"{address}#sha256={DIGEST}") == first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://host/w.pt#sha256=12ab", "https://host/w.pt: #sha256=12ab: expected the 64 hexadecimal digits"),
        ("https://me:secret@host/w.pt?key=secret#sha256=", "https://host/w.pt: #sha256=: expected the 64"),
        ("ftp://me:secret@host/w.pt", "ftp://host/w.pt: weights to start from are a path, https://HOST/FILE or s3://"),
        ("https:/host/w.pt", "https:/host/w.pt: weights to start from are"),
        ("https://host/", "https://host/: weights to start from are"),
        ("https://[host/w.pt", "https://[host/w.pt: weights to start from are"),
        ("s3://bucket", "s3://bucket: weights to start from are"),
    ],
)
def test_what_cannot_be_weights_is_one_line(text: str, message: str):
    with pytest.raises(UserError) as caught:
        local_weights(text)
    assert str(caught.value).startswith(message)


def test_no_secret_of_an_address_is_shown_or_kept(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    with RangeServer({"/w.pt?key=pl4nt3d": DATA}, refusals=[503]) as server:
        address = f"{server.url}/w.pt?key=pl4nt3d".replace("://", "://me:pl4nt3d@")
        assert local_weights(address).name == "w.pt"
    with pytest.raises(TryAgain, match="refused") as caught:
        local_weights(address)
    assert "pl4nt3d" not in str(caught.value) + caplog.text
    assert not [path for path in Path().rglob("*") if "pl4nt3d" in path.name or b"pl4nt3d" in _content(path)]


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def test_weights_in_the_store(store):
    client = boto3.client("s3")
    client.put_object(Bucket=store.bucket, Key="w/a.safetensors", Body=DATA)
    address = f"s3://{store.bucket}/w/a.safetensors"
    assert local_weights(address).read_bytes() == DATA
    pinned = local_weights(f"{address}#sha256={DIGEST}")
    client.put_object(Bucket=store.bucket, Key="w/a.safetensors", Body=b"new")
    assert local_weights(f"{address}#sha256={DIGEST}") == pinned  # without a request
    assert (pinned.read_bytes(), local_weights(address).read_bytes()) == (DATA, b"new")
    with pytest.raises(UserError, match=rf"^{address}: SHA-256 is .*, {OTHER} expected"):
        local_weights(f"{address}#sha256={OTHER}")
    with pytest.raises(UserError, match="nothing there"):
        local_weights(f"s3://{store.bucket}/nowhere.safetensors")


def test_a_pinned_address_names_the_content_for_other_nodes():
    given = Source.parse(f"https://host/w.pt#sha256={OTHER}")
    assert Source.parse(given.pinned(DIGEST)) == replace(given, sha256=DIGEST)


def test_import_weights_takes_an_address():
    model = build_model("yolov4-tiny", num_classes=2)
    names = PYTORCH_NAMES["yolov4-tiny"](model)
    torch.save({"model": {theirs: model.state_dict()[ours] for ours, theirs in names.items()}}, "official.pt")
    Path("names.txt").write_text("cat\ndog\n")
    official = Path("official.pt").read_bytes()
    with RangeServer({"/official.pt": official}) as server:
        pinned = f"{server.url}/official.pt#sha256={hashlib.sha256(official).hexdigest()}"
        words = ["import-weights", "--model", "yolov4-tiny", "--from", pinned, "--out", "w.safetensors"]
        done = CliRunner().invoke(app, [*words, "--names", "names.txt"])
        assert done.exit_code == 0, done.output
    assert load_detector(Path("w.safetensors")).extra["imported_from"] == "official.pt"


def test_a_training_starts_from_an_address():
    save_detector(Path("w.safetensors"), build_model("yolov4-tiny", 1, width=0.125), classes=["a"], size=64)
    served = Path("w.safetensors").read_bytes()
    Path("data").mkdir()
    Path("data", MANIFEST).write_text(json.dumps({"categories": [{"name": "a"}]}))
    Path("anchors.json").write_text(json.dumps({"model": "yolov4-tiny", "size": 64, "anchors": [[[1, 2]]] * 2}))

    def configured(weights: str):
        params = load(ROOT / "params.yaml", ["train.size=64", f"train.weights={weights}"])
        return configure(params, "yolov4-tiny", Path("data"), Path("anchors.json"), None)

    with RangeServer({"/w.safetensors": served}) as server:
        address = f"{server.url}/w.safetensors#sha256={hashlib.sha256(served).hexdigest()}"
        config = configured(address)
    assert config == replace(configured("w.safetensors"), start_from=config.start_from)
    assert Path(config.start_from).read_bytes() == served
    assert config.start_digest == hashlib.sha256(served).hexdigest()
    with pytest.raises(UserError, match="convert it first"):
        configured("https://host/yolov7.pt")  # before it is requested
    Path("hyp.yaml").write_text("hyp: {}")
    words = ["train", "--data", "data", "--anchors", "anchors.json", "--hyp", "hyp.yaml", "-S", "train.size=64"]
    words += ["--params", str(ROOT / "params.yaml"), "--model", "yolov4-tiny", "--start-from"]
    done = CliRunner().invoke(app, [*words, address.replace("#sha256=", "#sha256=00")])
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert f"error: {server.url}/w.safetensors: #sha256=00" in done.output
