"""A bucket of any S3-compatible store: mirrored into the download folder, then read as a COCO or YOLO layout.

Credentials, region and endpoint come from the usual AWS_* variables and files (AWS_ENDPOINT_URL for other stores).
An object that lies here already with equal size and ETag is not fetched again.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from components.params import Params
from components.raw_dataset import RawDataset
from components.sources import coco_dir, yolo_dir
from yolo_core.atomic import write_json
from yolo_core.errors import UserError
from yolo_core.progress import Progress

INDEX = ".objects.json"  # what lies in the mirror: relative key -> [size, ETag]
FILES_AT_A_TIME = 8
ATTEMPTS = 5
PART_BYTES = 8 << 20


class _Object(NamedTuple):
    key: str
    path: str  # below the prefix
    size: int
    etag: str


def load(params: Params, *, scratch: Path, downloads: Path, progress: Progress) -> RawDataset:
    """Mirror `prepare.location` (s3://bucket/prefix) and read what lies there."""
    location = params.prepare.location or ""
    bucket, prefix = _parse(location)
    folder = downloads / "s3" / bucket / prefix
    try:
        _mirror(_client(), bucket, prefix, folder, location, progress)
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise UserError(f"{location}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
    except ClientError as error:
        raise UserError(f"{location}: {_explain(error)}") from None
    except (BotoCoreError, Boto3Error) as error:
        raise UserError(f"{location}: {error}; check AWS_ENDPOINT_URL and the network") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from None
    if coco_dir.is_layout(folder):
        return coco_dir.read(folder, progress)
    if yolo_dir.is_layout(folder):
        return yolo_dir.read(folder, progress)
    looked_for = "annotations/instances_train.json (COCO), data.yaml or classes.txt (YOLO)"
    raise UserError(f"{location}: no known layout there; looked for {looked_for}")


def _parse(location: str) -> tuple[str, str]:
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    if not location.startswith("s3://") or not bucket or bucket in (".", ".."):
        raise UserError(f"prepare.location = {location or None}: source s3 needs s3://bucket/prefix")
    prefix = prefix.strip("/")
    if ".." in prefix.split("/"):
        raise UserError(f"prepare.location = {location}: '..' is not allowed in a prefix")
    return bucket, prefix


def _client() -> Any:
    """A client that retries; stores behind an own endpoint are addressed by path, as most of them need."""
    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    style = {"addressing_style": "path"} if own_endpoint else None
    retries: Any = {"max_attempts": ATTEMPTS, "mode": "standard"}
    config = Config(retries=retries, s3=style, connect_timeout=10, read_timeout=60, max_pool_connections=20)
    return Session().client("s3", config=config)  # the default session keeps earlier credentials


def _mirror(client: Any, bucket: str, prefix: str, folder: Path, location: str, progress: Progress) -> None:
    """Make `folder` hold exactly the objects below the prefix, as far as earlier mirroring put files there."""
    objects = _objects(client, bucket, prefix)
    if not objects:
        raise UserError(f"{location}: no objects there; check the bucket's and the prefix's spelling")
    index = _read_index(folder / INDEX)
    for path in set(index) - {item.path for item in objects}:
        (folder / path).unlink(missing_ok=True)
        del index[path]
    wanted = [item for item in objects if not _is_here(item, folder, index)]
    transfer = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)

    def fetch(item: _Object) -> _Object:
        target = folder / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        client.download_file(bucket, item.key, str(partial), Config=transfer)
        partial.replace(target)
        return item

    try:
        with ThreadPoolExecutor(FILES_AT_A_TIME) as pool:
            for item in progress(pool.map(fetch, wanted), f"download s3://{bucket}", total=len(wanted)):
                index[item.path] = [item.size, item.etag]
    finally:
        write_json(folder / INDEX, dict(sorted(index.items())))


def _objects(client: Any, bucket: str, prefix: str) -> list[_Object]:
    """Everything below the prefix; UserError for a key that would leave the folder."""
    below = f"{prefix}/" if prefix else ""
    objects = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=below):
        for record in page.get("Contents", []):
            path = record["Key"].removeprefix(below)
            if not path or path.endswith("/"):
                continue  # a folder's placeholder
            _refuse_unsafe(record["Key"], path)
            objects.append(_Object(record["Key"], path, record["Size"], record["ETag"]))
    return objects


def _refuse_unsafe(key: str, path: str) -> None:
    parts = path.split("/")
    if PurePosixPath(path).is_absolute() or {"", ".", ".."} & set(parts) or "\\" in path or "\0" in path:
        raise UserError(f"object key {key!r} leaves the download folder; rename or remove it in the bucket")


def _is_here(item: _Object, folder: Path, index: dict[str, list[Any]]) -> bool:
    path = folder / item.path
    return index.get(item.path) == [item.size, item.etag] and path.is_file() and path.stat().st_size == item.size


def _read_index(path: Path) -> dict[str, list[Any]]:
    try:
        index = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) else {}


def _explain(error: ClientError) -> str:
    code = error.response.get("Error", {}).get("Code", "")
    known = {
        "NoSuchBucket": "no such bucket",
        "404": "no such bucket or object",
        "AccessDenied": "access denied; check the credentials' permissions",
        "403": "access denied; check the credentials' permissions",
        "InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not fit AWS_ACCESS_KEY_ID",
    }
    return known.get(code, str(error))
