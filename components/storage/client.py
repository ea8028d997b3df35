"""Connects to the object store, and turns its errors into one line each.

Credentials, region and endpoint come from the usual AWS_* variables and files (AWS_ENDPOINT_URL for other stores).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from boto3.session import Session
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from components.storage.location import Location
from yolo_core.errors import TryAgain, UserError

ATTEMPTS = 6  # per request, with backoff of up to 1, 2, 4, ... seconds
CONNECT_S, READ_S = 10, 30
CONNECTIONS = 20

_REASONS = {
    "NoSuchBucket": "no such bucket",
    "404": "no such bucket or object",
    "NoSuchKey": "no such object",
    "AccessDenied": "access denied; check the credentials' permissions",
    "403": "access denied; check the credentials' permissions",
    "InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not match AWS_ACCESS_KEY_ID",
    "ExpiredToken": "the credentials have expired; renew them",
    "RequestTimeTooSkewed": "this machine's clock is too far off the store's; correct it",
}
_TRANSIENT = {"BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown", "XAmzContentSHA256Mismatch"}


def connect() -> BaseClient:
    """A client that retries. Stores with their own endpoint are addressed by path, as most of them require."""
    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        s3={"addressing_style": "path"} if own_endpoint else None,
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
    )
    return Session().client("s3", config=config)  # the default session would keep earlier credentials


@contextmanager
def reaching(location: Location) -> Iterator[None]:
    """Turn the store's errors into one line: TryAgain for transient ones, UserError for the rest."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise UserError(f"{location}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
    except ClientError as error:
        kind = TryAgain if is_transient(error) else UserError
        raise kind(f"{location}: {_REASONS.get(code(error), str(error))}") from None
    except (BotoCoreError, ResponseParserError) as error:
        raise TryAgain(f"{location}: {error}; check AWS_ENDPOINT_URL and the network") from None


def code(error: ClientError) -> str:
    """The store's error code; the HTTP status if the answer had no body."""
    return error.response.get("Error", {}).get("Code", "")


def is_transient(error: ClientError) -> bool:
    """Is it a temporary problem of the store or the network?"""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or status == 429 or code(error) in _TRANSIENT


def check_writable(client: BaseClient, location: Location) -> None:
    """Raise an error unless objects can be written there: begins an upload and aborts it, which leaves nothing."""
    key = location.key or "probe"
    begun = client.create_multipart_upload(Bucket=location.bucket, Key=key)
    client.abort_multipart_upload(Bucket=location.bucket, Key=key, UploadId=begun["UploadId"])
