"""Addresses in the object store, and errors that name them."""

import contextlib

import pytest
from faulty_proxy import FaultyProxy

from components.storage import folder, location
from components.storage.client import connect, reaching
from components.storage.location import Location
from yolo_core.errors import UserError


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [("s3://b/k", "b", "k"), ("s3://b/a/k/", "b", "a/k"), ("s3://b", "b", ""), ("s3://b/", "b", "")],
)
def test_locations(text: str, bucket: str, key: str):
    assert location.parse(text) == Location(bucket, key)


@pytest.mark.parametrize(
    "text", ["s3://", "s3:///x", "gs://b/x", "s3:/b/x", "s3://b/../x", "s3://b/a//x", "s3://b/a\\x"]
)
def test_what_is_not_a_location_is_refused_by_name(text: str):
    assert location.is_remote(text)
    with pytest.raises(UserError) as caught:
        location.parse(text)
    assert text in str(caught.value)


def test_local_paths_are_not_locations():
    assert not any(location.is_remote(text) for text in ("a/b", "/a", "a:b", "s3", "./s3:/x", "C:x"))


def test_no_secret_shows_in_an_error(proxy: FaultyProxy, remote: Location, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret-key")
    with contextlib.suppress(UserError), reaching(remote):
        connect().list_objects_v2(Bucket=remote.bucket)
        raise AssertionError
    with pytest.raises(UserError) as caught, reaching(remote):
        folder.listing(connect(), remote)
    assert "planted" not in str(caught.value)
