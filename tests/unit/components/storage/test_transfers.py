"""Uploads and downloads of one file, through a proxy that disturbs them."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import waiting
from boto3.session import Session
from faulty_proxy import Fault, FaultyProxy

from components.storage import checksums, folder
from components.storage import client as storage_client
from components.storage.client import connect, reaching
from components.storage.download import download
from components.storage.location import Location
from components.storage.upload import upload
from yolo_core.errors import TryAgain

ROOT = Path(__file__).parents[4]
MIB = 1 << 20


def content(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def written(path: Path, size: int, seed: int = 0) -> Path:
    path.write_bytes(content(size, seed))
    return path


def there_and_back(path: Path, remote: Location) -> bytes:
    with reaching(remote):
        client = connect()
        upload(client, path, remote)
        back = path.with_name("back")
        download(client, remote, back)
    assert {each.name for each in path.parent.iterdir()} == {path.name, "back"}  # no temporary file is left
    return back.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 1000, checksums.PART_BYTES, checksums.PART_BYTES + 1, 3 * checksums.PART_BYTES])
def test_a_file_survives_a_round_trip(remote: Location, tmp_path: Path, size: int):
    path = written(tmp_path / "file", size)
    assert there_and_back(path, remote) == path.read_bytes()
    listed = folder.listing(connect(), Location(remote.bucket, "tests"))[remote.key.removeprefix("tests/")]
    assert (listed.size, listed.etag) == (size, checksums.etag(path))


@pytest.mark.parametrize(
    ("size", "part"),
    [
        (1, 8 * MIB),
        (80_000 * MIB, 8 * MIB),  # 10,000 parts
        (80_000 * MIB + 1, 9 * MIB),  # would be 10,001
        (5 << 40, 525 * MIB),  # 5 TiB / 10,000 = 524.3 MiB
    ],
)
def test_parts_grow_where_there_would_be_too_many(size: int, part: int):
    assert checksums.part_bytes(size) == part


def test_objects_uploaded_by_other_tools_are_verified_too(remote: Location, tmp_path: Path):
    """By boto3's own transfer: no SHA-256, parts of another size."""
    path = written(tmp_path / "file", 17 * MIB)
    config = transfer_config(5 * MIB)
    Session().client("s3").upload_file(str(path), remote.bucket, remote.key, Config=config)
    held = download(connect(), remote, tmp_path / "back")
    assert held.etag.endswith("-4")  # 5 + 5 + 5 + 2 MiB
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def transfer_config(part: int):
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=part, multipart_chunksize=part)


@pytest.mark.parametrize("size", [100_000, 17 * MIB])
@pytest.mark.parametrize("kind", ["cut", "damage"])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_broken_and_damaged_connections_are_overcome(
    proxy: FaultyProxy, remote: Location, tmp_path: Path, size: int, kind, direction
):
    path = written(tmp_path / "file", size)
    fault = Fault(kind, direction, at=50_000, times=2)  # well within the bytes of the file, after the headers
    proxy.faults.append(fault)
    assert there_and_back(path, remote) == path.read_bytes()
    assert fault.times == 0


@pytest.mark.parametrize("direction", ["up", "down"])
def test_damaged_headers_are_overcome(
    proxy: FaultyProxy, remote: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction
):
    """No checksum guards methods, lengths, dates, signatures, ETags and checksums themselves."""
    monkeypatch.setattr(storage_client, "READ_S", 1)  # for a damaged length
    path, back, client = written(tmp_path / "file", 100), tmp_path / "back", connect()
    upload(client, path, remote)
    transfers = [
        lambda: upload(client, path, remote),
        lambda: download(client, remote, back, size=100),
    ]
    for at in range(0, 600, 41) if direction == "up" else range(0, 320, 41):
        for move in transfers:
            back.unlink(missing_ok=True)
            fault = Fault("damage", direction, at=at)
            proxy.faults.append(fault)
            move()
            assert fault.times == 0
        assert back.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("size", [100_000, 17 * MIB])
def test_bytes_that_always_arrive_damaged_are_refused(proxy: FaultyProxy, remote: Location, tmp_path: Path, size: int):
    path = written(tmp_path / "file", size)
    upload(connect(), path, remote)
    proxy.faults.append(Fault("damage", "down", at=70_000, times=10**9))
    with pytest.raises(TryAgain, match=r"checksum.*, in 5 attempts; check the network"), reaching(remote):
        download(connect(), remote, tmp_path / "back")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("state", ["refuse", "503"])
def test_an_unavailable_store_is_one_line_that_says_try_again(
    proxy: FaultyProxy, remote: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state
):
    monkeypatch.setattr(storage_client, "ATTEMPTS", 1)
    proxy.state = state
    with pytest.raises(TryAgain, match=rf"^{remote}: .+") as caught, reaching(remote):
        upload(connect(), written(tmp_path / "file", 10), remote)
    assert "\n" not in str(caught.value)


IMPORTS = """
from pathlib import Path
from components.storage.client import connect
from components.storage.download import download
from components.storage.location import parse
from components.storage.upload import upload
"""


def killed_at(proxy: FaultyProxy, direction, count: int, code: str, ready: Callable[[], bool] = lambda: True) -> None:
    """Run code in a process that is killed once that many bytes have passed the proxy and it is `ready`."""
    proxy.hold[direction] = count
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=os.environ)
    try:
        proxy.wait_for(direction, count)
        waiting.until(ready, "what it is to have done", process)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        proxy.hold[direction] = math.inf


def parts_in_store(proxy: FaultyProxy, remote: Location) -> int:
    """How many parts of an unfinished upload the store has."""
    client, bucket = Session().client("s3", endpoint_url=proxy.target), {"Bucket": remote.bucket}
    begun = client.list_multipart_uploads(**bucket, Prefix=remote.key).get("Uploads", [])
    found = [client.list_parts(**bucket, Key=each["Key"], UploadId=each["UploadId"]) for each in begun]
    return sum(len(answer.get("Parts", [])) for answer in found)


def test_a_killed_upload_resumes(proxy: FaultyProxy, remote: Location, tmp_path: Path):
    path = written(tmp_path / "file", 48 * MIB)
    code = IMPORTS + f"upload(connect(), Path({str(path)!r}), parse({str(remote)!r}))"
    proxy.rate = 30 * MIB
    killed_at(proxy, "up", 40 * MIB, code, lambda: parts_in_store(proxy, remote) >= 2)
    proxy.rate, before = None, proxy.passed["up"]
    upload(connect(), path, remote)
    assert proxy.passed["up"] - before <= 34 * MIB  # 6 parts of 8 MiB, of which at least 2 were complete
    download(connect(), remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_an_upload_resumes_with_the_parts_that_are_still_valid(store, remote: Location, tmp_path: Path):
    """The file has changed since: its second part is sent again, although the store has an older one."""
    path = written(tmp_path / "file", 3 * checksums.PART_BYTES)
    client = connect()
    key = {"Bucket": remote.bucket, "Key": remote.key}
    begun = client.create_multipart_upload(**key, ChecksumAlgorithm="SHA256")["UploadId"]
    for number in (1, 2):
        start = (number - 1) * checksums.PART_BYTES
        body = path.read_bytes()[start : start + checksums.PART_BYTES]
        client.upload_part(**key, UploadId=begun, PartNumber=number, Body=body, ChecksumAlgorithm="SHA256")
    with path.open("r+b") as file:
        file.seek(checksums.PART_BYTES + 5)
        file.write(b"changed")
    sent = []
    client.meta.events.register("before-call.s3.UploadPart", lambda params, **_: sent.append(params["url"]))
    upload(client, path, remote)
    assert sorted(int(url.partition("partNumber=")[2].partition("&")[0]) for url in sent) == [2, 3]
    download(client, remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_killed_download_resumes(proxy: FaultyProxy, remote: Location, tmp_path: Path):
    path, back = written(tmp_path / "file", 48 * MIB), tmp_path / "back"
    upload(connect(), path, remote)
    code = IMPORTS + f"download(connect(), parse({str(remote)!r}), Path({str(back)!r}))"
    proxy.rate, start = 30 * MIB, proxy.passed["down"]
    record = tmp_path / ".back.parts"
    # Of 6 parts of 8 MiB at least 2 have passed whole; the record has a header, then a line for each that is written.
    killed_at(proxy, "down", start + 40 * MIB, code, lambda: len(record.read_text().splitlines()) > 2)
    assert not back.exists()
    proxy.rate, before = None, proxy.passed["down"]
    download(connect(), remote, back)
    assert proxy.passed["down"] - before <= 34 * MIB
    assert back.read_bytes() == path.read_bytes()


def test_an_object_replaced_meanwhile_is_not_mixed_with_the_old_one(store, remote: Location, tmp_path: Path):
    """Parts of an earlier version exist locally: they are not used."""
    first, second = written(tmp_path / "first", 17 * MIB, 1), written(tmp_path / "second", 17 * MIB, 2)
    client, back = connect(), tmp_path / "back"
    upload(client, first, remote)
    calls = []

    def stop_at_the_third(**_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    client.meta.events.register("before-call.s3.GetObject", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        download(client, remote, back)
    client = connect()
    upload(client, second, remote)
    download(client, remote, back)
    assert back.read_bytes() == second.read_bytes()


MEASURE = f"""{IMPORTS}
import sys
path, remote = Path(sys.argv[1]), parse(sys.argv[2])
store = connect()
upload(store, path, remote)
path.unlink()
download(store, remote, path)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(path.stat().st_size, peak.split()[1])
"""


def peak_mib(path: Path, remote: Location) -> float:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(remote)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    size, kib = map(int, done.stdout.split())
    assert size == path.stat().st_size
    return kib / 1024


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_memory_does_not_grow_with_the_file(remote: Location, tmp_path: Path):
    assert peak_mib(sparse(tmp_path / "file", 160 * MIB), remote) < 200


@pytest.mark.slow
def test_five_gigabytes_are_transferred_in_less_than_300_megabytes(remote: Location, tmp_path: Path):
    try:
        assert peak_mib(sparse(tmp_path / "file", 5_000_000_000), remote) * MIB < 300e6
    finally:
        connect().delete_object(Bucket=remote.bucket, Key=remote.key)
