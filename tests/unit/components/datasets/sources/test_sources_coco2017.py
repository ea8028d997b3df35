"""The official archives: downloaded from a loopback server, unpacked safely."""

import hashlib
import io
import stat
import zipfile

import pytest
from coco_source import CocoFolder, parameters
from range_server import RangeServer

from components.datasets.sources import archive, coco2017
from components.datasets.sources.archive import extract
from components.datasets.sources.coco2017 import Archive
from components.stages import prepare
from components.storage import web
from yolo_core.errors import UserError
from yolo_core.progress import silent


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(web, "BACKOFF_S", 0.001)
    monkeypatch.delenv("http_proxy", raising=False)


def zipped(entries: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in entries.items():
            target.writestr(name, data)
        for name, goal in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            target.writestr(info, goal)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped({"val2017/../../evil.jpg": b"x"}), "points outside the folder"),
        (zipped({"/etc/evil.jpg": b"x"}), "points outside the folder"),
        (zipped({"val2017\\..\\evil.jpg": b"x"}), "points outside the folder"),
        (zipped({"C:/evil.jpg": b"x"}), "points outside the folder"),
        (
            zipped({"val2017/a.jpg": b"x"}).replace(b"val2017/", b"\0al2017/"),
            "points outside the folder",
        ),  # no name at all
        (zipped({"other/evil.jpg": b"x"}), "is outside val2017"),
        (zipped({"evil.jpg": b"x"}), "is outside val2017"),
        (zipped({"val2017/ok.jpg": b"x"}, {"val2017/evil": "/etc"}), "is a link or a special file"),
        (zipped({"val2017/bomb.jpg": bytes(30 << 20)}), "1 entries would unpack to 0.0 GB"),
        (b"PK no zip at all", "damaged archive"),
        (zipped({"val2017/a.jpg": bytes(5000)})[:-30], "damaged archive"),
    ],
)
def test_a_hostile_or_damaged_archive_is_refused_before_anything_is_written(tmp_path, data, message):
    path = tmp_path / "val2017.zip"
    path.write_bytes(data)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UserError, match=message):
        extract(path, folder, ("val2017",), silent)
    assert list(folder.iterdir()) == []
    assert sorted(tmp_path.iterdir()) == [folder, path]


def test_a_link_planted_in_the_folder_is_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/val2017").symlink_to(tmp_path / "outside")
    (tmp_path / "val2017.zip").write_bytes(zipped({"val2017/a.jpg": b"x"}))
    with pytest.raises(UserError, match="is a link out of"):
        extract(tmp_path / "val2017.zip", tmp_path / "folder", ("val2017",), silent)
    assert list((tmp_path / "outside").iterdir()) == []


def test_unpacking_resumes_where_it_was_killed(tmp_path):
    (tmp_path / "val2017.zip").write_bytes(zipped({"val2017/a.jpg": b"aa", "val2017/b.jpg": b"bb"}))
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017/a.jpg").write_bytes(b"AA")  # exists with the right size: kept
    extract(tmp_path / "val2017.zip", tmp_path, ("val2017",), silent)
    assert (tmp_path / "val2017/a.jpg").read_bytes() == b"AA"
    assert (tmp_path / "val2017/b.jpg").read_bytes() == b"bb"


def test_an_entry_damaged_inside_is_not_left_behind(tmp_path):
    data = bytearray(zipped({"val2017/a.jpg": bytes(range(256)) * 40}))
    data[80] ^= 0xFF
    (tmp_path / "val2017.zip").write_bytes(bytes(data))
    with pytest.raises(UserError, match="damaged archive"):
        extract(tmp_path / "val2017.zip", tmp_path, ("val2017",), silent)
    assert not (tmp_path / "val2017/a.jpg").exists()


@pytest.fixture
def small_archives(tmp_path, monkeypatch) -> dict[str, bytes]:
    """Archives laid out like the official ones, with six images in all, as a mirror serves them."""
    source = CocoFolder(tmp_path / "source")
    root = source.save()
    entries: dict[str, dict[str, bytes]] = {"annotations": {}, "val2017": {}, "train2017": {}}
    for split in ("train", "val"):
        labels = (root / f"annotations/instances_{split}.json").read_bytes()
        entries["annotations"][f"annotations/instances_{split}2017.json"] = labels
        for path in (root / "images" / split).iterdir():
            entries[f"{split}2017"][f"{split}2017/{path.name}"] = path.read_bytes()
    served, table = {}, []
    for official in coco2017.ARCHIVES:
        data = zipped(entries[official.folders[0]])
        served[f"/{official.path}"] = data
        table.append(Archive(official.path, len(data), hashlib.md5(data).hexdigest(), official.folders))
    monkeypatch.setattr(coco2017, "ARCHIVES", tuple(table))
    return served


def test_from_archives_to_dataset(small_archives, tmp_path, monkeypatch):
    with RangeServer(small_archives, drop_after=5000, drops=1) as server:
        monkeypatch.setenv(coco2017.BASE_URL_VARIABLE, server.url + "/")
        summary = prepare.run(parameters("prepare.source=coco2017"), out=tmp_path / "data/prepared")
        requests = len(server.requests)
        (tmp_path / "data/downloads/coco2017/val2017.zip").unlink()  # may be deleted once unpacked
        again = prepare.run(parameters("prepare.source=coco2017"), out=tmp_path / "data/prepared")
    assert (summary["train_images"], summary["val_images"], summary["train_boxes"]) == (4, 2, 4)
    assert again == summary
    assert len(server.requests) == requests


def test_another_download_folder(small_archives, tmp_path, monkeypatch):
    with RangeServer(small_archives) as server:
        monkeypatch.setenv(coco2017.BASE_URL_VARIABLE, server.url)
        options = ["prepare.source=coco2017", f"prepare.location={tmp_path / 'big-disk'}"]
        prepare.run(parameters(*options), out=tmp_path / "out")
    assert (tmp_path / "big-disk/train2017/1.jpg").is_file()


def test_the_mirror_must_be_an_address(tmp_path, monkeypatch):
    monkeypatch.setenv(coco2017.BASE_URL_VARIABLE, "ftp://mirror")
    with pytest.raises(UserError, match="COCO_BASE_URL = ftp://mirror: expected an http:// or https:// address"):
        prepare.run(parameters("prepare.source=coco2017"), out=tmp_path / "out")


def test_the_limit_allows_the_official_archives():
    packed = {item.name: item.size for item in coco2017.ARCHIVES}
    assert archive.MAX_RATIO * packed["annotations_trainval2017.zip"] > 800e6  # unpacks to about 0.8 GB
