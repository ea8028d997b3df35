"""The connection to the object store, and its errors as one line each.

Credentials, region and endpoint come from the usual AWS_* variables and files (AWS_ENDPOINT_URL for other stores).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from boto3.session import Session
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

ATTEMPTS = 6  # of one request; waits of up to 1, 2, 4, ... seconds lie between them
CONNECT_S, READ_S = 10, 30
CONNECTIONS = 20

_MENDS = {
    "NoSuchBucket": "no such bucket",
    "404": "no such bucket or object",
    "NoSuchKey": "no such object",
    "AccessDenied": "access denied; check the credentials' permissions",
    "403": "access denied; check the credentials' permissions",
    "InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not fit AWS_ACCESS_KEY_ID",
    "ExpiredToken": "the credentials have expired; renew them",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the store's; set it right",
}
_PASSING = {"BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown", "XAmzContentSHA256Mismatch"}


def connect() -> Any:
    """A client that retries; stores behind an own endpoint are addressed by path, as most of them need."""
    own_endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    retries: Any = {"total_max_attempts": ATTEMPTS, "mode": "standard"}
    config = Config(
        retries=retries,
        s3={"addressing_style": "path"} if own_endpoint else None,
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
    )
    return Session().client("s3", config=config)  # the default session keeps earlier credentials


@contextmanager
def reaching(place: Location) -> Iterator[None]:
    """Turn the store's ways of saying no into one line: TryAgain for what passes, UserError for the rest."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise UserError(f"{place}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
    except ClientError as error:
        kind = TryAgain if is_passing(error) else UserError
        raise kind(f"{place}: {_MENDS.get(code(error), str(error))}") from None
    except (BotoCoreError, ResponseParserError) as error:
        raise TryAgain(f"{place}: {error}; check AWS_ENDPOINT_URL and the network") from None


def code(error: ClientError) -> str:
    """The store's own name of an error; a status code where the answer had no body."""
    return error.response.get("Error", {}).get("Code", "")


def is_passing(error: ClientError) -> bool:
    """Is it the store's or the network's trouble of the moment?"""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or status == 429 or code(error) in _PASSING


def writable(client: Any, place: Location) -> None:
    """Raise an error unless objects can be put there: begins an upload and takes it back, which leaves nothing."""
    key = place.key or "probe"
    begun = client.create_multipart_upload(Bucket=place.bucket, Key=key)
    client.abort_multipart_upload(Bucket=place.bucket, Key=key, UploadId=begun["UploadId"])
