"""Downloads over HTTP: resumed, checked, in one line when they fail, from a loopback server."""

import hashlib

import pytest
from range_server import RangeServer

from components.storage import web
from components.storage.web import Download, fetch, is_unchanged, shown
from yolo_core.errors import TryAgain, UserError
from yolo_core.progress import silent

DATA = bytes(range(256)) * 12_000  # 3.07 MB, three chunks
MIB = web.CHUNK_BYTES


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(web, "BACKOFF_S", 0.001)
    monkeypatch.delenv("http_proxy", raising=False)


def wanted(server: RangeServer, tmp_path, data: bytes = DATA) -> Download:
    return Download(f"{server.url}/file", tmp_path / "file", len(data), hashlib.md5(data).hexdigest())


def test_a_broken_connection_resumes_after_the_last_whole_chunk(tmp_path):
    with RangeServer({"/file": DATA}, drop_after=1_100_000, drops=2) as server:
        fetch(wanted(server, tmp_path), silent)
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.requests == [("/file", None), ("/file", f"bytes={MIB}-"), ("/file", f"bytes={2 * MIB}-")]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_earlier_run_is_resumed(tmp_path):
    (tmp_path / "file.part").write_bytes(DATA[:1000])
    with RangeServer({"/file": DATA}) as server:
        fetch(wanted(server, tmp_path), silent)
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.requests == [("/file", "bytes=1000-")]


def test_a_server_without_ranges_starts_over(tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    with RangeServer({"/file": DATA}, whole=True) as server:
        fetch(wanted(server, tmp_path), silent)
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_file_that_changed_on_the_server_starts_over(tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    (tmp_path / "file.part.etag").write_text('"of another file"')
    with RangeServer({"/file": DATA}) as server:
        fetch(wanted(server, tmp_path), silent)
    assert (tmp_path / "file").read_bytes() == DATA


def test_busy_answers_are_retried(tmp_path):
    with RangeServer({"/file": DATA}, refusals=[503, 429, 500]) as server:
        fetch(wanted(server, tmp_path), silent)
    assert len(server.requests) == 4


def test_a_finished_file_is_not_requested_again(tmp_path):
    with RangeServer({"/file": DATA}) as server:
        fetch(wanted(server, tmp_path), silent)
        fetch(wanted(server, tmp_path), silent)
    assert len(server.requests) == 1


def test_it_gives_up_with_one_line_and_keeps_what_came(tmp_path):
    with RangeServer({"/file": DATA}, drop_after=0, drops=99) as server:
        (tmp_path / "file.part").write_bytes(DATA[:2_000_000])
        with pytest.raises(TryAgain, match=r"/file: the connection closed early; run again to resume from 2.0 MB$"):
            fetch(wanted(server, tmp_path), silent)
    assert len(server.requests) == web.ATTEMPTS
    assert (tmp_path / "file.part").stat().st_size == 2_000_000


def test_nothing_listening(tmp_path):
    with RangeServer({}) as server:
        gone = wanted(server, tmp_path)
    with pytest.raises(TryAgain, match="refused"):
        fetch(gone, silent)


@pytest.mark.parametrize(
    ("served", "message"),
    [
        ({}, "the server answered 404"),
        ({"/file": DATA[:-1]}, "3071999 bytes on the server, 3072000 expected"),
        ({"/file": DATA[:-1] + b"x"}, "MD5 is .*, .* expected; the file was removed, run again or correct"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, served, message):
    with RangeServer(served) as server, pytest.raises(UserError, match=message):
        fetch(wanted(server, tmp_path), silent)
    assert list(tmp_path.iterdir()) == []


def test_no_space(tmp_path):
    huge = Download("http://127.0.0.1:9/file", tmp_path / "file", 10**18, "", more_room="buy a disk")
    with pytest.raises(UserError, match=r"GB free, file needs 1000000000.0 GB; buy a disk$"):
        fetch(huge, silent)


def unknown(server: RangeServer, tmp_path) -> Download:
    """Of a file of which nothing but the address is known."""
    return Download(f"{server.url}/file", tmp_path / "file")


def test_without_a_known_size_it_resumes_the_file_of_the_same_etag(tmp_path):
    with RangeServer({"/file": DATA}, drop_after=1_100_000, drops=1) as server:
        etag = fetch(unknown(server, tmp_path), silent)
    assert etag == f'"{hashlib.sha256(DATA).hexdigest()}"'
    assert (tmp_path / "file").read_bytes() == DATA
    assert server.requests == [("/file", None), ("/file", f"bytes={MIB}-")]


def test_what_nothing_can_verify_starts_over(tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 1000)  # without ETag, of a file without checksum
    with RangeServer({"/file": DATA}) as server:
        fetch(unknown(server, tmp_path), silent)
    assert server.requests == [("/file", None)]
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_file_with_the_same_etag_is_unchanged(tmp_path):
    with RangeServer({"/file": DATA}, refusals=[503]) as server:
        assert is_unchanged(f"{server.url}/file", f'"{hashlib.sha256(DATA).hexdigest()}"')
        assert not is_unchanged(f"{server.url}/file", '"another"')


def test_an_address_is_shown_without_what_may_be_secret():
    assert shown("https://me:secret@host:1/a/b.pt?token=secret#part") == "https://host:1/a/b.pt"
    text = "https://me:secret@host/b.pt?X-Signature=secret: refused; see http://host/?a=secret."
    assert str(UserError(text)) == "https://host/b.pt: refused; see http://host/."
