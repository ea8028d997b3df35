"""A bucket as source, on a real S3 server (SeaweedFS) on loopback; skipped where its binary is not installed."""

import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote

import boto3
import pytest
from coco_source import CocoFolder, content, encoded, parameters, pixels
from loopback import QuietServer

from components.stages import prepare
from components.storage import client as storage_client
from components.storage.checksums import PART_BYTES
from yolo_core.errors import UserError

KEY, SECRET, BUCKET = "tester", "not-a-real-secret", "mlops"


@pytest.fixture
def client(store):
    return boto3.session.Session().client("s3")


@pytest.fixture
def source(tmp_path) -> CocoFolder:
    return CocoFolder(tmp_path / "source")


def upload(client, root: Path, prefix: str) -> None:
    for name, data in content(root).items():
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=data)


def run(tmp_path: Path, prefix: str, progress=None) -> dict:
    params = parameters("prepare.source=s3", f"prepare.location=s3://{BUCKET}/{prefix}")
    return prepare.run(params, out=tmp_path / "data/prepared", **({"progress": progress} if progress else {}))


def fetched(tmp_path: Path, prefix: str) -> int | None:
    """How many objects a run downloads."""
    totals = {}

    def track(items, label, total=None):
        totals[label] = total
        yield from items

    run(tmp_path, prefix, track)
    return totals[f"download s3://{BUCKET}"]


def test_a_coco_layout_and_only_what_changed_the_second_time(client, source, tmp_path):
    upload(client, source.save(), "coco/v1")
    assert fetched(tmp_path, "coco/v1") == 8  # 6 images, 2 annotation files
    first = content(tmp_path / "data/prepared")
    assert fetched(tmp_path, "coco/v1") == 0
    assert content(tmp_path / "data/prepared") == first
    client.put_object(Bucket=BUCKET, Key="coco/v1/images/train/1.jpg", Body=encoded(pixels(seed=50)))
    (tmp_path / f"data/downloads/s3/{BUCKET}/coco/v1/images/train/2.jpg").write_bytes(b"cut off")
    assert fetched(tmp_path, "coco/v1") == 2


def test_a_yolo_layout_and_objects_removed_from_the_bucket(client, tmp_path):
    files = {"classes.txt": b"cat\n"}
    for split in ("train", "val"):
        for name in "ab":
            files[f"images/{split}/{name}.jpg"] = encoded(pixels())
            files[f"labels/{split}/{name}.txt"] = b"0 0.5 0.5 0.5 0.5\n"
    for name, data in files.items():
        client.put_object(Bucket=BUCKET, Key=f"yolo/{name}", Body=data)
    client.put_object(Bucket=BUCKET, Key="yolo/images/", Body=b"")  # a folder's placeholder
    assert run(tmp_path, "yolo/")["train_images"] == 2
    client.delete_object(Bucket=BUCKET, Key="yolo/images/train/b.jpg")
    client.delete_object(Bucket=BUCKET, Key="yolo/labels/train/b.txt")
    assert run(tmp_path, "yolo")["train_images"] == 1


def test_a_large_object_comes_in_parts(client, source, tmp_path):
    root = source.save()
    with (root / "images/train/1.jpg").open("ab") as file:
        file.write(bytes(PART_BYTES * 2))  # after the end of the JPEG
    upload(client, root, "large")
    run(tmp_path, "large")
    image = tmp_path / f"data/downloads/s3/{BUCKET}/large/images/train/1.jpg"
    assert image.read_bytes() == (root / "images/train/1.jpg").read_bytes()


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("nothing/here", "no objects there; check the bucket's and the prefix's spelling"),
        ("words", "unknown layout; looked for"),
    ],
)
def test_a_prefix_without_a_dataset(client, tmp_path, prefix, message):
    client.put_object(Bucket=BUCKET, Key="words/readme.md", Body=b"words")
    with pytest.raises(UserError, match=message):
        run(tmp_path, prefix)


def test_a_missing_bucket(client, tmp_path):
    params = parameters("prepare.source=s3", "prepare.location=s3://other-bucket/x")
    with pytest.raises(UserError, match=r"^s3://other-bucket/x: (no such bucket|access denied)"):
        prepare.run(params, out=tmp_path / "out")


def test_wrong_credentials(client, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stranger")
    with pytest.raises(UserError, match=r"the store does not know AWS_ACCESS_KEY_ID|access denied"):
        run(tmp_path, "coco/v1")


def test_no_credentials(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"Unable to locate credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET"):
        run(tmp_path, "coco/v1")


def test_an_endpoint_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_client, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"Could not connect to the endpoint URL.*; check AWS_ENDPOINT_URL"):
        run(tmp_path, "coco/v1")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("null", "prepare.location = None: source s3 needs s3://bucket/prefix"),
        ("bucket/prefix", "source s3 needs s3://bucket/prefix"),
        ("s3:///prefix", "needs s3://bucket/prefix"),
        ("s3://bucket/a/../b", "'..' is not allowed in a prefix"),
    ],
)
def test_a_location_that_is_not_a_bucket(tmp_path, location, message):
    with pytest.raises(UserError, match=message):
        prepare.run(parameters("prepare.source=s3", f"prepare.location={location}"), out=tmp_path / "out")


@pytest.fixture
def listing(monkeypatch):
    """A store that lists arbitrary keys: no S3 server stores the keys that must be refused."""
    keys: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            contents = (f'<Contents><Key>{quote(k)}</Key><Size>1</Size><ETag>"x"</ETag></Contents>' for k in keys)
            body = f"<ListBucketResult><EncodingType>url</EncodingType>{''.join(contents)}</ListBucketResult>".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with QuietServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield keys
        server.shutdown()


@pytest.mark.parametrize("key", ["p/../../evil", "p//etc/evil", "p/a/./b", "p/a\\..\\evil", "p/a//b", "p/nul\0byte"])
def test_keys_that_would_leave_the_folder_are_refused(listing, tmp_path, key):
    listing += ["p/good", key]
    with pytest.raises(UserError, match="is outside the download folder"):
        run(tmp_path, "p")
    assert list(tmp_path.rglob("*.part")) == list(tmp_path.rglob("evil")) == list(tmp_path.rglob("good")) == []
